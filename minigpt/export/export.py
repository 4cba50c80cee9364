"""A run as a folder that other people's tools open: transformers, or the peft library."""

import json
from pathlib import Path

import torch

from minigpt.checkpoints import OFFICIAL, Checkpoint, Vocabulary, read_vocabulary
from minigpt.edge.errors import InputError
from minigpt.edge.files import check_output_folder, write_folder
from minigpt.peft import merge, method_of
from minigpt.runs import Run, load_run
from minigpt.tokenizer import END_OF_TEXT

# V rows of wte, C channels, L blocks, H heads, N vectors of a prompt or prefix, D = C // H
KINDS = ("transformers", "peft")
PAD = "<|pad|>"


def export(folder: str, to: str, kind: str) -> str:
    """Write the run in `folder` to the folder `to`, for "transformers" or for "peft".

    Returns the lines of Python that open it there. Raises InputError for what has no counterpart,
    and for a place that cannot be written or is not empty.
    """
    place = check_output_folder(to, "--to")
    run = load_run(folder)
    pooling, method = run.model.pooling, method_of(run.recipe)
    if pooling != "last":
        raise InputError(f"{folder} pools {pooling!r}; GPT2ForSequenceClassification only the last")
    if method == "adapter":
        raise InputError(f"{folder} has adapters; neither transformers nor peft has their like")
    if kind == "transformers":
        if method in ("prompt", "prefix"):
            raise InputError(
                f"{folder} has a {method}, which needs the peft library; say --as peft"
            )
        files, how = for_transformers(run), IN_TRANSFORMERS
    else:
        if method is None:
            raise InputError(f"{folder} has nothing for peft to put on; leave out --as peft")
        if run.append_end:
            raise InputError(
                f"{folder} reads at {END_OF_TEXT}, which a batch in peft would take for padding; "
                "a LoRA run can be exported without --as peft"
            )
        files, how = for_peft(run, method), IN_PEFT
    write_folder(place, files)
    base, labels = repository_of(run.checkpoint), dict(enumerate(run.labels))
    lines = how.format(to=to, base=base, labels=labels, pad=run.tokenizer.eot_token)
    if method == "prompt":
        lines += "\n# one text at a time: peft reads the last place of a batch, padding or not"
    elif kind == "peft":
        lines += '\ntokenizer.padding_side = "right"'
    return lines


IN_TRANSFORMERS = """\
from transformers import pipeline
pipe = pipeline("text-classification", {to!r})
pipe(["a text"], truncation=True)"""

IN_PEFT = """\
from peft import PeftModel
from transformers import AutoTokenizer, GPT2ForSequenceClassification
base = GPT2ForSequenceClassification.from_pretrained(
    {base!r}, id2label={labels}, pad_token_id={pad}, ignore_mismatched_sizes=True
)
model = PeftModel.from_pretrained(base, {to!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({to!r})"""


def repository_of(checkpoint: Checkpoint) -> str:
    """Return by what name other tools open a base: on the Hub, or else a folder of this machine."""
    if checkpoint.name in OFFICIAL:
        return f"openai-community/{checkpoint.name}"
    here = checkpoint.name == "tiny" or Path(checkpoint.name).is_dir()
    return str(checkpoint.folder) if here else checkpoint.name


def for_transformers(run: Run) -> dict:
    """Return the files of a GPT2ForSequenceClassification, LoRA merged into the weights.

    That class finds a text's last token as the last that is not the pad token. Where texts end in
    <|endoftext|>, padding must be another one: a row of zeros is added to `wte` for it. All is
    float32, also where the run computed in bfloat16.
    """
    merge(run.model.transformer)
    tensors = dict(run.model.named_parameters())
    wte = tensors["transformer.wte.weight"]  # (V, C)
    end = pad = run.tokenizer.eot_token
    vocabulary = read_vocabulary(run.checkpoint.folder)
    if run.append_end:  # the next id; some models have a row to spare for it
        pad = vocabulary.ids.get(PAD, len(vocabulary.ids))
        if pad == len(wte):
            tensors["transformer.wte.weight"] = torch.cat((wte, torch.zeros_like(wte[:1])))
    names = dict(enumerate(run.labels))
    config = run.checkpoint.config.to_json() | {
        "architectures": ["GPT2ForSequenceClassification"],
        "vocab_size": len(tensors["transformer.wte.weight"]),
        "id2label": names,
        "label2id": {label: i for i, label in names.items()},
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": "float32",
        "minigpt": {"append_end": run.append_end, "max_length": run.max_length},  # for `predict`
    }
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return {
        "config.json": json.dumps(config, indent=2) + "\n",
        "model.safetensors": tensors,
    } | tokenizer_files(run, vocabulary, pad)


