"""--class-weights balanced, held against scikit-learn and torch; and figures of rare classes."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minigpt.data import Example, Tokens
from minigpt.fit import Training, fit, train_to_end
from minigpt.head import HEAD_RECIPE, Vectors, fit_head
from minigpt.metrics import summarize
from minigpt.runs.tune import class_weights_of

# N texts, C channels


def vectors(n=90, channels=5, seed=0) -> Vectors:
    """Return points of three classes, of which there are about 60, 25 and 5."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(torch.tensor([0.66, 0.28, 0.06]), n, True, generator=random)
    x = torch.randn(n, channels, generator=random) + F.one_hot(labels, channels) * 1.5
    return Vectors(x.numpy(), labels, np.ones(n, dtype=np.int64))


def balanced(data: Vectors) -> torch.Tensor:
    tokens = Tokens([np.array([0])] * len(data), data.labels)
    return class_weights_of({"class_weights": "balanced"}, tokens, 3)


def test_the_weights_are_those_of_scikit_learn():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    data = vectors()
    truth = data.labels.numpy()
    expected = utils.compute_class_weight("balanced", classes=np.arange(3), y=truth)
    assert balanced(data).tolist() == pytest.approx(expected.tolist())
    assert balanced(data)[data.labels].sum().item() == pytest.approx(len(data))
    none = Tokens([], data.labels)
    assert class_weights_of({"class_weights": None}, none, 3) is None
    assert class_weights_of({}, none, 3) is None  # settings of earlier versions


def test_one_step_is_the_one_that_torch_takes_with_weights():
    data = vectors()
    torch.manual_seed(0)
    ours = torch.nn.Linear(5, 3, bias=False)
    oracle = torch.nn.Linear(5, 3, bias=False)
    oracle.load_state_dict(ours.state_dict())
    recipe = dataclasses.replace(
        HEAD_RECIPE, epochs=1, batch_size=90, weight_decay=1.0, warmup=0.0, clip=1e9, lr=1e-2
    )
    t = Training.of(ours, recipe, len(data))
    t.class_weights = balanced(data)
    steps = fit(t, data, data)
    next(steps), next(steps)  # the evaluation at the start, and the step
    optimizer = torch.optim.AdamW(oracle.parameters(), lr=1e-2, weight_decay=1.0)
    loss = F.cross_entropy(oracle(torch.from_numpy(data.x)), data.labels, balanced(data))
    loss.backward()  # torch divides by the sum of the weights, which is the number of texts
    optimizer.step()
    torch.testing.assert_close(ours.weight, oracle.weight, rtol=1e-5, atol=1e-6)
    assert t.losses[0].item() / len(data) == pytest.approx(loss.item(), rel=1e-5)
    assert t.history[0]["dev_loss"] != pytest.approx(summarize_loss(data, oracle), rel=1e-3)


def summarize_loss(data: Vectors, model) -> float:
    return F.cross_entropy(model(torch.from_numpy(data.x)), data.labels).item()


def test_a_balanced_head_is_that_of_scikit_learn_and_finds_the_rare_class():
    linear = pytest.importorskip("sklearn.linear_model")
    data, dev = vectors(600), vectors(300, seed=1)
    recipe = dataclasses.replace(HEAD_RECIPE, epochs=60, weight_decay=0.0)
    found = {}
    for weights in (None, balanced(data)):
        score = torch.nn.Linear(5, 3, bias=False)
        fit_head(score, data, dev, recipe, train_to_end, weights)
        predicted = score(torch.from_numpy(dev.x)).argmax(1)
        how = {"fit_intercept": False, "max_iter": 1000, "C": 1e6}
        oracle = linear.LogisticRegression(
            class_weight=None if weights is None else "balanced", **how
        ).fit(data.x, data.labels)
        same = (predicted.numpy() == oracle.predict(dev.x)).mean()
        assert same > 0.9
        found[weights is None] = (predicted == 2)[dev.labels == 2].double().mean().item()
    assert found[False] > found[True] + 0.1


def test_without_the_flag_a_training_is_what_it_was():
    data, heads = vectors(), []
    for more in ({}, {"class_weights": None}, {"class_weights": torch.ones(3)}):
        score = torch.nn.Linear(5, 3, bias=False)
        fit_head(score, data, data, HEAD_RECIPE, **more)
        heads.append(score.weight.detach())
    assert torch.equal(heads[0], heads[1])
    torch.testing.assert_close(heads[0], heads[2], rtol=1e-5, atol=1e-6)


def test_the_figures_of_rare_classes_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    data = vectors()
    logits = torch.randn(90, 3)
    labels = ("a", "b", "c")
    figures = summarize(logits, [Example("", labels[i]) for i in data.labels], labels)
    truth, predicted = data.labels.numpy(), logits.argmax(1).numpy()
    recall = metrics.recall_score(truth, predicted, average=None)
    assert figures["recall"] == pytest.approx(recall.tolist())
    share = max(np.bincount(truth)) / 90
    assert figures["commonest"] == pytest.approx(share)
    assert metrics.accuracy_score(truth, np.full(90, np.bincount(truth).argmax())) == (
        pytest.approx(share)
    )


def test_twins_of_different_kinds_are_no_pairs_of_a_kind():
    examples = [
        Example("", label, pair, kind)
        for pair, kinds in (("1", "xy"), ("2", "xy"), ("3", "zz"))
        for label, kind in zip("ab", kinds, strict=True)
    ]
    logits = torch.tensor([[1.0, 0], [0, 1]] * 3)
    figures = summarize(logits, examples, ("a", "b"))
    assert figures["pairs"] == {"n": 3, "in_order": 1.0}
    assert ["pairs" in figures["kinds"][kind] for kind in "xyz"] == [False, False, True]
    assert figures["kinds"]["z"]["pairs"] == 1.0
