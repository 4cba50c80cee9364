"""python -m minigpt train: what train.py does, which stands at the top of the checkout."""

import functools
import importlib.util
from types import ModuleType

from minigpt.cli.program import load_torch
from minigpt.cli.train_flags import parse
from minigpt.edge.checkout import checkout


def train(argv: list[str]) -> None:
    """Train a classifier, as python train.py does."""
    typed = parse(train.__doc__, argv, "python -m minigpt train")
    load_torch()
    script().main(typed)


@functools.cache
def script() -> ModuleType:
    """Return train.py as a module."""
    spec = importlib.util.spec_from_file_location("train", checkout() / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
