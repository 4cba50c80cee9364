"""Hidden states of texts at every layer: computed, picked at places, and kept.

Layer l is what enters block l: layer 0 the embeddings; the last layer is what comes out of the
trunk, ln_f included, as in transformers' `hidden_states`.
"""

import dataclasses
import hashlib
import json

import numpy as np
import torch

from minigpt.classifier import pool
from minigpt.fast import store as cache
from minigpt.model import GPT2

# N texts, B of them in a batch, T tokens, C channels, L blocks, P places

FROM_END, FROM_START = 16, 8  # how many positions are looked at, from either end of a text
# As Python counts: -1 is the last token, 0 the first; and two that are of all tokens
PLACES = (*range(-1, -FROM_END - 1, -1), *range(FROM_START), "mean", "max")


@dataclasses.dataclass(frozen=True)
class States:
    """Hidden states of N texts, mapped from disk."""

    array: np.ndarray  # (N, L + 1, P, C), in the order in which they were computed
    order: np.ndarray  # (N,): where text i is in it
    lengths: np.ndarray  # (N,)

    def at(self, layer: int, place: int | str) -> torch.Tensor:  # -> (N, C)
        """Return the vectors at one layer and place; NaN for texts too short for it."""
        return torch.from_numpy(self.array[self.order, layer, PLACES.index(place)])


@torch.no_grad()
def every_layer(trunk: GPT2, ids, past=None):  # (B, T) -> L + 1 times (B, T, C)
    """Yield the hidden states of texts, layer by layer."""
    x = trunk(ids, end=0)
    for i, block in enumerate(trunk.h):
        yield x
        x = block(x, past[i] if past else None)
    yield trunk.ln_f(x)


def at_places(hidden, lengths):  # (B, T, C), (B,) -> (B, P, C)
    """Return the vectors at all places, NaN where a text is too short."""
    found = []
    for place in PLACES:
        if isinstance(place, str):
            found.append(pool(hidden, lengths, place))
        else:
            at = lengths + place if place < 0 else torch.full_like(lengths, place)  # (B,)
            there = (at >= 0) & (at < lengths)
            x = hidden[torch.arange(len(at)), at.clamp(0, hidden.size(1) - 1)]
            found.append(x.masked_fill(~there[:, None], torch.nan))
    return torch.stack(found, 1)


def kept(about: dict, title: str, shape: tuple, pieces) -> np.ndarray:
    """Return an array of float32 that depends on `about` alone: from the cache, or made now.

    `pieces` is called for an iterable of its pieces along the first axis.
    """
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    array = cache.load(key, shape, "<f4")
    if array is None:
        array = cache.store(key, shape, "<f4", about | {"title": title}, pieces())
    return np.asarray(array)
