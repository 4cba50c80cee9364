"""How much of a text's rating is in one vector of a frozen trunk? The README's first table.

    python benchmarks/frozen_head.py [--weights W] [--data D]

Prints the test accuracy of the head for each way to pool, on the trunk as pre-trained and on the
same trunk with random weights, each beside scikit-learn's logistic regression on the same vectors
(the best of C = 0.01, 0.1, 1, 10 on dev; raw or standardized vectors, whichever is better on dev).
Needs the test extra: pip install -e .[test]
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from minigpt.checkpoints import Checkpoint, describe, find_checkpoint, open_tokenizer
from minigpt.cli.program import Parser, errors_for_people
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.fast import PartialClassifier, precompute
from minigpt.fit import evaluate
from minigpt.freeze import freeze
from minigpt.head import Vectors, fit_head
from minigpt.language.initialize import initialize
from minigpt.metrics import summarize
from minigpt.weights import load_trunk, save_trunk

VECTORS = {  # name: pooling, and whether <|endoftext|> follows the text
    "last": ("last", False),
    "<|endoftext|> after it": ("last", True),
    "mean": ("mean", False),
    "max": ("max", False),
    "first": ("first", False),
}


def logistic_regression(train: Vectors, dev: Vectors, test: Vectors) -> float:
    """Return the test accuracy of the one of scikit-learn's fits that is best on dev."""
    parts = []
    for vectors in (train, dev, test):
        (x,), labels = vectors.batch(np.arange(len(vectors)))
        parts.append((x.double().numpy(), labels.numpy()))
    scores = []
    for scaler in (FunctionTransformer(), StandardScaler()):
        for c in (0.01, 0.1, 1, 10):
            regression = LogisticRegression(C=c, solver="newton-cholesky")
            oracle = make_pipeline(scaler, regression).fit(*parts[0])
            scores.append([oracle.score(*part) for part in parts[1:]])
    return max(scores, key=lambda dev_and_test: dev_and_test[0])[1]


def with_random_weights(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return a checkpoint of the same shape that has not been trained."""
    save_trunk(initialize(load_trunk(checkpoint.folder)), folder)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(checkpoint.folder / file, folder)
    return describe("random", folder)


def main():
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights")
    parser.add_argument("--data", default="mirrored")
    args = parser.parse_args()
    checkpoint = find_checkpoint(args.weights)
    tokenizer = open_tokenizer(checkpoint)
    dataset = load_dataset(args.data, seed=0)

    print(f"{checkpoint.name} on {dataset.name}, {len(dataset.test)} test texts")
    print(f"{'trunk':14}{'vector':24}{'head':>8}{'pairs':>8}{'scikit-learn':>14}")
    with tempfile.TemporaryDirectory() as folder:
        random = with_random_weights(checkpoint, Path(folder))
        for trunk, weights in (("pre-trained", checkpoint), ("random", random)):
            for name, (pooling, append_end) in VECTORS.items():
                model = PartialClassifier(load_trunk(weights.folder), len(dataset.labels), pooling)
                freeze(model, set())
                length = weights.config.n_positions
                tokens = [
                    tokenize(split, dataset.labels, tokenizer, length, append_end)
                    for split in (dataset.train, dataset.dev, dataset.test)
                ]
                train, dev, test = (precompute(model, texts, weights) for texts in tokens)
                fit_head(model.score, train, dev)
                figures = summarize(evaluate(model.score, test), dataset.test, dataset.labels)
                pairs = f"{figures['pairs']['in_order']:.1%}" if "pairs" in figures else ""
                row = f"{trunk:14}{name:24}{figures['accuracy']:8.1%}{pairs:>8}"
                print(f"{row}{logistic_regression(train, dev, test):14.1%}", flush=True)


if __name__ == "__main__":
    with errors_for_people():
        main()
