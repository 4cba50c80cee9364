"""A run's vocabulary as AutoTokenizer opens it, in the format of the `tokenizers` library."""

import json

from minigpt.checkpoints import Vocabulary, read_vocabulary
from minigpt.runs import Run
from minigpt.tokenizer import END_OF_TEXT

PAD = "<|pad|>"


def pad_id(run: Run) -> int:
    """Return the id of a pad token that no text has: the next one, unless it is there already."""
    ids = read_vocabulary(run.checkpoint.folder).ids
    return ids.get(PAD, len(ids))


def tokenizer_files(run: Run, pad: int) -> dict[str, str]:
    """Return {name: text}; with --append-end, <|endoftext|> follows each text.

    `pad` is the number of the pad token: that of <|endoftext|>, or of one more. What is special is
    plain text inside of a text, as it is here.
    """
    end = run.tokenizer.eot_token
    specials = {END_OF_TEXT: end} | ({PAD: pad} if pad != end else {})
    vocabulary = read_vocabulary(run.checkpoint.folder)
    tokenizer = tokenizer_json(vocabulary, specials, run.append_end)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.max_length,
        "truncation_side": "right" if run.keep == "start" else "left",
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 has no token types
        "eos_token": END_OF_TEXT,
        "pad_token": PAD if pad != end else END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def tokenizer_json(vocabulary: Vocabulary, specials: dict[str, int], append_end: bool) -> dict:
    """Return the fields of tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(vocabulary, specials),
        "normalizer": None,
        "pre_tokenizer": byte_level(vocabulary.settings.prefix_space),
        "post_processor": template(vocabulary, append_end),
        "decoder": byte_level(add_prefix_space=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary.vocab,
            "merges": vocabulary.merges,
        },
    }


def byte_level(add_prefix_space: bool) -> dict:
    """Return what cuts a text into words and their bytes, or puts them together again."""
    options = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}
    return {"type": "ByteLevel"} | options


def added_tokens(vocabulary: Vocabulary, specials: dict[str, int]) -> list[dict]:
    """Return the tokens that are cut out of a text, and those that are special, by their ids.

    The former are not marked as special, whatever they were, since they count in texts.
    """
    settings = vocabulary.settings
    tokens = {token: (i, True, False) for token, i in specials.items()}
    for token in settings.added.values():
        unread = token.special and settings.split_special
        tokens.setdefault(token.content, (token.id, unread, token.normalized))
    never = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return [
        {"id": i, "content": token, "special": special, "normalized": normalized} | never
        for token, (i, special, normalized) in sorted(tokens.items(), key=lambda item: item[1])
    ]


def template(vocabulary: Vocabulary, append_end: bool) -> dict:
    """Return what is made of a text, or of a pair of texts, once it is encoded."""
    names = {i: token for token, i in vocabulary.ids.items()}
    text, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    before = [names[i] for i in vocabulary.settings.before]
    after = [END_OF_TEXT] if append_end else []
    first, last = (
        [{"SpecialToken": {"id": name, "type_id": 0}} for name in side] for side in (before, after)
    )
    return {
        "type": "TemplateProcessing",
        "single": [*first, text, *last],
        "pair": [*first, text, second, *last],
        "special_tokens": {
            name: {"id": name, "ids": [vocabulary.ids[name]], "tokens": [name]}
            for name in (*before, *after)
        },
    }
