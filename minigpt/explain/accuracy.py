"""Accuracies with bootstrap intervals over pairs of texts; and how they are put into words.

Knows nothing of models.
"""

import functools

import numpy as np
import torch

from minigpt.data import Example, pairs_of
from minigpt.metrics import pairs_in_order, summarize

# N texts, K classes, G groups of texts that are drawn together: pairs, or single texts

DRAWS = 2000  # of the bootstrap


def accuracy_of(logits, examples: list[Example], labels: tuple[str, ...]) -> dict:
    """Return the accuracy of logits (N, K), with its interval.

    With pairs in the data, also the share of pairs that are in order, with its interval; and both
    for each kind of text, if there are kinds.
    """
    summary = summarize(logits, examples, labels)
    truth = torch.tensor([labels.index(e.label) for e in examples])
    correct = (logits.argmax(1) == truth).numpy()
    figures = {
        "accuracy": summary["accuracy"],
        "interval": bootstrap_interval(correct, groups_of(examples)),
    }
    if "pairs" in summary:
        figures["pairs"] = summary["pairs"]["in_order"]
        figures["pairs_interval"] = pairs_interval(logits, examples, labels)
    if "kinds" in summary:
        figures["kinds"] = summary["kinds"]
    return figures


def groups_of(examples: list[Example]) -> np.ndarray:  # -> (N,)
    """Return the number of each text's group: the two of a pair together, other texts alone."""
    first = np.arange(len(examples))
    for a, b in pairs_of(examples):
        first[b] = a
    return np.unique(first, return_inverse=True)[1]


def bootstrap_interval(correct, groups) -> tuple[float, float]:  # (N,), (N,)
    """Return the 95 % interval of the share that is correct (Efron 1979), drawing whole groups.

    The two texts of a pair are alike: an interval from drawing single texts would be too narrow.
    """
    G = int(groups.max()) + 1
    totals = np.stack([np.bincount(groups, correct, G), np.bincount(groups, minlength=G)])  # (2, G)
    hits, texts = totals @ draws(G).T
    low, high = np.quantile(hits / texts, (0.025, 0.975))
    return float(low), float(high)


@functools.lru_cache(4)
def draws(groups: int) -> np.ndarray:  # -> (DRAWS, G)
    """Return how often each group is drawn in each draw."""
    random = np.random.default_rng(0)
    return random.multinomial(groups, np.full(groups, 1 / groups), DRAWS).astype(float)


def difference(a, b, groups) -> dict:  # (N,) x 3
    """Return how many points more `a` has than `b`, of the same texts, with its 95 % interval.

    `a` and `b` say which texts are correct: 0 or 1, or a share of several probes. It is a paired
    test that draws whole groups; McNemar's would take the two texts of a pair as independent.
    """
    gain = np.asarray(a, float) - np.asarray(b, float)
    points, (low, high) = float(gain.mean()), bootstrap_interval(gain, groups)
    words = f"{100 * abs(points):.1f} points {'less' if points < 0 else 'more'}"
    unclear = ": not distinguishable" if low <= 0 <= high else ""
    words += f" (95 % interval {limits(low, high, '+')}{unclear})"
    return {"points": points, "interval": (low, high), "words": words}


def range_of(accuracies: list[dict], what: str) -> dict:
    """Return the mean of accuracies, and the lowest and the highest: a range, not an interval."""
    figures = {"times": len(accuracies), "range_of": f"range of {len(accuracies)} {what}"}
    for value in ("accuracy", "pairs"):
        if value in accuracies[0]:
            values = [accuracy[value] for accuracy in accuracies]
            figures |= {value: float(np.mean(values)), f"{value}_range": (min(values), max(values))}
    return figures


def pairs_interval(logits, examples, labels) -> tuple[float, float]:  # (N, 2)
    """Return the 95 % interval of the share of pairs that are in order."""
    single = (
        pairs_in_order(logits[pair], [examples[i] for i in pair], labels)
        for pair in pairs_of(examples)
    )
    in_order = np.array([ordered for ordered, pairs in single if pairs])
    return bootstrap_interval(in_order, np.arange(len(in_order)))


# --- in words ---


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def versus_chance(figures: dict, chance: float) -> str:
    """Say whether chance is within the interval of an accuracy."""
    low, high = figures["interval"]
    if low <= chance <= high:
        return "not distinguishable from chance"
    return "above chance" if low > chance else "below chance"


def limits(low: float, high: float, sign="") -> str:
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def accuracy_table(first_column: str, figures_by_title: dict[str, dict], minus="") -> dict:
    """Return a table with a row for each title, from what `accuracy_of` or `range_of` returns.

    `minus` names what an accuracy is compared with in a row's "against", if there is one.
    """
    columns = [first_column, "accuracy", "95 % interval"]
    paired = any("pairs" in figures for figures in figures_by_title.values())
    rows = []
    for title, figures in figures_by_title.items():
        interval = limits(*(figures.get("interval") or figures["accuracy_range"]))
        interval += f", {figures['range_of']}" if "range_of" in figures else ""
        rows.append([title, percent(figures["accuracy"]), interval])
        if minus:
            gain = figures.get("against")
            within = f" ({limits(*gain['interval'], '+')})" if gain else ""
            rows[-1].append(f"{100 * gain['points']:+.1f}{within}" if gain else "–")
        if paired:
            rows[-1].append(percent(figures["pairs"]) if "pairs" in figures else "–")
    columns += [f"minus {minus} (95 % interval)"] * bool(minus) + ["pairs in order"] * paired
    return {"columns": columns, "rows": rows}
