"""Linear probes: how well can the class be read off a vector by a plane, and how sure is that?

Logistic regression by hand, fitted to convergence. Knows nothing of where vectors come from.
"""

import contextlib
import dataclasses
import functools

import numpy as np
import torch
import torch.nn.functional as F

from minigpt.datasets.formats import Example
from minigpt.metrics import pairs_in_order, summarize

# N texts, C channels, D = C + 1 with the bias, K classes, R planes: one for two classes, else K
# G groups of texts that are drawn together: pairs, or single texts

GRID = (1e4, 3e3, 1e3, 3e2, 1e2, 3e1, 1e1, 1.0)  # L2 penalties, on standardised vectors
DRAWS = 2000  # of the bootstrap


@dataclasses.dataclass(frozen=True)
class Probe:
    """A plane for two classes, or one for each of more: on vectors as they come."""

    weight: torch.Tensor  # (R, C)
    bias: torch.Tensor  # (R,)
    l2: float  # the penalty that was best on dev

    def logits(self, x):  # (N, C) -> (N, K)
        """Score the classes; of two, the first scores 0, so that the second's is the log odds."""
        scores = x.double() @ self.weight.T + self.bias
        return F.pad(scores, (1, 0)) if scores.size(1) == 1 else scores


@contextlib.contextmanager
def one_thread():
    """Compute in one thread: matrices as small as these only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def fit_probe(train, labels, dev, dev_labels, classes: int, one_scale=False) -> Probe:
    """Fit a probe on vectors (N, C) of train; the penalty is the one with the least loss on dev.

    Vectors are standardised: each channel by its own spread, or all by `one_scale`, which leaves
    what is rare small. As in scikit-learn's LogisticRegression with C = 1 / penalty, the bias is
    free. Of more than two classes, each is told from the rest.
    """
    train, dev = train.double(), dev.double()
    mean, spread = train.mean(0), train.std(0, correction=0)
    if one_scale:
        spread = spread.square().mean().sqrt().expand_as(spread)
    spread = torch.where(spread > 1e-6 * mean.abs(), spread, 1.0)  # a constant channel
    X, X_dev = (F.pad((x - mean) / spread, (0, 1), value=1.0) for x in (train, dev))
    y, y_dev = one_against_rest(labels, classes), one_against_rest(dev_labels, classes)
    W, best, worse = train.new_zeros(y.size(1), X.size(1)), (np.inf,), 0
    for l2 in GRID:  # from the strongest on: each starts where the one before has ended
        W = torch.stack([newton(X, y[:, r], l2, w) for r, w in enumerate(W)])
        loss = F.binary_cross_entropy_with_logits(X_dev @ W.T, y_dev).item()
        worse = 0 if loss < best[0] else worse + 1
        if worse == 0:
            best = loss, l2, W
        elif worse == 2:  # with still less of a penalty it would be more of the same
            break
    _, l2, W = best
    weight = W[:, :-1] / spread
    return Probe(weight, W[:, -1] - weight @ mean, l2)


def one_against_rest(labels, classes: int):  # (N,) -> (N, R)
    return F.one_hot(labels, classes)[:, 1 if classes == 2 else 0 :].double()


def newton(X, y, l2: float, w):  # (N, D), (N,), (D,) -> (D,)
    """Minimise the log loss of y given X w, plus l2/2 |w|², the last of w, the bias, left free."""
    penalty = torch.full_like(w, l2)
    penalty[-1] = 1e-6  # just so that there is a minimum if all are of one class

    def loss(w):
        return F.binary_cross_entropy_with_logits(X @ w, y, reduction="sum") + penalty @ w**2 / 2

    now = loss(w)
    for _ in range(100):
        p = (X @ w).sigmoid()
        gradient = X.T @ (p - y) + penalty * w
        curvature = X.T @ (X * (p * (1 - p))[:, None]) + penalty.diag()
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        while (then := loss(w - step)) > now + 1e-9 and step.abs().max() > 1e-9:
            step = step / 2  # too far: the loss is not the parabola it looked like
        w, now = w - step, then
        if step.abs().max() < 1e-6:
            break
    return w


def groups_of(examples: list[Example]) -> np.ndarray:  # -> (N,)
    """Return the number of each text's group: twins belong together, other texts are alone."""
    names = [e.pair or (i,) for i, e in enumerate(examples)]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def bootstrap_interval(right, groups, seed=0) -> tuple[float, float]:  # (N,), (N,)
    """Return the 95 % interval of the share that is right (Efron 1979), drawing whole groups.

    The texts of a pair are much alike, so that a draw of single texts would be too sure of itself.
    """
    G = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, right, G), np.bincount(groups, minlength=G)])  # (2, G)
    hits, texts = sums @ draws(G, seed).T
    low, high = np.quantile(hits / texts, (0.025, 0.975))
    return float(low), float(high)


@functools.lru_cache(4)
def draws(groups: int, seed: int) -> np.ndarray:  # -> (DRAWS, G)
    """Return how often each group is drawn, draw by draw."""
    random = np.random.default_rng(seed)
    return random.multinomial(groups, np.full(groups, 1 / groups), DRAWS).astype(float)


def judge(logits, examples: list[Example], labels: tuple[str, ...], seed=0) -> dict:  # (N, K)
    """Return accuracy with its bootstrap interval, and, where there are twins, pairs in order.

    With kinds in the data, also both by kind.
    """
    figures = summarize(logits, examples, labels)
    truth = torch.tensor([labels.index(e.label) for e in examples])
    right = (logits.argmax(1) == truth).numpy()
    found = {
        "accuracy": figures["accuracy"],
        "interval": bootstrap_interval(right, groups_of(examples), seed),
    }
    if "pairs" in figures:
        found["pairs"] = figures["pairs"]["in_order"]
        found["pairs_interval"] = pairs_interval(logits, examples, labels, seed)
    if "kinds" in figures:
        found["kinds"] = figures["kinds"]
    return found


def pairs_interval(logits, examples, labels, seed=0) -> tuple[float, float]:  # (N, 2)
    """Return the 95 % interval of the share of pairs that are in order."""
    twins = {}
    for i, example in enumerate(examples):
        twins.setdefault(example.pair or (i,), []).append(i)
    rows = [pair for pair in twins.values() if len(pair) == 2]
    ordered = [pairs_in_order(logits[r], [examples[i] for i in r], labels)[0] for r in rows]
    return bootstrap_interval(np.array(ordered), np.arange(len(rows)), seed)
