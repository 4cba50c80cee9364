"""Labelled texts: file formats, splits, and the bundled mirrored.tsv.

    dataset = load_dataset("mirrored", seed=0)  # a Dataset: name, labels, train, dev, test
    examples = read_examples(Path("texts.csv"))  # as a list of Example
    for where, record, columns in records(path, labelled=False):  # one at a time: a large file
    rest, share = split_off(examples, 0.1, seed=0)

`Reading` says which columns are text and label, and the encoding, where that is not to be guessed.
`NAMED` are the names that are not files, `SPLITS` the splits and how files may call them, and a
`Given` stands for a name where the texts are in memory. Whatever is not as it should be raises
InputError, in one line that names file and line.
"""

from minigpt.datasets.columns import Reading
from minigpt.datasets.formats import read_examples, records, text_of
from minigpt.datasets.given import Given
from minigpt.datasets.lines import LONGEST_LINE, numbered_lines, refuse_what_is_not_text
from minigpt.datasets.splits import NAMED, SPLITS, Dataset, load_dataset, read_splits, split_off

__all__ = [
    "LONGEST_LINE",
    "NAMED",
    "SPLITS",
    "Dataset",
    "Given",
    "Reading",
    "load_dataset",
    "numbered_lines",
    "read_examples",
    "read_splits",
    "records",
    "refuse_what_is_not_text",
    "split_off",
    "text_of",
]
