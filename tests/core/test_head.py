"""A head on vectors that are computed once, held against scikit-learn's logistic regression."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, random_trunk, some_texts
from torch import nn

from minigpt.classifier import POOLINGS, Classifier
from minigpt.data import Example, tokenize
from minigpt.fit import Training, evaluate, fit, train_to_end
from minigpt.freeze import freeze
from minigpt.head import HEAD_RECIPE, ConditionedHeads, Vectors, conditioner, fit_head, vectors_of
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import load_trunk


def vectors(x: torch.Tensor, labels=None) -> Vectors:
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    return Vectors(x.numpy(), labels, np.ones(len(x), dtype=np.int64))


def skewed_vectors(n=600, channels=40) -> torch.Tensor:
    """Return vectors like GPT-2's: a few enormous channels, and a mean far from the origin."""
    random = torch.Generator().manual_seed(0)
    scale = torch.ones(channels)
    scale[:3] = torch.tensor([300.0, 50.0, 1e-3])
    return (
        torch.randn(n, channels, generator=random) + 30 * torch.rand(channels, generator=random)
    ) * scale


# ---- The vectors ----


@pytest.mark.parametrize("how", POOLINGS)
@torch.no_grad()
def test_the_vector_of_a_text_is_what_the_model_pools_of_it_alone(how):
    model, texts = Classifier(random_trunk(), 2, how).train(), some_texts()
    served = vectors_of(model, texts)
    for i in range(24):
        (ids, lengths), label = texts.batch(np.array([i]))
        (x,), same = served.batch(np.array([i]))
        torch.testing.assert_close(x, model.pooled(ids, lengths), rtol=0, atol=1e-5)
        assert torch.equal(label, same)
    assert np.array_equal(served.lengths, texts.lengths) and len(served) == 24


def test_no_text_is_read_twice_however_many_epochs_there_are():
    model, read = Classifier(random_trunk(), 2), []
    freeze(model, set())
    model.transformer.register_forward_pre_hook(lambda _, args: read.append(len(args[0])))
    served = vectors_of(model, some_texts())
    assert sum(read) == 24
    before = model.score.weight.detach().clone()
    fit_head(model.score, served, served, dataclasses.replace(HEAD_RECIPE, epochs=5))
    evaluate(model.score, served)
    assert sum(read) == 24 and not torch.equal(model.score.weight, before)


# ---- The conditioner ----


def test_conditioned_vectors_are_standardized_and_have_a_constant():
    x = skewed_vectors()
    A = conditioner(vectors(x)).double()
    x = x.double()
    z = x @ A.T
    shared = z.mean(0) / z.mean(0).norm()
    assert abs(z.mean(0).norm() - 1) < 1e-6  # the bias that `score` does not have
    assert (z @ shared).std() < 0.1  # all but constant
    across = z - (z @ shared)[:, None] * shared
    assert across.std(0).min() > 0.7 and across.std(0).max() < 1.3


def test_the_conditioner_is_the_product_of_its_two_steps_and_can_be_undone():
    """In numpy at once: here it is summed up in pieces, of 4096 texts."""
    x = skewed_vectors(n=9000)
    A = conditioner(vectors(x)).double().numpy()
    x = x.double().numpy()
    divide = np.diag(1 / x.std(0))
    mean = divide @ x.mean(0)
    u = mean / np.linalg.norm(mean)
    shrink = np.eye(40) - np.outer(u, u) + np.outer(u, u) / np.linalg.norm(mean)
    np.testing.assert_allclose(A, shrink @ divide, rtol=1e-4, atol=1e-6 * np.abs(A).max())
    assert np.linalg.cond(A @ np.diag(x.std(0))) < 1e3  # nothing is lost
    np.testing.assert_allclose(np.linalg.solve(A, A @ x[:9].T), x[:9].T, rtol=1e-6, atol=1e-6)


def test_a_channel_that_says_nothing_in_training_is_not_blown_up():
    x = skewed_vectors()
    x[:, 5], x[:, 6], x[:, 7] = 17.0, -3.0, 0.0
    A = conditioner(vectors(x))
    assert A.isfinite().all()
    x[:, 5] = 16.0  # it says something now, but nobody has learned what
    assert (x @ A.T).abs().max() < 20


