"""Which tensors are trained: the policy, and the proof that the others have not changed.

Freezing is decided by the official name of a tensor, in one place: `names_to_train`.
"""

import fnmatch
from pathlib import Path

import torch
from torch import nn

from minigpt.classifier import Classifier
from minigpt.model import GPT2
from minigpt.weights import open_tensors

PRESETS = {  # names that train_only also takes
    "bitfit": "*.bias",  # Ben Zaken et al. 2021
    "norms": "*ln_?.*",  # gains and biases of the layer norms
}


def names_to_train(
    trunk: GPT2,
    freeze_trunk: bool = False,
    train_last: int | None = None,
    train_only: str | None = None,
) -> set[str]:
    """Return the official names of the trunk's tensors to train; the head always is.

    `freeze_trunk`: none. `train_last` N: those of the last N blocks and of ln_f. `train_only`:
    those that match one of the comma-separated globs, or of a preset's. None of the three: all.
    Raises ValueError for what the trunk does not have.
    """
    names = [name for name, _ in trunk.named_parameters()]
    if freeze_trunk:
        return set()
    if train_last is not None:
        blocks = len(trunk.h)
        if not 1 <= train_last <= blocks:
            raise ValueError(f"train-last {train_last}: the trunk has blocks 1 to {blocks}")
        last = tuple(f"h.{i}." for i in range(blocks - train_last, blocks))
        return {name for name in names if name.startswith((*last, "ln_f."))}
    if train_only is not None:
        chosen = set()
        for glob in map(str.strip, train_only.split(",")):
            matching = set(fnmatch.filter(names, PRESETS.get(glob, glob)))
            if not matching:
                raise ValueError(
                    f"train-only {glob!r} matches no tensor; names are like {names[2]}, ln_f.bias"
                )
            chosen |= matching
        return chosen
    return set(names)


def freeze(model: Classifier, names: set[str]) -> None:
    """Make the head and the named tensors of the trunk trainable, and nothing else."""
    for name, parameter in model.transformer.named_parameters():
        parameter.requires_grad_(name in names)
    model.score.requires_grad_(True)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what is trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_mode(model: nn.Module) -> None:
    """Put what is trained in training mode, and what is frozen in eval mode: without dropout.

    Modules without tensors of their own (dropout) follow the module they are in, except for the
    dropout on embeddings, which is in the trunk and follows the embeddings. (Where the whole trunk
    is frozen, `fit` sees only the head: see head.py.)
    """
    for module in model.modules():  # parents first: `train` sets their children, too
        if parameters := list(module.parameters()):
            module.train(any(p.requires_grad for p in parameters))
        if isinstance(module, GPT2):
            module.drop.train(module.wte.weight.requires_grad or module.wpe.weight.requires_grad)


def frozen_unchanged(model: Classifier, path: Path) -> bool:
    """Compare every frozen tensor of the trunk, bit for bit, with the file it was loaded from.

    The file is opened again: comparing the model with itself would prove nothing.
    """
    frozen = {n: p for n, p in model.transformer.named_parameters() if not p.requires_grad}
    stored = open_tensors(path, only=frozen)
    return all(  # as bits: NaN equals itself, and 0.0 is not -0.0
        torch.equal(p.detach().cpu().view(torch.int32), stored[name].view(torch.int32))
        for name, p in frozen.items()
    )
