"""Hidden states of texts at every layer and at some positions.

Layer 0 is the embeddings, and layer n what comes out of block n, of blocks 1 to L. The last layer
is the output of the trunk, after ln_f, as in the `hidden_states` of transformers. (In code, `h[n]`
is the block that layer n enters: block n + 1.)
"""

import dataclasses

import numpy as np
import torch

from minigpt.classifier import pool
from minigpt.model import GPT2

# N texts, B of them in a batch, T tokens, C channels, L blocks, P positions

FROM_END, FROM_START = 16, 8  # the number of positions on either end of a text
# As Python counts: -1 is the last token, 0 the first; and two summaries of all tokens
POSITIONS = (*range(-1, -FROM_END - 1, -1), *range(FROM_START), "mean", "max")


@dataclasses.dataclass(frozen=True)
class HiddenStates:
    """Hidden states of N texts, mapped from disk."""

    array: np.ndarray  # (N, L + 1, P, C), in the order in which they were computed
    order: np.ndarray  # (N,): where text i is in the array

    def at(self, layer: int, position: int | str, texts=slice(None)) -> torch.Tensor:  # -> (N, C)
        """Return the vectors at one layer and position; NaN for texts too short to have it."""
        return torch.from_numpy(self.array[self.order[texts], layer, POSITIONS.index(position)])


@torch.no_grad()
def every_layer(trunk: GPT2, ids, past=None):  # (B, T) -> L + 1 times (B, T, C)
    """Yield the hidden states of texts, layer by layer."""
    x = trunk.embed(ids)
    for i, block in enumerate(trunk.h):
        yield x
        x = block(x, past[i] if past else None)
    yield trunk.ln_f(x)


def at_positions(hidden, lengths):  # (B, T, C), (B,) -> (B, P, C)
    """Return the vectors at all POSITIONS, NaN where a text is too short."""
    vectors = []
    for position in POSITIONS:
        if isinstance(position, str):
            vectors.append(pool(hidden, lengths, position))
        else:
            t = lengths + position if position < 0 else torch.full_like(lengths, position)  # (B,)
            exists = (t >= 0) & (t < lengths)
            x = hidden[torch.arange(len(t)), t.clamp(0, hidden.size(1) - 1)]
            vectors.append(x.masked_fill(~exists[:, None], torch.nan))
    return torch.stack(vectors, 1)
