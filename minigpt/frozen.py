"""The part that does not learn, computed once: each text's pooled vector under a frozen trunk.

An epoch over the vectors is a few matrix products, whatever the size of the trunk.
"""

import dataclasses

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from minigpt.batches import Tokens, token_batches
from minigpt.classifier import Classifier
from minigpt.fit import Recipe, fit

# N texts, C channels, K classes


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Pooled vectors and classes, in batches as those of `Tokens`: the loop sees no difference."""

    features: torch.Tensor  # (N, C)
    labels: torch.Tensor  # (N,)

    def __len__(self):
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self), dtype=np.int64)

    def batch(self, rows: np.ndarray):  # -> ((B, C),), (B,)
        rows = torch.from_numpy(rows)
        return (self.features[rows],), self.labels[rows]


@torch.no_grad()
def pooled_vectors(model: Classifier, texts: Tokens, quiet: bool = False) -> Vectors:
    """Run the trunk once over all texts, in batches with hardly any padding."""
    model.eval()
    device = model.score.weight.device
    features = torch.empty(len(texts), model.score.in_features)
    with tqdm(total=len(texts), unit=" texts", desc="frozen part", disable=quiet or None) as bar:
        for rows in token_batches(texts.lengths):
            (ids, lengths), _ = texts.batch(rows)
            features[torch.from_numpy(rows)] = model.pooled(
                ids.to(device), lengths.to(device)
            ).cpu()
            bar.update(len(rows))
    return Vectors(features, texts.labels)


def conditioner(features: torch.Tensor) -> torch.Tensor:  # (N, C) -> (C, C)
    """Return the matrix A that makes vectors x easy to learn from: A x instead of x.

    A few channels of GPT-2's hidden states are enormous, and all vectors point much the same way:
    a gradient sees little else. So A divides each channel by its standard deviation, and then
    shrinks the one direction that all vectors share, their mean, to length 1, where it serves as
    the bias that `score` does not have. A is invertible and has no offset: whatever is learned as
    V on A x is the plain matrix V A on x.
    """
    spread = features.double().std(0).clamp(min=1e-6)
    mean = (features.double() / spread).mean(0)
    length = mean.norm().clamp(min=1.0)
    shared = mean / mean.norm().clamp(min=1e-12)
    shrink = torch.eye(len(spread), dtype=torch.float64) - (1 - 1 / length) * shared.outer(shared)
    return shrink / spread


def fit_head(model: Classifier, train: Vectors, dev: Vectors, recipe: Recipe, quiet=False):
    """Fit `score` on pooled vectors; return what `fit` returns."""
    device = model.score.weight.device
    A = conditioner(train.features)
    train, dev = (
        Vectors((part.features.double() @ A.T).float(), part.labels) for part in (train, dev)
    )
    head = nn.Linear(*reversed(model.score.weight.shape), bias=False, device=device)
    nn.init.zeros_(head.weight)  # the problem is convex: any start leads to the same place
    found = fit(head, train, dev, recipe, quiet)
    with torch.no_grad():
        model.score.weight.copy_(head.weight.cpu().double() @ A)  # some devices have no float64
    return found
