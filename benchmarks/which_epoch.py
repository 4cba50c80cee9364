"""Which epoch should be kept: that with the lowest loss on dev, the highest accuracy, or the last?

    python benchmarks/which_epoch.py mirrored sst2 path/to/trec

Trains with each method on at most 2,000 texts of each data set, three seeds, evaluates test after
each epoch, and prints the mean test accuracy that each way to choose comes to.
"""

import argparse

import numpy as np
import torch
from tqdm import tqdm

from minigpt.checkpoints import find_checkpoint, open_tokenizer
from minigpt.cli.train_flags import parse
from minigpt.cli.train_settings import settle
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.explain.study import sample
from minigpt.fast import precompute, reuse_memory, use_onednn
from minigpt.fit import Training, evaluate, fit
from minigpt.freeze import freeze, names_to_train
from minigpt.runs import build
from minigpt.runs.tune import recipe_of

WAYS = {
    "lowest loss": lambda line: (-line["dev_loss"],),
    "highest accuracy": lambda line: (line["dev_accuracy"], -line["dev_loss"]),
    "last": lambda line: (line["epoch"],),
}


def train(checkpoint, dataset, flags: list[str], seed: int) -> list[dict]:
    """Return the history of a training, with the accuracy on test after each epoch."""
    typed = parse("", [*flags, f"--seed={seed}", "--device=cpu"])
    torch.manual_seed(seed)
    texts = sample(dataset.train, 2000, seed)
    settings = settle(typed, checkpoint, len(texts))
    model, added = build(checkpoint, settings, len(dataset.labels), settings["dropout"])
    use_onednn(model)
    freeze(model, added or names_to_train(model.transformer, train_last=typed.train_last))
    tokenizer, length = open_tokenizer(checkpoint), settings["max_length"]
    train, dev, test = (
        precompute(model, tokenize(split, dataset.labels, tokenizer, length), checkpoint)
        for split in (texts, dataset.dev, dataset.test)
    )
    t = Training.of(model, recipe_of(settings), len(texts))
    for _ in fit(t, train, dev):
        if not t.losses:
            right = evaluate(model, test).argmax(1) == test.labels
            t.history[-1]["test"] = right.double().mean().item()
    return t.history


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", help="as --data of train.py")
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--flags", nargs="*", default=["", "--lora=8", "--train-last=2"])
    args = parser.parse_args()
    reuse_memory()
    checkpoint = find_checkpoint(args.weights)
    print(f"{'data':10} {'flags':16} " + " ".join(f"{way:>18}" for way in WAYS))
    totals = []
    for data in args.data:
        dataset = load_dataset(data, seed=0)
        for flags in args.flags:
            kept = []
            for seed in tqdm(range(3), leave=False):
                history = train(checkpoint, dataset, flags.split(), seed)
                lines = [max(history, key=way) for way in WAYS.values()]
                kept.append([(line["test"], line["epoch"]) for line in lines])
            means = np.mean(kept, 0)  # (3, 2)
            totals.append(means[:, 0])
            cells = [f"{test:.1%} ({epoch:.1f})" for test, epoch in means]
            row = f"{dataset.name:10} {flags:16} " + " ".join(f"{cell:>18}" for cell in cells)
            print(row, flush=True)
    print(f"{'mean':27} " + " ".join(f"{mean:>12.1%}      " for mean in np.mean(totals, 0)))


if __name__ == "__main__":
    main()
