"""Prefix tuning: learned keys and values in every block (Li & Liang 2021)."""

import functools

import torch
from torch import nn

from minigpt.model import GPT2, Past
from minigpt.peft.prompt import COMMON

# B texts in a batch, T tokens, C channels, L blocks, H heads, D = C // H, N keys and values


class Prefix(nn.Module):
    """N learned keys and values in every block, to which all tokens attend.

    They are a past that no token has. They start as those of N random common tokens, which learns
    better than random numbers (section 7.4 of the paper), and are 2 L N C trainable parameters,
    learned directly and not through a network (P-Tuning v2, Liu et al. 2022). The context has room
    for N tokens less, since positions count on from there.
    """

    def __init__(self, trunk: GPT2, length: int):
        super().__init__()
        past = [Past() for _ in trunk.h]
        with torch.no_grad():
            trunk(torch.randint(min(COMMON, len(trunk.wte.weight)), (1, length)), past)
        self.keys = nn.Parameter(torch.cat([block.keys for block in past]))  # (L, H, N, D)
        self.values = nn.Parameter(torch.cat([block.values for block in past]))


def attend_to_prefix(prefix: Prefix, block: int, _, inputs):
    """Give the attention of a block its learned past: a hook before its forward."""
    x = inputs[0]
    keys, values = (t[block].expand(len(x), -1, -1, -1) for t in (prefix.keys, prefix.values))
    return x, Past(keys, values)


def count_on(length: int, _, inputs):
    """Begin positions behind the prefix: a hook before the forward of `wpe`."""
    return (inputs[0] + length,)


def add_prefix(trunk: GPT2, length: int) -> None:
    """Give every block N learned keys and values."""
    trunk.prefix = Prefix(trunk, length)
    for i, block in enumerate(trunk.h):  # partial, so that a copy of the trunk has its own prefix
        hook = functools.partial(attend_to_prefix, trunk.prefix, i)
        block.attn.register_forward_pre_hook(hook)
    trunk.wpe.register_forward_pre_hook(functools.partial(count_on, length))
