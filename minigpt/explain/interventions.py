"""What interventions start from: texts that were read once, without any change.

Under causal attention, a change at one token changes nothing before it. So the keys and values of
the tokens before it are stored (`Past`), and only the tokens from there on are computed again. The
model has no flag for any of this.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from minigpt.data import TOKENS_AT_ONCE, Tokens
from minigpt.explain.hidden_states import every_layer
from minigpt.explain.study import Study
from minigpt.model import GPT2, Past, attention

# B texts of the same length in a batch, T tokens, C channels, L blocks, H heads, D = C // H


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


@contextlib.contextmanager
def attention_replaced(trunk: GPT2, functions: dict):
    """Put other attention functions into blocks, {index: function}, for as long as this lasts."""
    before = {i: trunk.h[i].attn.attention for i in functions}
    try:
        for i, function in functions.items():
            trunk.h[i].attn.attention = function
        yield
    finally:
        for i, own in before.items():
            trunk.h[i].attn.attention = own


@torch.no_grad()
def read_last_token(trunk: GPT2, texts: Unchanged):  # -> (B, C)
    """Read the last token of texts again, with the attention that the blocks now have."""
    return trunk(texts.ids[:, -1:], texts.before(texts.ids.size(1) - 1))[:, -1]


def heads_at_last_token(trunk: GPT2, texts: Unchanged):  # -> (B, L, H, D), (B, L, H, T)
    """Return what each head of each block adds at the last token, before the block's output matrix,
    and the attention weights there.
    """
    outputs, weights = [], []

    def recorded(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, T, D) x 2 -> (B, H, 1, D)
        identity = torch.eye(k.size(-2), device=k.device)  # with it as values, the result is
        weights.append(attention(q, k, identity)[:, :, 0])  # the weights themselves: (B, H, T)
        outputs.append(attention(q, k, v)[:, :, 0])
        return outputs[-1][:, :, None]

    with attention_replaced(trunk, dict.fromkeys(range(len(trunk.h)), recorded)):
        read_last_token(trunk, texts)
    return torch.stack(outputs, 1), torch.stack(weights, 1)


def heads_of(study: Study, texts: Tokens) -> torch.Tensor:  # -> (N, L, H, D)
    """Return what each head of each block adds at the last token of texts."""

    def read(trunk, unchanged, batch):
        return heads_at_last_token(trunk, unchanged)[0]

    config = study.trunk.config
    shape = config.n_layer, config.n_head, config.n_embd // config.n_head
    return reread(study, texts, "heads", {"heads": "last"}, shape, read)


def reread(study: Study, texts: Tokens, title: str, settings: dict, shape: tuple, read: Callable):
    """Return `read(trunk, unchanged, batch)` of texts, in their order, (N, *shape): computed once,
    in batches of texts of equal length.
    """

    def read_batch(trunk, batch):
        ids = texts.batch(batch)[0][0].to(study.device)
        return read(trunk, read_unchanged(trunk, ids), batch).cpu().numpy()

    batches = batches_of_equal_length(texts.lengths, 4 * TOKENS_AT_ONCE[study.device])
    array, order = study.computed_once(texts, title, settings, shape, batches, read_batch)
    return torch.from_numpy(array[order])


def batches_of_equal_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return batches of texts, by index, of the same length and about `tokens` tokens in each."""
    batches = []
    for length in np.unique(lengths):
        texts = np.flatnonzero(lengths == length)
        size = max(1, tokens // int(length))
        batches += [texts[i : i + size] for i in range(0, len(texts), size)]
    return batches
