"""Single texts, token by token: the prediction at each layer, and where attention goes."""

import codecs
import dataclasses
from collections import defaultdict
from itertools import zip_longest

import tiktoken
import torch

from minigpt.data import Example, pairs_of, tokenize
from minigpt.explain.hidden_states import every_layer
from minigpt.explain.study import Study
from minigpt.fast import packed
from minigpt.model import GPT2, attention
from minigpt.tokenizer import LONGEST

# T tokens of one text, C channels, H heads, D = C // H

TEXTS = 24  # of the test split: whole pairs, so that there may be one more
LONG = 128  # tokens of a text that are shown: attention has a number for each two of them
FILM_REVIEWS = ("mirrored", "sst2")  # the data that OUR_OWN are like
OWN_KIND = "our own"  # no text of a data set
OUR_OWN = (  # (negative, positive): pairs in which the prediction should change, or should not
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


def word_by_word(
    study: Study, probes: torch.Tensor, head: torch.Tensor, first: list[int]
) -> list[dict]:
    """Read some texts with a probe for each layer (L + 1, K, C), and a head (K, C) for the whole.

    They are the user's; the texts `first` of test; some of test, by kind; and our own.
    """
    test = study.examples("test")
    texts = [Example(text, "") for text in study.extra_texts] + [test[i] for i in first]
    texts += [e for e in some_of_each_kind(test, TEXTS) if all(e is not test[i] for i in first)]
    if study.dataset.name in FILM_REVIEWS:
        for i, pair in enumerate(OUR_OWN):
            for text, label in zip(pair, study.labels, strict=True):
                texts.append(Example(text, label, pair=f"own {i}", kind=OWN_KIND))
    trunk, weights = recording(study.trunk)

    def read(example: Example) -> dict:
        return read_text(study, trunk, weights, probes, head, example)

    return list(study.each(read, texts, "reading"))


def some_of_each_kind(examples: list[Example], most: int) -> list[Example]:
    """Return about `most` examples, as many of each kind as possible; whole pairs, side by side."""
    pairs = {first: [first, second] for first, second in pairs_of(examples)}
    seconds = {second for _, second in pairs.values()}
    kinds = defaultdict(list)
    for i, example in enumerate(examples):
        if i not in seconds:
            kinds[example.kind].append(pairs.get(i, [i]))
    chosen = []
    for turn in zip_longest(*kinds.values()):  # one of each kind, then another of each
        for group in filter(None, turn):
            if sum(map(len, chosen)) < most:
                chosen.append(group)
    chosen.sort(key=lambda group: examples[group[0]].kind)
    return [examples[i] for group in chosen for i in group]


def recording(trunk: GPT2) -> tuple[GPT2, list]:
    """Return a copy of a trunk that records its attention, and the list that blocks append to."""
    trunk, weights = packed(trunk, len(trunk.h) + 1), []

    def recorded(q, k, v, dropout=0.0):  # (1, H, T, D) x 3 -> (1, H, T, D)
        identity = torch.eye(k.size(-2), device=k.device)  # with it as values, the result is
        shares = attention(q, k, identity)  # the weights themselves: (1, H, T, T)
        weights.append(shares[0].cpu())  # (H, T, T)
        return shares @ v

    for block in trunk.h:
        block.attn.attention = recorded
    return trunk, weights


@torch.no_grad()
def read_text(
    study: Study, trunk: GPT2, weights: list, probes: list, head: torch.Tensor, example: Example
) -> dict:
    """Return what results.json has of one text; three digits of a number are enough to look at.

    `attention` is the mean over heads; `resting` counts those that rest on the first token: they
    give it more than half of their weight.
    """
    room = min(LONG, study.trunk.config.n_positions)
    labelled = dataclasses.replace(example, label=study.labels[0])  # the user's have no label
    texts = tokenize([labelled], study.labels, study.tokenizer, room)
    (ids,) = texts.ids
    weights.clear()
    layers = every_layer(trunk, torch.from_numpy(ids)[None].to(study.device))
    hidden = [x[0].cpu() for x in layers]  # (T, C) each
    logits = [x @ probe.T for probe, x in zip(probes, hidden, strict=True)]  # (T, 2) each
    means = [w.mean(0) for w in weights]  # (T, T) each
    return {
        "text": example.text[: LONGEST * room],
        "label": example.label or None,
        "pair": example.pair,
        "kind": example.kind,
        "truncated": texts.truncated > 0,
        "tokens": spell(study.tokenizer, ids),
        "positive": [rounded(row.softmax(1)[:, 1]) for row in logits],
        "whole": round((head @ hidden[-1][-1]).softmax(0)[1].item(), 3),
        "attention": [[rounded(row[: t + 1]) for t, row in enumerate(w)] for w in means],
        "resting": [(w[:, :, 0] > 0.5).sum(0).tolist() for w in weights],
    }


def rounded(numbers) -> list[float]:
    return [round(number, 3) for number in numbers.tolist()]


def spell(tokenizer: tiktoken.Encoding, ids) -> list[str]:
    """Return the tokens as texts which together are the whole text.

    A character whose bytes are in several tokens is part of the last of them; the others are empty.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces = [tokenizer.decode_single_token_bytes(int(i)) for i in ids]
    return [decoder.decode(piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)]
