"""Interventions: cut what the last token sees, or put another text's vector in a text's place.

Both begin where nothing has changed: a text is read once, and the keys and values of its tokens are
kept (`Past`). Under causal attention a change at one token changes nothing before it, so that only
the tokens from there on are read again. The model has no flag for any of this.
"""

import contextlib
import dataclasses

import numpy as np
import torch
from tqdm import tqdm

from minigpt.data import AT_ONCE, Tokens
from minigpt.explain.bench import Bench
from minigpt.explain.states import every_layer, kept
from minigpt.fast.packed import packed
from minigpt.model import GPT2, Past, fused_attention

# B texts of the same length in a batch, T tokens, C channels, L blocks, S tokens read again


def seeing_last(w: int):
    """Return an attention function for a text's last token: of the text it sees the last w."""

    def attention(q, k, v, dropout=0.0):  # (B, H, 1, D), (B, H, S, D) x 2 -> (B, H, 1, D)
        return fused_attention(q, k[..., -w:, :], v[..., -w:, :], dropout)

    return attention


@contextlib.contextmanager
def attending(trunk: GPT2, blocks, attention):
    """Put another attention function in some blocks' place, for as long as this lasts."""
    before = {i: trunk.h[i].attn.attention for i in blocks}
    try:
        for i in blocks:
            trunk.h[i].attn.attention = attention
        yield
    finally:
        for i, own in before.items():
            trunk.h[i].attn.attention = own


@dataclasses.dataclass(frozen=True)
class Whole:
    """Texts of the same length, read without any change."""

    ids: torch.Tensor  # (B, T)
    layers: list[torch.Tensor]  # L + 1 times (B, T, C): what enters each block, and what comes out
    past: list[Past]  # L times T keys and values

    def before(self, token: int) -> list[Past]:
        """Return what all blocks remember of the tokens before this one."""
        return [Past(p.keys[..., :token, :], p.values[..., :token, :]) for p in self.past]


@torch.no_grad()
def read_whole(trunk: GPT2, ids) -> Whole:  # (B, T)
    past = [Past() for _ in trunk.h]
    return Whole(ids, list(every_layer(trunk, ids, past)), past)


@torch.no_grad()
def last_again(trunk: GPT2, whole: Whole):  # -> (B, C)
    """Read the last token of texts again, with such attention as the blocks now have."""
    return trunk(whole.ids[:, -1:], whole.before(whole.ids.size(1) - 1))[:, -1]


@torch.no_grad()
def patched(trunk: GPT2, whole: Whole, layer: int, token: int, vectors):  # (B, S, C) -> (B, C)
    """Put other vectors in place of those at S tokens from `token` on, as they enter block `layer`.

    Returns what then comes out of the trunk at the last token. Where `layer` is that of the output,
    the vectors stand for the output itself.
    """
    x, end = whole.layers[layer][:, token:].clone(), vectors.size(1)
    x[:, :end] = vectors
    if layer == len(trunk.h):
        return x[:, -1]
    past = whole.before(token)
    for i in range(layer, len(trunk.h)):
        x = trunk.h[i](x, past[i])
    return trunk.ln_f(x)[:, -1]


def of_equal_length(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return the rows of batches of texts that are equally long, about `tokens` tokens in each."""
    batches = []
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        size = max(1, tokens // int(length))
        batches += [rows[i : i + size] for i in range(0, len(rows), size)]
    return batches


def cuts(blocks: int, windows=(1, 2, 4, 8, 16)) -> dict[tuple, tuple]:
    """Return in which blocks the last token's attention is cut, and how much it still sees there.

    A token always sees itself: with a window of 1 it sees nothing else.
    """
    found = {("nothing", 0): ((), 1)}
    found |= {("from", b): (range(b, blocks), 1) for b in range(blocks)}
    found |= {("up_to", b): (range(b + 1), 1) for b in range(blocks)}
    found |= {("only", b): ((b,), 1) for b in range(blocks)}
    return found | {("window", w): (range(blocks), w) for w in windows}


def cut_vectors(bench: Bench, texts: Tokens) -> np.ndarray:  # -> (N, cuts, C)
    """Return the last token's vectors under all cuts: computed once, and kept."""
    ways = cuts(len(bench.trunk.h))
    batches = of_equal_length(texts.lengths, 4 * AT_ONCE[bench.device])

    def pieces():
        trunk = packed(bench.trunk, bench.layers)
        for rows in tqdm(batches, desc="knock-out", disable=bench.quiet or None, leave=False):
            whole, found = read_whole(trunk, texts.batch(rows)[0][0].to(bench.device)), []
            for blocks, w in ways.values():
                with attending(trunk, blocks, seeing_last(w)):
                    found.append(last_again(trunk, whole).cpu())
            yield torch.stack(found, 1).numpy()

    about = bench.about(texts) | {"cuts": [str(way) for way in ways]}
    shape = len(texts), len(ways), bench.trunk.config.n_embd
    array = kept(about, f"vectors of {len(texts)} texts, attention cut", shape, pieces)
    return array[np.argsort(np.concatenate(batches))]


def patched_vectors(
    bench: Bench, texts: Tokens, twins: np.ndarray, places: list[int]
) -> np.ndarray:  # (N,) -> (N, L + 1, places, C)
    """Return the last token's vectors after one vector, at each layer and place, was the twin's.

    `twins` has each text's twin; places count from the end of both, -1 is the last token.
    """
    batches = of_equal_length(texts.lengths, 4 * AT_ONCE[bench.device])
    layers, C = bench.layers, bench.trunk.config.n_embd

    def pieces():
        trunk = packed(bench.trunk, layers)
        ends = np.zeros((len(texts), layers, len(places), C), np.float32)
        for rows in batches:
            whole = read_whole(trunk, texts.batch(rows)[0][0].to(bench.device))
            for i, x in enumerate(whole.layers):
                ends[rows, i] = x[:, places].cpu().numpy()
        for rows in tqdm(batches, desc="patching", disable=bench.quiet or None, leave=False):
            whole = read_whole(trunk, texts.batch(rows)[0][0].to(bench.device))
            T, found = whole.ids.size(1), np.zeros((len(rows), layers, len(places), C), np.float32)
            for i in range(layers):
                for j, place in enumerate(places):
                    theirs = torch.from_numpy(ends[twins[rows], i, j, None]).to(bench.device)
                    found[:, i, j] = patched(trunk, whole, i, T + place, theirs).cpu().numpy()
            yield found

    about = bench.about(texts) | {"patched": places, "twins": twins.tolist()}
    shape = len(texts), layers, len(places), C
    array = kept(about, f"vectors of {len(texts)} texts, patched", shape, pieces)
    return array[np.argsort(np.concatenate(batches))]
