"""A head on stored vectors is as good as scikit-learn's logistic regression: here on SST-2."""

import numpy as np
import pytest

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.fast import PartialClassifier, precompute
from minigpt.fit import evaluate
from minigpt.freeze import freeze
from minigpt.head import fit_head
from minigpt.weights import load_trunk


def test_the_head_on_a_frozen_trunk_is_as_good_as_logistic_regression(shared):
    """With the end of text appended. Best of four C on dev, 0.5 points of leeway on test."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    dataset = load_dataset(str(shared("sst2")), seed=0)
    checkpoint = find_checkpoint("tiny")
    tokenizer = open_tokenizer(checkpoint)
    model = PartialClassifier(load_trunk(checkpoint.folder), 2)
    freeze(model, set())
    train, dev, test = (
        precompute(model, tokenize(split, dataset.labels, tokenizer, 256, True), checkpoint)
        for split in (dataset.train[:2000], dataset.dev, dataset.test)
    )
    fit_head(model.score, train, dev)

    x = train.x[train.places]
    parts = [
        ((part.x[part.places] - x.mean(0)) / x.std(0), part.labels.numpy())
        for part in (train, dev, test)
    ]
    oracles = [
        linear_model.LogisticRegression(C=c, solver="newton-cholesky").fit(*parts[0])
        for c in (0.01, 0.1, 1, 10)
    ]
    best = max(oracles, key=lambda oracle: oracle.score(*parts[1]))
    accuracy = np.mean(evaluate(model.score, test).argmax(1).numpy() == parts[2][1])
    assert accuracy >= best.score(*parts[2]) - 0.005 and accuracy >= 0.75
