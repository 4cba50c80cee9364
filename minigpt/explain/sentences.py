"""Single texts, read token by token: the verdict at each layer, and where attention goes."""

import codecs
import dataclasses
import math
from collections import defaultdict
from itertools import zip_longest

import tiktoken
import torch
from tqdm import tqdm

from minigpt.data import tokenize
from minigpt.datasets.formats import Example
from minigpt.explain.bench import Bench
from minigpt.explain.probes import Probe
from minigpt.explain.states import every_layer
from minigpt.fast.packed import packed
from minigpt.model import GPT2
from minigpt.tokenizer import LONGEST

# T tokens of one text, C channels, H heads, D = C // H

SHOWN = 24  # texts of the test split: whole pairs, so there may be one more
LONG = 128  # tokens of a text that are shown: attention has a number for each two of them
RATINGS = ("mirrored", "sst2")  # the data that OUR_OWN are like
OUR_OWN = (  # (negative, positive), in which the verdict has to turn, or must not
    (
        "The trailer looked wonderful, but the film itself is a bore.",
        "The trailer looked awful, but the film itself is a joy.",
    ),
    (
        "I expected to love every minute, and I walked out.",
        "I expected to hate every minute, and I stayed for the credits with tears in my eyes.",
    ),
    (
        "Nobody could call this funny, clever or moving.",
        "Nobody could call this dull, stupid or cold.",
    ),
)


def sentences(bench: Bench, probes: list[Probe]) -> list[dict]:
    """Return the readings of some texts: the reader's, our own, and those of the test split."""
    texts = [Example(text, "") for text in bench.texts]
    if bench.dataset.name in RATINGS:
        for i, twins in enumerate(OUR_OWN):
            for text, label in zip(twins, bench.labels, strict=True):
                texts.append(Example(text, label, pair=f"own {i}", kind="our own"))
    texts += some_of_each_kind(bench.examples("test"), SHOWN)
    trunk, weights = recording(bench.trunk)
    found = []
    for example in tqdm(texts, desc="reading", disable=bench.quiet or None, leave=False):
        found.append(read_out(bench, trunk, weights, probes, example))
    return found


def some_of_each_kind(examples: list[Example], most: int) -> list[Example]:
    """Return about `most` examples, as many of each kind as can be; twins beside each other."""
    pairs = defaultdict(list)
    for i, example in enumerate(examples):
        pairs[example.pair or i].append(example)
    kinds = defaultdict(list)
    for twins in pairs.values():
        kinds[twins[0].kind].append(twins)
    chosen = []
    for turn in zip_longest(*kinds.values()):  # one of each kind, then another of each
        for twins in filter(None, turn):
            if sum(map(len, chosen)) < most:
                chosen.append(twins)
    return [example for twins in sorted(chosen, key=lambda t: t[0].kind) for example in twins]


def recording(trunk: GPT2) -> tuple[GPT2, list]:
    """Return a copy of a trunk that notes its attention, and the list that each block adds to."""
    trunk, weights = packed(trunk, len(trunk.h) + 1), []

    def attention(q, k, v, dropout=0.0):  # (1, H, T, D) x 3 -> (1, H, T, D), as in model.py
        T = q.size(-2)
        sees = torch.ones(T, T, dtype=torch.bool, device=q.device).tril()
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (1, H, T, T)
        shares = scores.masked_fill(~sees, -math.inf).softmax(-1)
        weights.append(shares[0].mean(0).cpu())  # (T, T): the mean over heads
        return shares @ v

    for block in trunk.h:
        block.attn.attention = attention
    return trunk, weights


@torch.no_grad()
def read_out(bench: Bench, trunk: GPT2, weights: list, probes: list[Probe], example: Example):
    """Return what results.json holds of one text; numbers have three digits, enough to look at."""
    room = min(LONG, bench.trunk.config.n_positions)
    labelled = dataclasses.replace(example, label=bench.labels[0])  # the reader's have no label
    texts = tokenize([labelled], bench.labels, bench.tokenizer, room)
    (ids,) = texts.ids
    weights.clear()
    layers = every_layer(trunk, torch.from_numpy(ids)[None].to(bench.device))
    odds = [probe.logits(x[0].cpu())[:, 1] for probe, x in zip(probes, layers, strict=True)]
    return {
        "text": example.text[: LONGEST * room],
        "label": example.label or None,
        "pair": example.pair,
        "kind": example.kind,
        "truncated": texts.truncated > 0,
        "tokens": spell(bench.tokenizer, ids),
        "positive": [rounded(row.sigmoid()) for row in odds],
        "attention": [[rounded(row[: t + 1]) for t, row in enumerate(w)] for w in weights],
    }


def rounded(numbers) -> list[float]:
    return [round(number, 3) for number in numbers.tolist()]


def spell(tokenizer: tiktoken.Encoding, ids) -> list[str]:
    """Return the tokens as texts which together are the whole text.

    A character whose bytes are in several tokens stands at the last of them; the others are empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces = [tokenizer.decode_single_token_bytes(int(i)) for i in ids]
    return [decoder.decode(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
