"""The core is complete by itself: from official weights and a file of texts to an accuracy.

`job` is all of it, with a frozen trunk and then with a trained one; the test runs this file in a
process of its own, and looks at what has been imported there.
"""

import ast
import csv
import json
import subprocess
import sys
from pathlib import Path

import torch

from minigpt.classifier import Classifier
from minigpt.data import Example, tokenize
from minigpt.fit import Recipe, Training, evaluate, train_to_end
from minigpt.freeze import freeze, frozen_unchanged, names_to_train
from minigpt.head import fit_head, vectors_of
from minigpt.metrics import summarize
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import load_trunk

ROOT = Path(__file__).parents[2]
LABELS = ("negative", "positive")


def job(weights: Path, texts: Path) -> dict:
    """Return what the test asks for: accuracies, dev losses, and modules imported."""
    with open(texts, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    examples = {
        split: [
            Example(row["text"], row["label"], row["pair"]) for row in rows if row["split"] == split
        ]
        for split in ("train", "dev", "test")
    }
    torch.manual_seed(0)
    tokenizer, model = load_tokenizer(weights), Classifier(load_trunk(weights), len(LABELS))
    train, dev, test = (
        tokenize(split, LABELS, tokenizer, max_length=256) for split in examples.values()
    )

    # A frozen trunk: the vectors of all texts once, and a linear layer on them
    freeze(model, names_to_train(model.transformer, freeze_trunk=True))
    fit_head(model.score, vectors_of(model, train), vectors_of(model, dev))
    logits = evaluate(model, test)
    results = {
        "frozen": summarize(logits, examples["test"], LABELS),
        "unchanged": frozen_unchanged(model, weights / "model.safetensors"),
    }

    # A trained trunk: its last two blocks and a new head, for one epoch of every third pair
    model = Classifier(load_trunk(weights, dropout=0.0), len(LABELS))
    freeze(model, names_to_train(model.transformer, train_last=2))
    third = [example for example in examples["train"] if int(example.pair) % 3 == 0]
    few = tokenize(third, LABELS, tokenizer, max_length=256)
    recipe = Recipe(1, 16, 1e-3, weight_decay=0.1, warmup=0.1, clip=1.0, accumulate=1, seed=0)
    t = Training.of(model, recipe, len(few))
    train_to_end(t, few, dev)
    results["trained"] = t.history
    return results | {"modules": [name for name in sys.modules if name.startswith("minigpt.")]}


def test_the_core_alone_gets_from_weights_and_texts_to_an_accuracy():
    weights, texts = ROOT / "weights" / "tiny", ROOT / "minigpt" / "datasets" / "mirrored.tsv"
    command = [sys.executable, __file__, str(weights), str(texts)]
    results = json.loads(
        subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    )

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"test accuracy   {results['frozen']['accuracy']:.1%} (95 %" in readme  # train.py's
    pairs = results["frozen"]["pairs"]
    assert f"pairs in order  {pairs['in_order']:.1%} of {pairs['n']};" in readme
    assert results["unchanged"]
    start, end = results["trained"]
    assert end["dev_loss"] < start["dev_loss"] - 0.1 and end["dev_accuracy"] > 0.7  # chance: 0.5

    core = {f"minigpt.{path.stem}" for path in (ROOT / "minigpt").glob("*.py")}
    assert set(results["modules"]) <= core, "a package was imported"


def test_the_tests_of_the_core_import_neither_a_package_nor_another_test_file():
    """So that this folder can be read by itself, as the core can."""
    core = {f"minigpt.{path.stem}" for path in (ROOT / "minigpt").glob("*.py")}
    tests = {path.stem for path in (ROOT / "tests").rglob("*.py")} - {"conftest"}
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                ours = node.module.startswith("minigpt")
                assert node.module in core if ours else node.module not in tests, path.name
            elif isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & {"minigpt", *tests}


if __name__ == "__main__":
    print(json.dumps(job(*map(Path, sys.argv[1:]))))
