"""How much of a text's rating is in one vector of a frozen trunk? Every figure of the README.

    python benchmarks/frozen_head.py [--weights W] [--data D]

Prints the test accuracy of the head for each way to pool, on the trunk as pre-trained and on the
same trunk with random weights, each beside scikit-learn's logistic regression on the same vectors
(the best of C = 0.01, 0.1, 1, 10 on dev; raw or standardised vectors, whichever is better on dev).
Needs the test extra: pip install -e .[test]
"""

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from minigpt.batches import tokenize
from minigpt.classifier import Classifier
from minigpt.data import load_dataset
from minigpt.errors import Parser, errors_for_people
from minigpt.fit import Recipe, evaluate
from minigpt.frozen import Vectors, fit_head, pooled_vectors
from minigpt.metrics import summarize
from minigpt.model import initialize
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import find_checkpoint, load_trunk

RECIPE = Recipe(30, 32, 1e-3, 0.1, 0.1, 1.0, 1, seed=0)  # the defaults of train.py --freeze-trunk


def logistic_regression(train: Vectors, dev: Vectors, test: Vectors) -> float:
    """Return the test accuracy of scikit-learn's best on dev."""
    found = []
    for scaler in (FunctionTransformer(), StandardScaler()):
        for c in (0.01, 0.1, 1, 10):
            oracle = make_pipeline(scaler, LogisticRegression(C=c, max_iter=3000))
            oracle.fit(train.features.numpy(), train.labels.numpy())
            found.append([oracle.score(p.features.numpy(), p.labels.numpy()) for p in (dev, test)])
    return max(found, key=lambda scores: scores[0])[1]


def main():
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights")
    parser.add_argument("--data", default="mirrored")
    args = parser.parse_args()
    checkpoint = find_checkpoint(args.weights)
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    dataset = load_dataset(args.data, seed=0)
    context = checkpoint.config.n_positions
    trunks = {"pre-trained": load_trunk(checkpoint), "random": load_trunk(checkpoint)}
    initialize(trunks["random"])

    print(f"{checkpoint.name} on {dataset.name}, {len(dataset.test)} test texts")
    print(f"{'trunk':14}{'vector':22}{'head':>8}{'pairs':>8}{'scikit-learn':>14}")
    for trunk_name, trunk in trunks.items():
        for pooling, append_end in (
            ("last", 0),
            ("last", 1),
            ("mean", 0),
            ("max", 0),
            ("first", 0),
        ):
            torch.manual_seed(0)
            model = Classifier(trunk, len(dataset.labels), pooling)
            parts = [
                pooled_vectors(
                    model,
                    tokenize(part, dataset.labels, tokenizer, context, append_end),
                    quiet=True,
                )
                for part in (dataset.train, dataset.dev, dataset.test)
            ]
            fit_head(model, *parts[:2], RECIPE, quiet=True)
            figures = summarize(evaluate(model.score, parts[2]), dataset.test, dataset.labels)
            vector = "<|endoftext|> after it" if append_end else pooling
            pairs = f"{figures['pairs']['in_order']:.1%}" if "pairs" in figures else ""
            oracle = logistic_regression(*parts)
            row = f"{trunk_name:14}{vector:22}{figures['accuracy']:8.1%}{pairs:>8}{oracle:14.1%}"
            print(row, flush=True)


if __name__ == "__main__":
    with errors_for_people():
        main()
