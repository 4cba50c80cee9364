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

# N texts, B of them in a batch, C channels, K classes, P heads side by side

# The defaults of `train.py --freeze-trunk`. How much weight decay suits depends on the texts, so
# that a head is trained with each of these, all on the same batches, and dev chooses one. The rest
# was chosen on mirrored, SST-2 and TREC, three seeds each.
HEAD_RECIPE = Recipe(
    epochs=30,
    batch_size=32,
    lr=1e-2,
    weight_decay=(3.0, 1.0, 0.3, 0.1, 0.03, 0.01),
    warmup=0.1,
    clip=1e9,  # no clipping: heads side by side would share one norm
    accumulate=1,
    seed=0,
)


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The pooled vectors of texts, in batches as `Tokens` has them."""

    x: np.ndarray  # (N, C) float32
    labels: torch.Tensor  # (N,)
    lengths: np.ndarray  # (N,), in tokens: used to form batches

    def __len__(self):
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:  # (N,)
        """What each text adds to a batch: one row."""
        return np.ones_like(self.lengths)

    def batch(self, indices: np.ndarray):  # (B,) -> ((B, C),), (B,)
        """Return (vectors,), labels."""
        return (torch.from_numpy(self.x[indices]),), self.labels[torch.from_numpy(indices)]


def vectors_of(model: Classifier, texts: Tokens) -> Vectors:
    """Read each text once, without dropout, and return its pooled vector.

    `fast/` does the same, faster, and stores the vectors on disk.
    """
    device = model.score.weight.device
    model.eval()
    return Vectors(read_all(model.pooled, texts, device).numpy(), texts.labels, texts.lengths)


def conditioner(vectors: Vectors) -> torch.Tensor:  # -> (C, C)
    """Return the matrix A that makes vectors x easy to learn from: A x instead of x.

    A = (I - (1 - 1/m) u uᵀ) diag(1/s), with s the standard deviations of the channels, and m and u
    the length and the direction of the vectors' mean after it is divided by s.

    A few channels of GPT-2's hidden states are enormous, and all vectors have almost the same
    direction: the gradient sees little else. So A divides each channel by its standard deviation,
    and then shrinks the vectors along u, the direction of their mean, until the mean has length 1
    at most. What V has along u adds nearly the same to every text: the bias which `score` does not
    have, and now it is learned as easily as the rest. A is invertible and has no offset:
    whatever is learned as V on A x is the plain matrix V A on x.
    """
    total, squares, n = 0.0, 0.0, len(vectors)
    for indices in np.array_split(np.arange(n), math.ceil(n / 4096)):
        (x,), _ = vectors.batch(indices)  # (up to 4096, C)
        x = x.double()
        total, squares = total + x.sum(0), squares + x.square().sum(0)
    mean, rms = total / n, (squares / n).clamp(min=1e-12).sqrt()
    spread = (squares / n - mean.square()).clamp(min=0).sqrt()  # the standard deviation
    spread = torch.where(spread > 1e-4 * rms, spread, rms)  # a constant channel has none
    center = mean / spread
    length = center.norm()
    shared = center / length.clamp(min=1e-12)  # the direction, of length 1
    shrink = 1 - 1 / length.clamp(min=1.0)
    identity = torch.eye(len(spread), dtype=torch.float64)
    return ((identity - shrink * shared.outer(shared)) / spread).float()


class ConditionedHeads(nn.Module):
    """P heads V on A x, side by side: the plain matrices V A on x, learned where that is easy."""

    def __init__(self, A: torch.Tensor, classes: int, heads: int):  # (C, C)
        super().__init__()
        self.register_buffer("A", A)
        zeros = torch.zeros(classes, len(A))  # the loss is convex: the start hardly matters
        self.V = nn.ParameterList(zeros.clone() for _ in range(heads))

    def matrix(self, head: int):  # -> (K, C)
        return self.V[head] @ self.A

    def forward(self, x):  # (B, C) -> (B, K, P)
        logits = F.linear(x, torch.cat([*self.V]) @ self.A)  # (B, P * K)
        return logits.unflatten(1, (len(self.V), -1)).transpose(1, 2)


def fit_head(
    score: nn.Linear,
    train: Vectors,
    dev: Vectors,
    recipe: Recipe = HEAD_RECIPE,
    loop: Callable[[Training, Vectors, Vectors], None] = train_to_end,
    class_weights: torch.Tensor | None = None,  # (K,)
) -> Training:
    """Train `score`, (C -> K) without a bias, on vectors; return the training at its end.

    `score` itself takes no step: the matrices V of `ConditionedHeads` do, and the best of them is
    written into it as V A. A head is trained with each weight decay of the recipe, and that with
    the lowest loss on dev at the end is taken. They share their batches, and a norm if the gradient
    is clipped; without clipping, one that is trained alone ends at the same place, but for Adam's
    epsilon.

    `loop` goes through the steps of `fit`; hand in another to save or show them on the way.
    """
    decays = recipe.weight_decay
    decays = decays if isinstance(decays, tuple) else (decays,)
    # AdamW multiplies by 1 - rate * decay, which must not change the sign
    decays = tuple(d for d in decays if recipe.lr * d < 1) or decays[-1:]
    heads = ConditionedHeads(conditioner(train), score.out_features, len(decays))
    heads.to(score.weight.device)
    groups = [{"params": V, "weight_decay": d} for V, d in zip(heads.V, decays, strict=True)]
    optimizer = torch.optim.AdamW(groups, recipe.lr, fused=True)
    t = Training(heads, recipe, len(train), optimizer, class_weights=class_weights)
    loop(t, train, dev)
    with torch.no_grad():
        score.weight.copy_(heads.matrix(t.history[-1]["head"]))
    return t
