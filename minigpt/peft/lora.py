"""LoRA: a change of a linear layer's weight, but one of low rank (Hu et al. 2021)."""

import fnmatch
import math

import torch
from torch import nn

from minigpt.edge.errors import InputError
from minigpt.model import GPT2, Linear

# r rank


class LoRALinear(Linear):
    """x W + b + (x A B) α / r.

    A: (in, r), random; B: (r, out), zero, so that nothing changes at the start. Such a layer has
    r (in + out) trainable parameters. α / r keeps the size of the change the same when r is
    changed. Afterwards A B α / r can be added to W, so that reading takes no longer than before.
    """

    def __init__(self, linear: Linear, rank: int, alpha: float, dropout: float):
        nn.Module.__init__(self)  # the weights are those of the layer it replaces
        self.weight, self.bias = linear.weight, linear.bias
        inputs, outputs = linear.weight.shape
        self.lora_A = nn.Parameter(linear.weight.new_empty(inputs, rank))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(rank, outputs))
        nn.init.uniform_(self.lora_A, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))  # as in peft
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):  # (..., in) -> (..., out)
        return super().forward(x) + self.dropout(x) @ self.lora_A @ self.lora_B * self.scale

    @torch.no_grad()
    def merged(self) -> Linear:
        """Return a plain layer that computes the same."""
        linear = Linear(0, 0)
        linear.weight = nn.Parameter(self.weight + self.lora_A @ self.lora_B * self.scale)
        linear.bias = self.bias
        return linear


def add_lora(trunk: GPT2, rank: int, alpha: float, dropout: float, layers: str, last: int) -> None:
    """Put LoRA in place of the linear layers that the globs name, in the last blocks."""
    for name in layers_named(trunk, layers, last):
        linear = trunk.get_submodule(name)
        trunk.set_submodule(name, LoRALinear(linear, rank, alpha, dropout))


def layers_named(trunk: GPT2, globs: str, last: int) -> list[str]:
    """Return the linear layers in the last blocks whose names, or ends of them, match a glob."""
    available = [
        f"h.{i}.{name}"
        for i in range(len(trunk.h) - last, len(trunk.h))
        for name, module in trunk.h[i].named_modules()
        if isinstance(module, Linear)
    ]
    chosen = set()
    for glob in globs.split(","):
        matching = {name for name in available if fnmatch.fnmatch(f".{name}", f"*.{glob.strip()}")}
        if not matching:
            raise InputError(f"--lora-on {glob!r} matches no layer; they are like {available[0]}")
        chosen |= matching
    return sorted(chosen)


def merge(trunk: GPT2) -> None:
    """Add what LoRA has learned to the weights: plain layers remain, which compute the same."""
    for name, module in list(trunk.named_modules()):
        if isinstance(module, LoRALinear):
            trunk.set_submodule(name, module.merged())
