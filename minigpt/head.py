"""The head on a frozen trunk: a matrix on pooled vectors, learned where learning is easy.

Also known as a linear probe. Knows nothing of where the vectors come from.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minigpt.classifier import Classifier
from minigpt.fast.frozen import Kept
from minigpt.fit import Recipe, fit
from minigpt.parallel.group import ALONE, Group
from minigpt.runs.journal import Journal

# B texts in a batch, C channels, K classes

HEAD = Recipe(  # what suits a head on pooled vectors: the defaults of `train.py --freeze-trunk`
    epochs=20,
    batch_size=32,
    lr=4e-3,
    weight_decay=1.0,
    warmup=0.1,
    clip=1.0,
    accumulate=1,
    seed=0,
)


def conditioner(vectors: Kept) -> torch.Tensor:  # -> (C, C)
    """Return the matrix A that makes vectors x easy to learn from: A x instead of x.

    A few channels of GPT-2's hidden states are enormous, and all vectors point much the same way:
    a gradient sees little else. So A divides each channel by its standard deviation, and then
    shrinks the one direction that all vectors share, their mean, to length 1, where it serves as
    the bias that `score` does not have. A is invertible and has no offset: whatever is learned as
    V on A x is the plain matrix V A on x.
    """
    total, squares = 0.0, 0.0
    for texts in np.array_split(np.arange(len(vectors)), math.ceil(len(vectors) / 4096)):
        x = vectors.batch(texts)[0][0][:, 0].double()  # (up to 4096, C)
        total, squares = total + x.sum(0), squares + x.square().sum(0)
    mean, size = total / len(vectors), (squares / len(vectors)).clamp(min=1e-12).sqrt()
    spread = (squares / len(vectors) - mean.square()).clamp(min=0).sqrt()
    spread = torch.where(spread > 1e-4 * size, spread, size)  # a constant channel is not blown up
    mean = mean / spread
    length = mean.norm().clamp(min=1.0)
    shared = mean / mean.norm().clamp(min=1e-12)
    shrink = torch.eye(len(spread), dtype=torch.float64) - (1 - 1 / length) * shared.outer(shared)
    return (shrink / spread).float()


class Conditioned(nn.Module):
    """A head V on A x: the plain matrix V A on x, but learned where learning is easy."""

    def __init__(self, A: torch.Tensor, classes: int):  # (C, C)
        super().__init__()
        self.register_buffer("A", A)
        self.V = nn.Parameter(torch.zeros(classes, len(A)))  # convex: any start ends in one place

    def matrix(self):  # -> (K, C)
        return self.V @ self.A

    def forward(self, x, lengths, first):  # (B, 1, C), as any classifier on what is kept -> (B, K)
        return F.linear(x[:, 0], self.matrix())


def fit_head(
    model: Classifier,
    train: Kept,
    dev: Kept,
    recipe: Recipe,
    group: Group = ALONE,
    quiet: bool = True,
    journal: Journal | None = None,
) -> tuple[dict, list]:
    """Fit `score` on pooled vectors; return what `fit` returns."""
    classes = model.score.out_features
    head = Conditioned(conditioner(train), classes).to(model.score.weight.device)
    found = fit(head, train, dev, recipe, group, quiet, journal, phase="head")
    with torch.no_grad():
        model.score.weight.copy_(head.matrix())
    return found
