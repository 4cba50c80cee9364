"""Experiments on a frozen trunk: what can be read off its vectors, and what with no training at
all. Each function returns plain values, which plots.py draws.
"""

import dataclasses

import numpy as np
import torch
from tqdm import tqdm

from minigpt.data import Tokens
from minigpt.datasets.load import SPLITS
from minigpt.explain.bench import Bench
from minigpt.explain.findings import against_chance, percent, table
from minigpt.explain.states import FROM_END, FROM_START

# N texts, C channels, L blocks, V tokens of those that train has


def pooling(bench: Bench) -> dict:
    """Read the rating at one place of the last layer, then at another."""
    top = bench.layers - 1
    ends = {split: bench.tokenize(split, append_end=True) for split in SPLITS}
    padded = {split: padded_in_order(bench, bench.tokens[split]) for split in SPLITS}
    ways = {
        "last": ("last token", bench.at(top, -1)),
        "end": ("<|endoftext|> after it", {s: bench.pooled(t) for s, t in ends.items()}),
        "mean": ("mean of all", bench.at(top, "mean")),
        "max": ("maximum of all", bench.at(top, "max")),
        "first": ("first token", bench.at(top, 0)),
        "mistake": ("index -1 of a padded batch", {s: bench.pooled(t) for s, t in padded.items()}),
    }
    found = {
        key: {"title": title} | bench.accuracy(vectors) for key, (title, vectors) in ways.items()
    }
    last, first = found["last"], found["first"]
    said = against_chance(first, bench.chance)
    if rows := bench.alike(lambda ids: ids[0]):
        alike = bench.accuracy(ways["first"][1], among=rows)
        found["first"] |= {"alike": len(rows), "alike_accuracy": alike["accuracy"]}
        said += f" (twins that begin with the same token: {percent(alike['accuracy'])})"
    said += "." + by_kind(last)
    return {
        "question": "Which vector of the last layer knows the rating?",
        "headline": f"Read at the last token {percent(last['accuracy'], 0)} are right, at the "
        f"first {percent(first['accuracy'], 0)}",
        "finding": f"A plane on the last token's vector rates {percent(last['accuracy'])} of the "
        f"test texts rightly; on the first token's, which has seen nothing but itself, "
        f"{percent(first['accuracy'])}: {said}",
        "chance": bench.chance,
        "table": table("read at", {row["title"]: row for row in found.values()}),
        "ways": found,
    }


def by_kind(found: dict) -> str:
    """Return the accuracy by kind of text in words, from the best to the worst, where there are."""
    kinds = sorted(found.get("kinds", {}).items(), key=lambda item: -item[1]["accuracy"])
    parts = [f"{kind} {percent(one['accuracy'])} of {one['n']}" for kind, one in kinds]
    return f" By kind, at the last token: {', '.join(parts)}." if parts else ""


def padded_in_order(bench: Bench, texts: Tokens, size: int = 32) -> Tokens:
    """Return texts padded with the end token to the longest of their batch, padding as text.

    Read at their last token, they give what index -1 of a right-padded batch gives: a pad.
    """
    ids = []
    for start in range(0, len(texts), size):
        batch = texts.ids[start : start + size]
        longest = max(map(len, batch))
        end = bench.tokenizer.eot_token
        ids += [np.pad(text, (0, longest - len(text)), constant_values=end) for text in batch]
    return dataclasses.replace(texts, ids=ids)


def where(bench: Bench) -> dict:
    """Read the rating at each layer and position. Positions that few texts have are left out."""
    lengths = np.concatenate([bench.tokens[split].lengths for split in SPLITS])
    ends = [-n for n in range(1, FROM_END + 1) if (lengths >= n).mean() >= 0.5]
    starts = [n for n in range(FROM_START) if (lengths > n).mean() >= 0.5]
    cells = [(layer, place) for layer in range(bench.layers) for place in ends + starts]
    found = {}
    for layer, place in tqdm(cells, desc="where", disable=bench.quiet or None, leave=False):
        found[layer, place] = bench.accuracy(bench.at(layer, place))
    accuracy = {cell: figures["accuracy"] for cell, figures in found.items()}
    top = bench.layers - 1
    shown = [p for p in (-1, -2, -4, -8, -16, 7, 3, 1, 0) if p in ends + starts]
    return {
        "question": "At which layer, and at which position, can the rating be read?",
        "headline": f"At the last token: {percent(accuracy[0, -1], 0)} in the embeddings, "
        f"{percent(accuracy[top, -1], 0)} at the top",
        "finding": f"At the last token a plane reads {percent(accuracy[0, -1])} in the embeddings "
        f"({against_chance(found[0, -1], bench.chance)}), {percent(accuracy[1, -1])} "
        f"after one block and {percent(accuracy[top, -1])} at the top. At the first token it is "
        f"{percent(max(accuracy[layer, 0] for layer in range(bench.layers)))} at most.",
        "chance": bench.chance,
        "table": {
            "columns": ["layer", *(str(place) for place in shown)],
            "rows": [
                [str(layer), *(percent(accuracy[layer, place]) for place in shown)]
                for layer in range(bench.layers)
            ],
        },
        "ends": ends,
        "starts": starts,
        "from_end": [[accuracy[layer, p] for p in ends] for layer in range(bench.layers)],
        "from_start": [[accuracy[layer, p] for p in starts] for layer in range(bench.layers)],
        "last": [found[layer, -1] for layer in range(bench.layers)],
        "first": [found[layer, 0] for layer in range(bench.layers)],
    }


