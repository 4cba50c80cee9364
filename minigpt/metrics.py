"""How good the answers are. Knows nothing of models: class numbers and logits in, figures out."""

import math
from collections import defaultdict

import torch
import torch.nn.functional as F

from minigpt.datasets.formats import Example

# N texts, K classes


def wilson_interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927): honest for small n and near 0 or 1."""
    share, zz = right / n, z * z / n
    middle = (share + zz / 2) / (1 + zz)
    half = z * math.sqrt(share * (1 - share) / n + zz / n / 4) / (1 + zz)
    return max(0.0, middle - half), min(1.0, middle + half)


def confusion_matrix(predicted, labels, classes: int) -> torch.Tensor:  # (N,) x 2 -> (K, K)
    """Count texts by their true class (row) and the predicted one (column)."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def macro_f1(confusion) -> float:  # (K, K)
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN), 0 for a class never met."""
    hits, both = confusion.diag(), confusion.sum(0) + confusion.sum(1)
    return (2 * hits / both.clamp(min=1)).mean().item()


def pairs_in_order(logits, examples: list[Example], labels: tuple) -> tuple[float, int]:  # (N, 2)
    """Return (pairs whose second-class twin scores higher, pairs); equal scores are half in order.

    Whoever knows nothing gets one half, by guessing or by always saying the same.
    """
    scores = defaultdict(dict)
    for score, example in zip((logits[:, 1] - logits[:, 0]).tolist(), examples, strict=True):
        if example.pair:
            scores[example.pair][example.label] = score
    twins = [pair for pair in scores.values() if len(pair) == 2]
    ahead = (pair[labels[1]] - pair[labels[0]] for pair in twins)
    return sum(1.0 if lead > 0 else 0.5 if lead == 0 else 0.0 for lead in ahead), len(twins)


def summarize(logits, examples: list[Example], labels: tuple[str, ...]) -> dict:  # (N, K)
    """Return the figures of a test set as metrics.json has them.

    With two classes and twins in the data, also the share of pairs in the right order; with kinds,
    the same by kind.
    """
    truth = torch.tensor([labels.index(e.label) for e in examples])
    predicted = logits.argmax(1)
    right, n = int((predicted == truth).sum()), len(examples)
    confusion = confusion_matrix(predicted, truth, len(labels))
    figures = {
        "n": n,
        "accuracy": right / n,
        "interval": wilson_interval(right, n),
        "macro_f1": macro_f1(confusion),
        "loss": F.cross_entropy(logits, truth).item(),
        "confusion": confusion.tolist(),
    }
    ordered, pairs = pairs_in_order(logits, examples, labels) if len(labels) == 2 else (0, 0)
    paired = pairs > 0
    if paired:
        figures["pairs"] = {"n": pairs, "in_order": ordered / pairs}
    if all(e.kind for e in examples):
        figures["kinds"] = {}
        for kind in sorted({e.kind for e in examples}):
            rows = [i for i, e in enumerate(examples) if e.kind == kind]
            figure = {"n": len(rows), "accuracy": (predicted == truth)[rows].double().mean().item()}
            if paired:
                ordered, pairs = pairs_in_order(logits[rows], [examples[i] for i in rows], labels)
                figure["pairs"] = ordered / max(1, pairs)
            figures["kinds"][kind] = figure
    return figures
