"""Types of command-line flags: each refuses values that make no sense, naming the flag.

Loads no torch: help, and what is wrong with a flag, are there at once.
"""

import argparse
import json
import math
from pathlib import Path

from minigpt.edge.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "int8")
POOLINGS = ("last", "first", "mean", "max")  # those of classifier.py, without importing torch
TEXT_COLUMN = (
    "where the text is, several joined by a space; numbers from 1 where there is no header; "
    "default: by the usual names"
)
LABEL_COLUMN = "where the label is, by name or number; default: by the usual names"


def at_least(least, below=math.inf):
    """Return a type for argparse: a number of the type of `least`, from it up to under `below`."""

    def number(text: str):
        value = type(least)(text)  # argparse reports a ValueError itself
        if not least <= value < below:
            upper = f", under {below}" if below < math.inf else ""
            raise argparse.ArgumentTypeError(f"{text} is not {least} or more{upper}")
        return value

    number.__name__ = {int: "whole number", float: "number"}[type(least)]
    return number


def above_zero(text: str) -> float:
    """A type for argparse: a number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


above_zero.__name__ = "number"  # what argparse says is invalid


def named(text: str) -> str:
    """A type for argparse: a name, which is not empty (as an unset shell variable would be)."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    return text


def add_reading(add, label: bool = True) -> None:
    """Add the flags that say how a file of texts is to be read."""
    add("--text-column", type=named, metavar="NAME[,NAME]", help=TEXT_COLUMN)
    if label:
        add("--label-column", type=named, metavar="NAME", help=LABEL_COLUMN)
    add("--encoding", type=named, metavar="E", help="of files; default: UTF-8, or as they begin")


def refuse_run(weights: str | None, instead: str) -> None:
    """Raise InputError if `--weights` is the folder of a run of train.py, which has no weights."""
    folder = Path(weights or "")
    run = any((folder / name).is_file() for name in ("run.json", "state.safetensors"))
    if weights and run and not (folder / "config.json").is_file():
        try:
            name = json.loads((folder / "run.json").read_text(encoding="utf-8"))["weights"]["name"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            name = "those that its run.json names"
        raise InputError(
            f"--weights {weights} is a run, a classifier on other weights ({name}); {instead}"
        )
