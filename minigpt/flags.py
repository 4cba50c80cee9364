"""Types of command-line flags: each refuses what makes no sense, naming the flag."""

import argparse
import math

import torch

from minigpt.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")


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


def device_of(name: str) -> str:
    """Return the device that `--device` means; raise InputError for one that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise InputError(f"--device {name}: this machine or this build of torch has none")
    return name
