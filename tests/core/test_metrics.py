"""The figures of a test set, held against scikit-learn, scipy and counting by hand."""

import pytest
import torch
import torch.nn.functional as F

from minigpt.data import Example
from minigpt.metrics import confusion_matrix, macro_f1, pairs_in_order, summarize, wilson_interval


def test_wilson_interval_is_the_published_one():
    """Newcombe 1998, table I, method 3."""
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    for (right, n), (low, high) in published.items():
        interval = wilson_interval(right, n)
        assert abs(interval[0] - low) < 1e-4 and abs(interval[1] - high) < 1e-4
    assert wilson_interval(29, 29)[1] == 1.0


@pytest.mark.parametrize("n", [1, 7, 444])
def test_wilson_interval_is_that_of_scipy(n):
    stats = pytest.importorskip("scipy.stats")
    for right in {0, 1, n // 3, n - 1, n}:
        expected = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson_interval(right, n) == pytest.approx(tuple(expected), abs=1e-4)


def test_confusion_and_macro_f1_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    truth, predicted = torch.randint(4, (2, 200))
    predicted[predicted == 2] = 3  # one class is never predicted
    confusion = confusion_matrix(predicted, truth, 4)
    assert confusion.tolist() == metrics.confusion_matrix(truth, predicted).tolist()
    expected = metrics.f1_score(truth, predicted, average="macro")
    for classes in (4, 6):  # the last two occur nowhere, and do not count
        assert abs(macro_f1(confusion_matrix(predicted, truth, classes)) - expected) < 1e-6


def test_a_pair_is_in_order_when_its_positive_twin_scores_higher():
    labels = ("negative", "positive")
    examples = [Example("", label, pair) for pair in "abc" for label in labels]
    logits = torch.tensor([[0, 1.0], [0, 2.0], [0, 0.5], [0, 0.4], [0, -3.0], [0, -3.0]])
    assert pairs_in_order(logits, examples, labels) == (1.5, 3)  # a tie is half in order
    figures = summarize(logits, examples, labels)
    assert figures["pairs"] == {"n": 3, "in_order": 0.5}
    assert figures["accuracy"] == 3 / 6 and figures["confusion"] == [[1, 2], [1, 2]]
    assert "kinds" not in figures


def test_always_saying_the_same_puts_half_of_the_pairs_in_order():
    labels = ("negative", "positive")
    examples = [Example("", label, str(i)) for i in range(9) for label in labels]
    figures = summarize(torch.tensor([[0.3, -2.0]]).expand(18, 2), examples, labels)
    assert figures["pairs"]["in_order"] == figures["accuracy"] == 0.5


def test_two_examples_of_the_same_class_are_not_a_pair_to_put_in_order():
    examples = [Example("", label, pair) for label, pair in ("aX", "aX", "bY", "aY")]
    logits = torch.tensor([[0, 1.0], [0, 2.0], [0, 0.5], [0, 0.4]])
    assert pairs_in_order(logits, examples, ("a", "b")) == (1.0, 1)


def test_the_figures_of_three_classes_have_no_pairs_and_the_mean_loss_of_a_text():
    labels, truth = ("a", "b", "c"), torch.tensor([0, 2, 1, 2, 0])
    examples = [Example("", labels[i], "pair") for i in truth]
    logits = torch.randn(5, 3)
    figures = summarize(logits, examples, labels)
    assert "pairs" not in figures and figures["n"] == 5
    assert figures["loss"] == pytest.approx(F.cross_entropy(logits, truth).item())


def test_figures_by_kind_are_those_of_the_kind_alone():
    labels = ("a", "b")
    kinds = ["plain"] * 6 + ["irony"] * 4
    examples = [Example("", labels[i % 2], str(i // 2), kind) for i, kind in enumerate(kinds)]
    torch.manual_seed(0)
    logits = torch.randn(10, 2)
    figures = summarize(logits, examples, labels)
    alone = summarize(logits[6:], examples[6:], labels)
    irony = figures["kinds"]["irony"]
    assert irony["n"] == 4 and abs(irony["accuracy"] - alone["accuracy"]) < 1e-6
    assert irony["pairs"] == alone["pairs"]["in_order"]
    assert figures["kinds"]["plain"]["n"] == 6
