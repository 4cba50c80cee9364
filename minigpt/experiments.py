"""Why the last token: experiments on a frozen trunk. Each returns plain values, plots.py draws them.

All that is fitted here are linear probes; see explain.py for the command.
"""

import dataclasses

import numpy as np

from minigpt.batches import Tokens
from minigpt.bench import Bench
from minigpt.data import SPLITS


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def row_of(title: str, found: dict) -> list[str]:
    """Return a row of a table: a title, and what `judge` found."""
    low, high = found["interval"]
    cells = [title, percent(found["accuracy"]), f"{100 * low:.1f} to {100 * high:.1f}"]
    return cells + ([percent(found["pairs"])] if "pairs" in found else [])


def table(first: str, rows: dict[str, dict]) -> dict:
    """Return a table of what `judge` found: a row for each title."""
    columns = [first, "accuracy", "95 % interval"]
    if all("pairs" in found for found in rows.values()):
        columns.append("pairs in order")
    return {"columns": columns, "rows": [row_of(*row) for row in rows.items()]}


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
    low, high = first["interval"]
    blind = "no better than chance" if low <= bench.chance <= high else "not quite chance"
    return {
        "question": "Which vector of the last layer knows the rating?",
        "headline": f"The last token's vector is right about {last['accuracy']:.0%} of the texts, "
        f"the first's about {first['accuracy']:.0%}",
        "finding": f"A plane on the last token's vector rates {percent(last['accuracy'])} of the "
        f"test texts rightly; on the first token's, which has seen nothing but itself, "
        f"{percent(first['accuracy'])}: {blind}.",
        "chance": bench.chance,
        "table": table("read at", {row["title"]: row for row in found.values()}),
        "ways": found,
    }


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
