"""The training loop, held against arithmetic, against torch, and against itself interrupted."""

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import random_trunk, some_texts
from torch import nn

from minigpt.classifier import Classifier
from minigpt.fit import (
    Recipe,
    Training,
    evaluate,
    fit,
    learning_rate,
    make_optimizer,
    steps_of,
    take_step,
    train_to_end,
)
from minigpt.freeze import freeze, names_to_train
from minigpt.head import Vectors

RECIPE = Recipe(
    epochs=3, batch_size=8, lr=5e-2, weight_decay=0.1, warmup=0.1, clip=1.0, accumulate=1, seed=0
)


def points(n=100, channels=6, seed=0) -> Vectors:
    """Return points of two classes that a matrix can tell apart, mostly."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, generator=random)
    noise = torch.randn(n, generator=random) * 0.3
    labels = (x[:, 0] - x[:, 1] + noise > 0).long()
    return Vectors(x.numpy(), labels, np.ones(n, dtype=np.int64))


def matrix() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 2, bias=False)


def trained(model, train, dev, **changes) -> Training:
    t = Training.of(model, dataclasses.replace(RECIPE, **changes), len(train))
    train_to_end(t, train, dev)
    return t


# ---- The learning rate and what decays ----


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing():
    rates = [learning_rate(step, 1000, RECIPE) for step in range(1000)]
    assert rates.index(max(rates)) == 100 and max(rates) == RECIPE.lr
    assert np.all(np.diff(rates[:101]) > 0) and np.all(np.diff(rates[100:]) < 0)
    assert 0 < rates[-1] < 1e-4 * RECIPE.lr and rates[0] > 0
    assert math.isclose(rates[550], RECIPE.lr / 2)  # half way down the cosine
    assert learning_rate(1000, 1000, RECIPE) == 0
    assert learning_rate(0, 1, dataclasses.replace(RECIPE, warmup=0.0)) == RECIPE.lr
    assert 0 < learning_rate(9, 10, dataclasses.replace(RECIPE, warmup=1.0)) < RECIPE.lr


def test_the_rate_of_each_step_is_that_of_the_schedule_and_of_nothing_else():
    t = Training.of(matrix(), RECIPE, 100)
    for _ in fit(t, points(), points(20)):
        if t.step:
            expected = learning_rate(t.step - 1, 39, RECIPE)
            assert [group["lr"] for group in t.optimizer.param_groups] == [expected] * 2
    assert t.step == t.steps == 39


def test_matrices_decay_and_vectors_do_not_and_what_is_frozen_is_not_given_to_the_optimizer():
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    decays, rest = make_optimizer(model, RECIPE).param_groups
    assert [p.shape for p in decays["params"]] == [(4, 6)] and decays["weight_decay"] == 0.1
    assert [p.shape for p in rest["params"]] == [(4,)] * 3 and rest["weight_decay"] == 0


# ---- A step ----


@pytest.mark.parametrize("accumulate", [1, 5, 13])
def test_every_step_is_the_one_that_torch_takes_on_the_mean_loss_of_its_texts(accumulate):
    """However the step is cut into batches: 100 texts are 12 batches of 8 and one of 4.

    With 5 batches to a step, the last step of an epoch has only 3. Each text weighs the same.
    """
    data, ours, oracle = points(), matrix(), matrix()
    recipe = dataclasses.replace(RECIPE, accumulate=accumulate, clip=0.2, warmup=0.5)
    t = Training.of(ours, recipe, len(data))
    optimizer = torch.optim.AdamW(oracle.parameters(), weight_decay=0.1)
    clipped, loop = [], fit(t, data, data)
    next(loop)  # the evaluation before the first step
    for step, batches in enumerate(steps_of(data, recipe, epoch=1)):
        texts = np.concatenate(batches)
        optimizer.zero_grad()
        loss = F.cross_entropy(oracle(torch.from_numpy(data.x[texts])), data.labels[texts])
        loss.backward()
        norm = nn.utils.clip_grad_norm_(oracle.parameters(), 0.2)
        optimizer.param_groups[0]["lr"] = learning_rate(step, t.steps, recipe)
        optimizer.step()
        next(loop)
        torch.testing.assert_close(t.losses[-1] / len(texts), loss.detach())
        torch.testing.assert_close(t.gradient_norm, norm)
        torch.testing.assert_close(ours.weight, oracle.weight, rtol=1e-5, atol=1e-6)
        clipped.append(bool(norm > 0.2))
    assert t.step == t.steps_per_epoch == math.ceil(13 / accumulate) and any(clipped)


def test_batches_accumulated_into_a_step_are_one_large_batch():
    whole, parts = matrix(), matrix()
    trained(whole, points(), points(20), batch_size=200, epochs=5)
    trained(parts, points(), points(20), batch_size=8, accumulate=13, epochs=5)
    torch.testing.assert_close(whole.weight, parts.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n, size, accumulate", [(100, 8, 1), (100, 8, 5), (7, 8, 2), (48, 4, 6)])
def test_an_epoch_has_every_text_once_and_as_many_steps_as_training_counts(n, size, accumulate):
    data, recipe = points(n), dataclasses.replace(RECIPE, batch_size=size, accumulate=accumulate)
    for epoch in (1, 2):
        steps = steps_of(data, recipe, epoch)
        texts = np.concatenate([batch for batches in steps for batch in batches])
        assert sorted(texts) == list(range(n))
        assert len(steps) == Training.of(matrix(), recipe, n).steps_per_epoch


# ---- An epoch, and the last of them ----


def test_the_loop_yields_after_each_evaluation_and_each_step():
    t, yielded = Training.of(classifier(0.1), RECIPE, 24), []
    for same in fit(t, some_texts(), some_texts(5, seed=1)):
        assert same is t and t.model.training == bool(t.losses)  # evaluation is in eval mode
        yielded.append((len(t.history), t.step, len(t.losses)))
    assert yielded == [
        (1, 0, 0),
        *[(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 3, 0)],
        *[(2, 4, 1), (2, 5, 2), (2, 6, 3), (3, 6, 0)],
        *[(3, 7, 1), (3, 8, 2), (3, 9, 3), (4, 9, 0)],
    ]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def weights(seed):
        return trained(matrix(), points(), points(20), seed=seed).model.weight

    assert torch.equal(weights(0), weights(0)) and not torch.equal(weights(0), weights(1))


def test_the_model_ends_with_what_the_last_epoch_left_whatever_dev_says():
    """Every label of dev is wrong: the lowest loss on dev is that of the start."""
    model, wrong = matrix(), dataclasses.replace(points(), labels=1 - points().labels)
    t = Training.of(model, dataclasses.replace(RECIPE, epochs=8, lr=0.1), 100)
    for _ in fit(t, points(), wrong):
        last = model.weight.detach().clone()
    losses = [line["dev_loss"] for line in t.history]
    assert len(losses) == 9 and losses[0] == min(losses) and torch.equal(model.weight, last)
    assert F.cross_entropy(evaluate(model, wrong), wrong.labels).item() == losses[-1]


class Three(nn.Module):
    """Three heads side by side, of which one has been trained, one not, and one is wrong."""

    def __init__(self):
        super().__init__()
        good = torch.tensor([[-3.0, 3.0, 0, 0, 0, 0], [3.0, -3.0, 0, 0, 0, 0]])
        self.V = nn.Parameter(torch.stack((-good, good, torch.zeros(2, 6))))

    def forward(self, x):  # (B, C) -> (B, K, P)
        return torch.einsum("bc,pkc->bkp", x, self.V)


def test_of_several_heads_the_loss_is_the_mean_and_the_history_names_the_best_on_dev():
    model, data = Three(), points()
    t = Training.of(model, RECIPE, len(data))
    x, labels = torch.from_numpy(data.x), data.labels
    each = [F.cross_entropy(x @ V.T, labels).item() for V in model.V]
    next(fit(t, data, data))
    assert t.history[0]["head"] == 1 and t.history[0]["dev_accuracy"] > 0.9
    assert t.history[0]["dev_loss"] == pytest.approx(each[1], rel=1e-5)
    take_step(t, data, [np.arange(100)])
    assert t.losses[0].item() / 100 == pytest.approx(np.mean(each), rel=1e-5)


def test_history_says_what_happened():
    history = trained(matrix(), points(), points(20)).history
    assert [line["epoch"] for line in history] == [0, 1, 2, 3]
    assert [line["step"] for line in history] == [0, 13, 26, 39]
    assert "train_loss" not in history[0]
    assert history[-1]["train_loss"] < history[1]["train_loss"] < 1.5
    assert history[-1]["dev_accuracy"] > 0.8
    assert [line["lr"] for line in history[1:]] == [
        learning_rate(step, 39, RECIPE) for step in (12, 25, 38)
    ]


def test_the_train_loss_of_an_epoch_is_the_mean_over_texts_and_not_over_batches():
    """A rate too small to move anything: then it is the loss of the model at the start."""
    model, data = matrix(), points()
    line = trained(model, data, data, epochs=1, lr=1e-12).history[1]
    expected = F.cross_entropy(model(torch.from_numpy(data.x)), data.labels).item()
    assert line["train_loss"] == pytest.approx(expected, rel=1e-5)
    assert line["dev_loss"] == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_evaluation_gives_the_logits_of_each_text_in_order_and_drops_nothing_out():
    model, texts = classifier(0.5).train(), some_texts()
    logits = evaluate(model, texts)
    assert logits.shape == (24, 2) and torch.equal(logits, evaluate(model, texts))
    for i in range(24):
        inputs, _ = texts.batch(np.array([i]))
        torch.testing.assert_close(logits[i : i + 1], model(*inputs), rtol=0, atol=1e-5)


# ---- Stopped, and continued ----


def classifier(dropout: float) -> Classifier:
    """Return a classifier whose last block, ln_f and head are trained."""
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), dropout)
    torch.manual_seed(0)
    model = Classifier(random_trunk(**rates), 2)
    freeze(model, names_to_train(model.transformer, train_last=1))
    return model


STOPPED = dataclasses.replace(RECIPE, epochs=2, accumulate=2, batch_size=4, lr=1e-2)
YIELDS = 1 + 2 * (3 + 1)  # an evaluation, then two epochs of 3 steps and an evaluation


def started(dropout: float) -> Training:
    t = Training.of(classifier(dropout), STOPPED, 24)
    torch.manual_seed(1)  # dropout begins with this
    return t


def run(t: Training, yields: int | None = None) -> None:
    """Go on with a training, to its end or until it has yielded so many times."""
    for _ in itertools.islice(fit(t, some_texts(), some_texts(9, seed=1)), yields):
        pass


def copied(t: Training) -> Training:
    """Return another training, as one process fills it from what another one has saved."""
    saved = copy.deepcopy((t.model.state_dict(), t.optimizer.state_dict()))
    new = Training.of(classifier(t.model.transformer.config.embd_pdrop), t.recipe, 24)
    new.model.load_state_dict(saved[0])
    new.optimizer.load_state_dict(saved[1])
    for name in ("step", "losses", "history"):
        setattr(new, name, copy.deepcopy(getattr(t, name)))
    return new


@pytest.fixture(scope="module", params=[0.0, 0.1])
def uninterrupted(request) -> tuple[float, Training]:
    t = started(request.param)
    run(t)
    return request.param, t


@pytest.mark.parametrize("continued", [lambda t: t, copied], ids=["the same", "a copy"])
@pytest.mark.parametrize("stop", range(YIELDS + 1))
def test_a_training_that_is_stopped_and_continued_is_the_uninterrupted_one(
    stop, continued, uninterrupted
):
    """Bit for bit, wherever: before and after any step and any evaluation, the last one too."""
    dropout, whole = uninterrupted
    t = started(dropout)
    run(t, stop)
    random = torch.get_rng_state()  # dropout depends on it; nothing else may
    t = continued(t)
    torch.manual_seed(99)
    if dropout:
        torch.set_rng_state(random)
    run(t)
    assert t.history == whole.history and t.step == whole.step == 6
    for (name, ours), oracle in zip(
        t.model.named_parameters(), whole.model.parameters(), strict=True
    ):
        assert torch.equal(ours, oracle), name
    for ours, oracle in zip(t.parameters, whole.parameters, strict=True):
        for moment, value in whole.optimizer.state[oracle].items():
            assert torch.equal(t.optimizer.state[ours][moment], value), moment


def test_a_training_that_is_done_stays_as_it_is(uninterrupted):
    _, whole = uninterrupted
    before, lines = copy.deepcopy(whole.model.state_dict()), len(whole.history)
    run(whole)
    assert len(whole.history) == lines
    assert all(torch.equal(p, before[name]) for name, p in whole.model.state_dict().items())
