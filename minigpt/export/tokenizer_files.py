"""A run's vocabulary as AutoTokenizer opens it, in the format of the `tokenizers` library."""

import json

from minigpt.checkpoints import read_vocabulary
from minigpt.runs import Run
from minigpt.tokenizer import END_OF_TEXT

PAD = "<|pad|>"


def tokenizer_files(run: Run, pad: int) -> dict[str, str]:
    """Return {name: text}; with --append-end, <|endoftext|> follows each text.

    `pad` is the number of the pad token: that of <|endoftext|>, or of one more.
    """
    end = run.tokenizer.eot_token
    specials = {END_OF_TEXT: end} | ({PAD: pad} if pad != end else {})
    vocab, merges, _ = read_vocabulary(run.checkpoint.folder)
    tokenizer = tokenizer_json(vocab, merges, specials, run.append_end)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.max_length,
        "truncation_side": "right" if run.keep == "start" else "left",
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 has no token types
        "eos_token": END_OF_TEXT,
        "pad_token": PAD if pad != end else END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
    }


def tokenizer_json(vocab: dict, merges: list, specials: dict[str, int], append_end: bool) -> dict:
    """Return the fields of tokenizer.json."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": True} | plain for token, i in specials.items()
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level(add_prefix_space=False),
        "post_processor": template(specials[END_OF_TEXT], append_end),
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
            "vocab": vocab,
            "merges": merges,
        },
    }


def byte_level(add_prefix_space: bool) -> dict:
    """Return what cuts a text into words and their bytes, or puts them together again."""
    options = {"add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}
    return {"type": "ByteLevel"} | options


def template(end: int, append_end: bool) -> dict:
    """Return what is made of a text, or of a pair of texts, once it is encoded."""
    text, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    after = [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}] if append_end else []
    ids = {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [end], "tokens": [END_OF_TEXT]}}
    return {
        "type": "TemplateProcessing",
        "single": [text, *after],
        "pair": [text, second, *after],
        "special_tokens": ids if after else {},
    }