def tokenizer_files(run: Run, vocabulary: Vocabulary, pad: int) -> dict:
    """Return what AutoTokenizer opens: the vocabulary, and what is done with a text beside merges.

    The format is that of the `tokenizers` library. What is special there is plain text in a text,
    as it is here: so added tokens that count in texts are not.
    """
    end, settings = run.tokenizer.eot_token, vocabulary.settings
    names = {i: token for token, i in vocabulary.ids.items()}
    text, second = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    around = {names[i]: i for i in (*settings.before, end)}
    before = [{"SpecialToken": {"id": names[i], "type_id": 0}} for i in settings.before]
    after = [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}] if run.append_end else []
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(
            settings, {END_OF_TEXT: end} | ({PAD: pad} if pad != end else {})
        ),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": settings.prefix_space,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*before, text, *after],
            "pair": [*before, text, second, *after],
            "special_tokens": {
                name: {"id": name, "ids": [i], "tokens": [name]}
                for name, i in around.items()
                if before or after
            },
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
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
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": run.max_length,
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 has no token types
        "eos_token": END_OF_TEXT,
        "pad_token": PAD if pad != end else END_OF_TEXT,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False) + "\n",
        "tokenizer_config.json": json.dumps(about, indent=2) + "\n",
    }


def added_tokens(settings, special: dict[str, int]) -> list[dict]:
    """Return the added tokens of a tokenizer.json, in the order of their ids."""
    tokens = {token: (i, True, False) for token, i in special.items()}  # id, special, normalized
    for token in settings.added.values():
        if token.content not in special:
            unread = token.special and settings.split_special
            tokens[token.content] = token.id, unread, token.normalized
    never = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return [
        {"id": i, "content": token, "special": special, "normalized": normalized} | never
        for token, (i, special, normalized) in sorted(tokens.items(), key=lambda item: item[1])
    ]


def for_peft(run: Run, method: str) -> dict:
    """Return the files of a LoRA, a prompt or a prefix as the peft library saves them.

    Names and layouts: `LoraConfig`, `PromptEmbedding` and `PrefixEncoder` there.
    """
    trunk, recipe, size = run.model.transformer, run.recipe, run.checkpoint.config
    config = {
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": repository_of(run.checkpoint),
        "inference_mode": True,
    }
    if method == "lora":
        layers = [n.removesuffix(".lora_A") for n, _ in trunk.named_parameters() if ".lora_A" in n]
        config |= {
            "peft_type": "LORA",
            "r": recipe["lora"],
            "lora_alpha": recipe["lora_alpha"],
            "lora_dropout": recipe["lora_dropout"],
            "target_modules": [f"transformer.{name}" for name in layers],
            "fan_in_fan_out": True,  # weights are (in, out)
            "modules_to_save": ["score"],
        }
        tensors = {"base_model.model.score.weight": run.model.score.weight}
        for name in layers:  # theirs are (r, in) and (out, r)
            layer, theirs = trunk.get_submodule(name), f"base_model.model.transformer.{name}"
            tensors[f"{theirs}.lora_A.weight"] = layer.lora_A.T
            tensors[f"{theirs}.lora_B.weight"] = layer.lora_B.T
    else:
        config |= {
            "peft_type": {"prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}[method],
            "num_virtual_tokens": recipe[method],
            "token_dim": size.n_embd,
            "num_layers": size.n_layer,
            "num_attention_heads": size.n_head,
            "num_transformer_submodules": 1,
            "modules_to_save": ["score"],
        }
        tensors = {"base_model.score.weight": run.model.score.weight}
        if method == "prompt":
            tensors["prompt_embeddings"] = trunk.wte.prompt
        else:
            pairs = torch.stack((trunk.prefix.keys, trunk.prefix.values), 1)  # (L, 2, H, N, D)
            tensors["prompt_embeddings"] = pairs.permute(3, 0, 1, 2, 4).flatten(1)  # (N, L 2 C)
    files = {
        "adapter_config.json": json.dumps(config, indent=2) + "\n",
        "adapter_model.safetensors": {n: t.detach().contiguous() for n, t in tensors.items()},
    }
    vocabulary = read_vocabulary(run.checkpoint.folder)
    return files | tokenizer_files(run, vocabulary, run.tokenizer.eot_token)
