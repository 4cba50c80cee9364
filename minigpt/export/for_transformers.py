"""A run as a GPT2ForSequenceClassification of transformers, which computes all of it in float32."""

import json

import torch

from minigpt.export.tokenizer_files import pad_id, tokenizer_files
from minigpt.peft import merge
from minigpt.runs import Run

# V rows of wte, C channels

HOW_TO_OPEN = """\
from transformers import pipeline
pipe = pipeline("text-classification", {to!r})
pipe(["a text"], truncation=True)"""


def how_to_open(run: Run, to: str) -> str:
    """Return the lines of Python that open the folder `to`."""
    return HOW_TO_OPEN.format(to=to)


def files_of(run: Run) -> dict:
    """Return {name: text or tensors} of a run, LoRA merged into the weights.

    That class finds a text's last token as the last that is not the pad token. Where texts end in
    <|endoftext|>, padding must be another one: a row of zeros is added to `wte` for it.
    """
    merge(run.model.transformer)
    tensors = dict(run.model.named_parameters())
    pad = run.tokenizer.eot_token
    if run.append_end:
        pad = pad_id(run)  # some models have a row to spare for it
        wte = tensors["transformer.wte.weight"]  # (V, C)
        if pad == len(wte):
            tensors["transformer.wte.weight"] = torch.cat((wte, torch.zeros_like(wte[:1])))
    config = config_of(run, pad, rows=len(tensors["transformer.wte.weight"]))
    return {
        "config.json": json.dumps(config, indent=2) + "\n",
        "model.safetensors": {n: tensor.detach().contiguous() for n, tensor in tensors.items()},
        **tokenizer_files(run, pad),
    }


def config_of(run: Run, pad: int, rows: int) -> dict:
    """Return the fields of config.json, for as many rows of `wte`."""
    names, end = dict(enumerate(run.labels)), run.tokenizer.eot_token
    return run.checkpoint.config.to_json() | {
        "architectures": ["GPT2ForSequenceClassification"],
        "vocab_size": rows,
        "id2label": names,
        "label2id": {label: i for i, label in names.items()},
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": pad,
        "dtype": "float32",
        "minigpt": {"append_end": run.append_end, "max_length": run.max_length},  # for `predict`
    }
