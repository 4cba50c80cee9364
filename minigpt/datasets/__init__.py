"""Labelled texts: file formats, splits, and the bundled mirrored.tsv.

    dataset = load_dataset("mirrored", seed=0)  # a Dataset: name, labels, train, dev, test
    examples = read_examples(Path("texts.csv"))  # .tsv, .csv or .jsonl, as a list of Example
    rest, share = split_off(examples, 0.1, seed=0)

`NAMED` are the names that are not files, `SPLITS` the splits and how files may call them. Whatever
is not as it should be raises InputError, in one line that names file and line.
"""

from minigpt.datasets.formats import read_examples
from minigpt.datasets.splits import NAMED, SPLITS, Dataset, load_dataset, split_off

__all__ = ["NAMED", "SPLITS", "Dataset", "load_dataset", "read_examples", "split_off"]