def test_a_conditioned_head_is_a_plain_matrix_without_offset():
    x = skewed_vectors()
    heads = ConditionedHeads(conditioner(vectors(x)), classes=3, heads=2)
    assert not heads(x).any()  # they start from 0
    with torch.no_grad():
        for V in heads.V:
            V.normal_()
    z = x.double() @ heads.A.double().T
    for n, V in enumerate(heads.V):
        logits = heads(x)[..., n]  # (N, K)
        torch.testing.assert_close(logits.double(), z @ V.double().T, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(logits, x @ heads.matrix(n).T, rtol=1e-4, atol=1e-3)
    assert not heads(torch.zeros(1, 40)).any()


# ---- The head ----


def noisy_classes(x: torch.Tensor, classes=3) -> torch.Tensor:
    """Return classes that no matrix tells apart without mistakes: the best one is finite."""
    random = torch.Generator().manual_seed(1)
    z = (x - x.mean(0)) / x.std(0)
    logits = z @ torch.randn(x.size(1), classes, generator=random) * 0.3
    return (logits.softmax(1).multinomial(1, generator=random)).squeeze(1)


def loss_of(score: nn.Module, data: Vectors) -> float:
    return F.cross_entropy(evaluate(score, data), data.labels).item()


def test_the_head_reaches_the_loss_of_logistic_regression_and_plain_training_does_not():
    """The same problem for both: a matrix without a bias, and no penalty. So the optimum is one."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    x = skewed_vectors()
    data = vectors(x, noisy_classes(x))
    z = x.double() @ conditioner(data).double().T  # any invertible matrix has the same optimum
    oracle = linear_model.LogisticRegression(
        C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(z.numpy(), data.labels.numpy())
    best = F.cross_entropy(torch.from_numpy(oracle.decision_function(z.numpy())), data.labels)

    recipe = dataclasses.replace(HEAD_RECIPE, epochs=60, weight_decay=0.0, lr=2e-2)
    conditioned, plain = (nn.Linear(40, 3, bias=False) for _ in range(2))
    t = fit_head(conditioned, data, data, recipe)
    assert -1e-4 < loss_of(conditioned, data) - best.item() < 1e-3
    assert loss_of(conditioned, data) == pytest.approx(t.history[-1]["dev_loss"], abs=1e-5)

    train_to_end(Training.of(plain, recipe, len(data)), data, data)
    assert loss_of(plain, data) > best.item() + 0.1


def test_where_it_starts_makes_no_difference_and_a_caller_may_watch_each_step():
    x = skewed_vectors()
    data, weights, steps = vectors(x, noisy_classes(x)), [], []

    def watched(t, train, dev):
        steps.extend(t.step for _ in fit(t, train, dev))

    for run in (train_to_end, watched):
        score = nn.Linear(40, 3, bias=False)
        fit_head(score, data, data, dataclasses.replace(HEAD_RECIPE, epochs=2), run)
        weights.append(score.weight)
    assert torch.equal(*weights) and steps == sorted([0, *range(1, 39), 19, 38])


def test_of_several_weight_decays_the_head_has_the_one_with_the_lowest_loss_on_dev():
    """Few texts, of which a tenth have a wrong label: a head that fits them all is a bad one."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(1040, 40, generator=random)
    labels = (x[:, 0] > 0).long()
    wrong = torch.rand(1040, generator=random) < 0.1
    train, dev = vectors(x[:40], (labels ^ wrong)[:40]), vectors(x[40:], labels[40:])
    losses = {}
    for decays in (90.0, 10.0, 1e-4, (90.0, 10.0, 1e-4)):
        score = nn.Linear(40, 2, bias=False)
        t = fit_head(score, train, dev, dataclasses.replace(HEAD_RECIPE, weight_decay=decays))
        losses[decays] = loss_of(score, dev)
    together = losses.pop((90.0, 10.0, 1e-4))
    assert together == pytest.approx(t.history[-1]["dev_loss"], rel=1e-4)
    assert t.history[-1]["head"] == 1 == [*losses.values()].index(min(losses.values()))
    assert together == pytest.approx(losses[10.0], rel=1e-3)  # as if it were trained alone
    assert together < min(losses[90.0], losses[1e-4]) - 0.01


# ---- On the bundled weights ----


def test_the_head_on_a_frozen_trunk_is_as_good_as_logistic_regression():
    """scikit-learn's, on the same vectors: best of four C on dev, 0.5 points of leeway on test.

    tests/fast has the same on SST-2, and with the end-of-text token appended.
    """
    linear_model = pytest.importorskip("sklearn.linear_model")
    with open(ROOT / "minigpt/datasets/mirrored.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    folder = ROOT / "weights" / "tiny"
    tokenizer, model = load_tokenizer(folder), Classifier(load_trunk(folder), 2)
    train, dev, test = (
        vectors_of(model, tokenize(examples, ("negative", "positive"), tokenizer, 256))
        for examples in (
            [Example(row["text"], row["label"]) for row in rows if row["split"] == split]
            for split in ("train", "dev", "test")
        )
    )
    fit_head(model.score, train, dev)

    mean, std = train.x.mean(0), train.x.std(0)
    parts = [((part.x - mean) / std, part.labels.numpy()) for part in (train, dev, test)]
    oracles = [
        linear_model.LogisticRegression(C=c, solver="newton-cholesky").fit(*parts[0])
        for c in (0.01, 0.1, 1, 10)
    ]
    best = max(oracles, key=lambda oracle: oracle.score(*parts[1]))
    accuracy = (evaluate(model.score, test).argmax(1) == test.labels).float().mean()
    assert accuracy >= best.score(*parts[2]) - 0.005 and accuracy >= 0.66
