"""Types of command-line flags: each refuses what makes no sense, naming the flag."""

import argparse
import math
import sys
import time

import torch

from minigpt.edge.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16")


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


def device_of(name: str) -> str:
    """Return the device that `--device` means; raise InputError for one that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise InputError(f"--device {name}: this machine or this build of torch has none")
    return name


def dtype_of(name: str, device: str) -> torch.dtype:
    """Return what `--dtype` means on a device: auto is bfloat16 on GPUs that have it.

    Says so, in one line, where bfloat16 was asked for and is the slower one.
    """
    if name == "auto":
        name = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    dtype = getattr(torch, name)
    if dtype != torch.float32 and seconds_of_product(dtype, device) > seconds_of_product(
        torch.float32, device
    ):
        said = "bfloat16 is slower than float32 on this machine: leave --dtype out"
        print(f"advice: {said}", file=sys.stderr)
    return dtype


def seconds_of_product(dtype: torch.dtype, device: str) -> float:
    """Measure a matrix product as large as GPT-2's: the best of five, a few milliseconds each."""
    a, b = (torch.ones(shape, dtype=dtype, device=device) for shape in ((512, 768), (768, 2304)))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # asking for a number waits for a GPU
        seconds.append(time.perf_counter() - start)
    return min(seconds)
