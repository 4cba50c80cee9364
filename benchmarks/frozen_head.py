"""How much of a text's rating is in one vector of a frozen trunk? The README's first table.

    python benchmarks/frozen_head.py [--weights W] [--data D]

Prints the test accuracy of the head for each way to pool, on the trunk as pre-trained and on the
same trunk with random weights, each beside scikit-learn's logistic regression on the same vectors
(the best of C = 0.01, 0.1, 1, 10 on dev; raw or standardised vectors, whichever is better on dev).
Needs the test extra: pip install -e .[test]
"""

import shutil
import tempfile
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from minigpt.checkpoints import Checkpoint, describe, find_checkpoint, open_tokenizer
from minigpt.classifier import Classifier
from minigpt.cli.program import Parser, errors_for_people
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.fast.frozen import Kept, keep
from minigpt.fit import evaluate
from minigpt.freeze import freeze
from minigpt.head import HEAD, fit_head
from minigpt.metrics import summarize
from minigpt.language.initialize import initialize
from minigpt.weights import load_trunk, save_trunk

VECTORS = {  # name: pooling, and whether <|endoftext|> follows the text
    "last": ("last", False),
    "<|endoftext|> after it": ("last", True),
    "mean": ("mean", False),
    "max": ("max", False),
    "first": ("first", False),
}


def logistic_regression(train: Kept, dev: Kept, test: Kept) -> float:
    """Return the test accuracy of scikit-learn's best on dev."""
    parts = [
        (part.states[part.starts].astype(float), part.labels.numpy()) for part in (train, dev, test)
    ]
    found = []
    for scaler in (FunctionTransformer(), StandardScaler()):
        for c in (0.01, 0.1, 1, 10):
            oracle = make_pipeline(scaler, LogisticRegression(C=c, solver="newton-cholesky")).fit(
                *parts[0]
            )
            found.append([oracle.score(*part) for part in parts[1:]])
    return max(found, key=lambda scores: scores[0])[1]


def with_random_weights(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Return a checkpoint of the same shape that has learned nothing."""
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
    splits = dataset.train, dataset.dev, dataset.test

    print(f"{checkpoint.name} on {dataset.name}, {len(dataset.test)} test texts")
    print(f"{'trunk':14}{'vector':24}{'head':>8}{'pairs':>8}{'scikit-learn':>14}")
    with tempfile.TemporaryDirectory() as folder:
        random = with_random_weights(checkpoint, Path(folder))
        for trunk, found in (("pre-trained", checkpoint), ("random", random)):
            for name, (pooling, append_end) in VECTORS.items():
                torch.manual_seed(0)
                model = Classifier(load_trunk(found.folder), len(dataset.labels), pooling)
                freeze(model, set())
                length = found.config.n_positions
                parts = [
                    keep(model, tokenize(s, dataset.labels, tokenizer, length, append_end), found)
                    for s in splits
                ]
                fit_head(model, *parts[:2], HEAD)
                figures = summarize(evaluate(model, parts[2]), dataset.test, dataset.labels)
                pairs = f"{figures['pairs']['in_order']:.1%}" if "pairs" in figures else ""
                row = f"{trunk:14}{name:24}{figures['accuracy']:8.1%}{pairs:>8}"
                print(f"{row}{logistic_regression(*parts):14.1%}", flush=True)


if __name__ == "__main__":
    with errors_for_people():
        main()
