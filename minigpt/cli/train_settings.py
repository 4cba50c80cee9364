"""The flags of train.py, settled: with what suits, where they were left out."""

import argparse
import os
from pathlib import Path

import torch

from minigpt.checkpoints.find import Checkpoint
from minigpt.cli.devices import device_of, dtype_of
from minigpt.datasets import NAMED
from minigpt.edge.errors import InputError
from minigpt.freeze import names_to_train
from minigpt.head import HEAD_RECIPE
from minigpt.model import GPT2
from minigpt.peft import method_of, room_for_text

# Learning rate times n_embd, for what is small or new: chosen on mirrored's dev split, with tiny
RATES = {"lora": 0.5, "adapter": 0.8, "prompt": 2.5, "prefix": 8.0, "vectors": 1.3}


def settle(typed: argparse.Namespace, checkpoint: Checkpoint, texts: int, processes=1) -> dict:
    """Return the settings of a run: the flags, and where they were left out, what suits.

    What suits depends on what is trained, and on the sizes of the trunk and the data. Matrices are
    trained at 32 / n_embd², which was best on dev with tiny (5e-4), and is near what is usual for
    gpt2 (5e-5). Raises InputError for what does not fit the trunk.
    """
    if processes > texts:
        raise InputError(f"{processes} processes for {texts} texts; start fewer")
    config, names = checkpoint.config, names_of(typed, checkpoint)
    settings = {n: value for n, value in vars(typed).items() if n not in ("resume", "argv")}
    settings |= {"weights": checkpoint.name, "device": device_of(typed.device)}
    settings["dtype"] = dtype_of(typed.dtype, settings["device"])
    if typed.data not in NAMED and Path(typed.data).exists():
        settings["data"] = os.path.abspath(typed.data)  # to be found from another folder, too
    method = method_of(settings)
    suits = {"lr": min(1e-3, 32 / config.n_embd**2), "weight_decay": 0.1, "clip": 1.0}
    suits["epochs"] = 3 if texts >= 5000 else 6
    if typed.freeze_trunk:
        suits = {name: getattr(HEAD_RECIPE, name) for name in suits}
    elif method:
        suits["lr"] = RATES[method] / config.n_embd
    elif all(dimensions < 2 for dimensions in names.values()):
        suits["lr"] = RATES["vectors"] / config.n_embd
    if typed.lora is not None:
        suits |= {"lora_on": "c_attn", "lora_alpha": 2.0 * typed.lora, "lora_dropout": 0.0}
    least, most = room_for_text(config, settings)
    if most < least:
        taken = f"--{method} {settings[method]}" if method else "--append-end"
        context = f"a context of {config.n_positions} tokens"
        raise InputError(f"{taken} leaves no room for a text in {context}")
    suits["max_length"] = most
    settings |= {name: value for name, value in suits.items() if settings[name] is None}
    length = settings["max_length"]
    if not least <= length <= most:
        raise InputError(f"--max-length {length}: it can be {least} to {most} tokens here")
    return settings


def names_of(typed: argparse.Namespace, checkpoint: Checkpoint) -> dict[str, int]:
    """Return the trunk's tensors that the flags name as trainable, and their dimensions."""
    if method_of(vars(typed)):
        return {}
    with torch.device("meta"):
        trunk = GPT2(checkpoint.config)
    try:
        names = names_to_train(trunk, typed.freeze_trunk, typed.train_last, typed.train_only)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    return {name: trunk.get_parameter(name).dim() for name in names}
