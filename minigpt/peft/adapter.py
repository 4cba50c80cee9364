"""Adapters: small networks between the frozen layers (Houlsby et al. 2019)."""

import torch.nn.functional as F
from torch import nn

from minigpt.model import GPT2, Linear

# B texts in a batch, T tokens, C channels, r width of the bottleneck


class Adapter(nn.Module):
    """y + GELU(y W₁ + b₁) W₂ + b₂, through a bottleneck of r channels.

    One follows attention and another the MLP, before their output is added to the residual stream.
    W₂ and b₂ are zero at the start, so that nothing changes. Each has 2 C r + r + C trainable
    parameters.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.down, self.up = Linear(channels, width), Linear(width, channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.down.weight, std=0.01)

    def forward(self, y):  # (B, T, C) -> (B, T, C)
        return y + self.up(F.gelu(self.down(y), approximate="tanh"))


def adapt(module: nn.Module, _, output):
    """Pass the output of a module through its adapter: a forward hook."""
    return module.adapter(output)


def add_adapters(trunk: GPT2, width: int, last: int) -> None:
    """Hang adapters on the attention and the MLP of the last blocks."""
    for block in trunk.h[len(trunk.h) - last :]:
        for module in (block.attn, block.mlp):
            module.adapter = Adapter(trunk.config.n_embd, width)
            module.register_forward_hook(adapt)