def controls(bench: Bench) -> dict:
    """Ask the same of what should know less: where would the rating come from, if not from there?

    Shuffled labels show that nothing leaks from train into the figures; they are judged by the true
    ones. A control task in the sense of Hewitt & Liang (2019), random labels that are consistent by
    word, has no counterpart here: which words there are is what a vector of a text is to tell.
    """
    top, random = bench.layers - 1, bench.with_random_weights()
    last = bench.at(top, -1)
    found = {
        "trained": ("last token, as pre-trained", bench.accuracy(last)),
        "random": ("last token, random weights", random.accuracy(pooled(random, "last"))),
        "random_mean": ("mean of all, random weights", random.accuracy(pooled(random, "mean"))),
        "shuffled": ("last token, shuffled labels", with_shuffled_labels(bench, last)),
        "last_word": ("which token is the last", counted(bench, slice(-1, None))),
        "first_word": ("which token is the first", counted(bench, slice(1))),
        "length": ("how long the text is", bench.accuracy(bench.lengths())),
        "bag": ("which tokens are in the text", counted(bench, slice(None))),
    }
    found = {key: {"title": title} | figures for key, (title, figures) in found.items()}
    gain = found["trained"]["accuracy"] - found["random"]["accuracy"]
    return {
        "question": "Is it pre-training that puts the rating there, or the probe?",
        "headline": f"The last token's vector gets {percent(found['trained']['accuracy'], 0)}; "
        f"with random weights {percent(found['random']['accuracy'], 0)}",
        "finding": f"Pre-training is worth {100 * gain:.1f} points: with random weights the last "
        f"token's vector gives {percent(found['random']['accuracy'])}, "
        f"{against_chance(found['random'], bench.chance)}. With shuffled labels the same probe "
        f"gets {percent(found['shuffled']['accuracy'])}. Counting words gets "
        f"{percent(found['bag']['accuracy'])}, but it looks at all of them.",
        "chance": bench.chance,
        "table": table("what is read", {row["title"]: row for row in found.values()}),
        "rows": found,
    } | ({"longer": bench.wordier()} if bench.paired else {})


def pooled(bench: Bench, pooling: str) -> dict[str, torch.Tensor]:  # (N, C) by split
    return {split: bench.pooled(texts, pooling) for split, texts in bench.tokens.items()}


def with_shuffled_labels(bench: Bench, vectors: dict, times: int = 10) -> dict:
    """Judge probes for labels in random order; the interval is from the least to the most."""
    generator = torch.Generator().manual_seed(bench.seed)
    found = []
    for _ in range(times):
        tokens = dict(bench.tokens)
        for split in ("train", "dev"):
            labels = tokens[split].labels
            labels = labels[torch.randperm(len(labels), generator=generator)]
            tokens[split] = dataclasses.replace(tokens[split], labels=labels)
        found.append(dataclasses.replace(bench, tokens=tokens).accuracy(vectors))
    figures = {"times": times}
    for value, interval in (("accuracy", "interval"), ("pairs", "pairs_interval")):
        if value in found[0]:
            values = [one[value] for one in found]
            figures |= {value: float(np.mean(values)), interval: (min(values), max(values))}
    return figures


def counted(bench: Bench, part: slice) -> dict:
    """Judge a probe that knows which tokens occur in a part of each text, without any model.

    There are more tokens in a vocabulary than texts to learn from. A plane with an L2 penalty never
    leaves the space that the texts of train span, so that its axes can stand for the tokens.
    """
    seen = np.unique(np.concatenate([ids[part] for ids in bench.tokens["train"].ids]))  # (V,)
    there = {}
    for split, texts in bench.tokens.items():
        rows = [np.isin(seen, ids[part]) for ids in texts.ids]
        there[split] = torch.from_numpy(np.stack(rows)).double()  # (N, V)
    axes = torch.linalg.svd(there["train"], full_matrices=False).Vh  # (N of train, V)
    vectors = {split: x @ axes.T for split, x in there.items()}
    return bench.accuracy(vectors, one_scale=True)
