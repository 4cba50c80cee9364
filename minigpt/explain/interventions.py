"""What interventions start from: texts that were read once, without any change.

Under causal attention, a change at one token changes nothing before it. So the keys and values of
the tokens before it are stored (`Past`), and only the tokens from there on are computed again. The
model has no flag for any of this.
"""

import dataclasses

import numpy as np
import torch

from minigpt.explain.hidden_states import every_layer
from minigpt.model import GPT2, Past

# B texts of the same length in a batch, T tokens, C channels, L blocks


@dataclasses.dataclass(frozen=True)
class Unchanged:
    """Texts of the same length, as the trunk reads them without an intervention."""

    ids: torch.Tensor  # (B, T)
    layers: list[torch.Tensor]  # L + 1 times (B, T, C): what enters each block; and the output
    past: list[Past]  # L times T keys and values

    def before(self, token: int) -> list[Past]:
        """Return the keys and values of the tokens before this one, in all blocks."""
        return [Past(p.keys[..., :token, :], p.values[..., :token, :]) for p in self.past]


@torch.no_grad()
def read_unchanged(trunk: GPT2, ids) -> Unchanged:  # (B, T)
    past = [Past() for _ in trunk.h]
    return Unchanged(ids, list(every_layer(trunk, ids, past)), past)


def batches_of_equal_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return batches of texts, by index, of the same length and about `tokens` tokens in each."""
    batches = []
    for length in np.unique(lengths):
        texts = np.flatnonzero(lengths == length)
        size = max(1, tokens // int(length))
        batches += [texts[i : i + size] for i in range(0, len(texts), size)]
    return batches
