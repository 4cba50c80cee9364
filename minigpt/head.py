"""A frozen trunk: the vectors of all texts, computed once, and a linear layer trained on them.

Such a layer is also known as a linear probe. Nothing in the trunk moves, so that no text has to be
read twice: an epoch is a few matrix products, whatever the size of the trunk.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from minigpt.classifier import Classifier
from minigpt.data import Tokens
from minigpt.fit import Recipe, Training, read_all, train_to_end

# N texts, B of them in a batch, C channels, K classes

HEAD = Recipe(  # the defaults of `train.py --freeze-trunk`, chosen on the dev split of mirrored
    epochs=20,
    batch_size=32,
    lr=4e-3,
    weight_decay=1.0,
    warmup=0.1,
    clip=1.0,
    accumulate=1,
    seed=0,
)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The pooled vectors of texts, in batches as `Tokens` has them."""

    x: np.ndarray  # (N, C) float32
    labels: torch.Tensor  # (N,)
    lengths: np.ndarray  # (N,), in tokens: what batches are formed by

    def __len__(self):
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:  # (N,)
        """How much of a batch each text takes: one row."""
        return np.ones_like(self.lengths)

    def batch(self, texts: np.ndarray):  # (B,) indices -> ((B, C),), (B,)
        """Return (vectors,), labels."""
        return (torch.from_numpy(self.x[texts]),), self.labels[torch.from_numpy(texts)]


def vectors_of(model: Classifier, texts: Tokens) -> Vectors:
    """Read each text once, and return its pooled vector. `fast/` does the same, and stores it."""
    device = model.score.weight.device
    model.eval()
    return Vectors(read_all(model.pooled, texts, device).numpy(), texts.labels, texts.lengths)


def conditioner(vectors: Vectors) -> torch.Tensor:  # -> (C, C)
    """Return the matrix A that makes vectors x easy to learn from: A x instead of x.

    A few channels of GPT-2's hidden states are enormous, and all vectors have almost the same
    direction: the gradient sees little else. So A divides each channel by its standard deviation,
    and then shrinks the one direction that all vectors share, their mean, to length 1, where it
    serves as the bias that `score` does not have. A is invertible and has no offset: whatever is
    learned as V on A x is the plain matrix V A on x.
    """
    total, squares = 0.0, 0.0
    for texts in np.array_split(np.arange(len(vectors)), math.ceil(len(vectors) / 4096)):
        (x,), _ = vectors.batch(texts)  # (up to 4096, C)
        x = x.double()
        total, squares = total + x.sum(0), squares + x.square().sum(0)
    mean, size = total / len(vectors), (squares / len(vectors)).clamp(min=1e-12).sqrt()
    spread = (squares / len(vectors) - mean.square()).clamp(min=0).sqrt()
    spread = torch.where(spread > 1e-4 * size, spread, size)  # a constant channel stays as it is
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
        self.V = nn.Parameter(torch.zeros(classes, len(A)))  # convex: any start has the same end

    def matrix(self):  # -> (K, C)
        return self.V @ self.A

    def forward(self, x):  # (B, C) -> (B, K)
        return F.linear(x, self.matrix())


def fit_head(
    score: nn.Linear,
    train: Vectors,
    dev: Vectors,
    recipe: Recipe = HEAD,
    run: Callable[[Training, Vectors, Vectors], None] = train_to_end,
) -> Training:
    """Train `score`, (C -> K) without a bias, on vectors; return the training at its end.

    `run` goes through the steps of `fit`; hand in another one to save or show them on the way.
    """
    head = Conditioned(conditioner(train), score.out_features).to(score.weight.device)
    t = Training.of(head, recipe, len(train))
    run(t, train, dev)
    with torch.no_grad():
        score.weight.copy_(head.matrix())
    return t
