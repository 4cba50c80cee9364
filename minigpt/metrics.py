"""How good the answers are. Knows nothing of models: class numbers and logits in, figures out."""

import math

import torch
import torch.nn.functional as F

from minigpt.data import Example, pairs_of

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
    """Return the mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur."""
    hits, both = confusion.diag(), confusion.sum(0) + confusion.sum(1)
    return (2 * hits / both)[both > 0].mean().item()


def pairs_in_order(logits, examples: list[Example], labels: tuple) -> tuple[float, int]:  # (N, 2)
    """Return (pairs in which the example of the second class scores higher, pairs).

    Equal scores count half, so that guessing, or always saying the same, gives one half.
    """
    scores = (logits[:, 1] - logits[:, 0]).tolist()
    ordered, pairs = 0.0, 0
    for i, j in pairs_of(examples):
        if examples[i].label == examples[j].label:
            continue
        if examples[i].label == labels[1]:
            i, j = j, i
        ordered += 1.0 if scores[j] > scores[i] else 0.5 if scores[j] == scores[i] else 0.0
        pairs += 1
    return ordered, pairs


def summarize(logits, examples: list[Example], labels: tuple[str, ...]) -> dict:  # (N, K)
    """Return the figures of a test set that are written to metrics.json.

    With two classes and pairs in the data, also the share of pairs in the right order; with kinds,
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
        "commonest": confusion.sum(1).max().item() / n,  # what always naming one class gets
        "macro_f1": macro_f1(confusion),
        "recall": (confusion.diag() / confusion.sum(1).clamp(min=1)).tolist(),  # (K,)
        "loss": F.cross_entropy(logits, truth).item(),
        "confusion": confusion.tolist(),
    }
    ordered, pairs = pairs_in_order(logits, examples, labels) if len(labels) == 2 else (0, 0)
    if pairs:
        figures["pairs"] = {"n": pairs, "in_order": ordered / pairs}
    if all(e.kind for e in examples):
        figures["kinds"] = {}
        for kind in sorted({e.kind for e in examples}):
            of_kind = [i for i, e in enumerate(examples) if e.kind == kind]
            accuracy = (predicted == truth)[of_kind].double().mean().item()
            figure = figures["kinds"][kind] = {"n": len(of_kind), "accuracy": accuracy}
            if pairs:
                same_kind = [examples[i] for i in of_kind]
                ordered, of_them = pairs_in_order(logits[of_kind], same_kind, labels)
                if of_them:  # the two of a pair may differ in kind
                    figure["pairs"] = ordered / of_them
    return figures
