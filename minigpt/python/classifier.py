"""A run, ready to answer: what `minigpt.load` and `minigpt.train` return."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from minigpt.cli.devices import device_of
from minigpt.edge.errors import InputError
from minigpt.edge.fields import read_json
from minigpt.runs import Run, load_run

# N texts, K classes, C channels


def load(folder: str | Path, device: str = "auto") -> "TextClassifier":
    """Open a run of train.py, or a folder of transformers' GPT2ForSequenceClassification.

    Raises InputError, also if the weights it was trained on are not what they were.

    >>> import minigpt
    >>> minigpt.load("joys").predict(["A joy."])
    ['good']
    """
    return TextClassifier(Path(folder), load_run(str(folder), device_of(device)))


class TextClassifier:
    """A trained classifier of texts.

    `labels` are the names of its K classes, in the order of the columns of `probabilities`;
    `folder` is where it lies. `run`, in the examples below:

    >>> import minigpt
    >>> data = ["A joy.", "A bore."] * 20, ["good", "bad"] * 20
    >>> run = minigpt.train(data, weights="tiny", freeze_trunk=True, out="joys")
    """

    def __init__(self, folder: Path, run: Run):
        self.folder, self.labels, self._run = folder, list(run.labels), run
        self._home = folder.absolute()  # the process may change its folder
        self._part = run.part  # int8 is refused here, where there is none

    def predict(self, texts: Iterable[str]) -> list[str]:
        """Return the most probable label of each of N texts.

        >>> run.predict(["A bore.", "A joy."])
        ['bad', 'good']
        """
        return [self.labels[k] for k in self.probabilities(texts).argmax(1)]

    def probabilities(self, texts: Iterable[str]) -> np.ndarray:  # -> (N, K)
        """Return the probability of each of K labels for each of N texts: (N, K) float32.

        >>> run.labels, run.probabilities(["A bore.", "A joy."]).round().tolist()
        (['bad', 'good'], [[1.0, 0.0], [0.0, 1.0]])
        """
        return self._read(self._part.logits_of, texts, len(self.labels)).softmax(1).numpy()

    def vectors(self, texts: Iterable[str]) -> np.ndarray:  # -> (N, C)
        """Return the vector of each of N texts that the head is given: (N, C) float32.

        >>> run.vectors(["A bore.", "A joy.", "So so."]).shape
        (3, 256)
        """
        width = self._run.checkpoint.config.n_embd
        return self._read(self._part.vectors_of, texts, width).numpy()

    def _read(self, function: Callable, texts: Iterable[str], width: int) -> torch.Tensor:
        """Return a row of so many numbers for each text: none of no texts."""
        texts = checked(texts)
        return function(self._run.tokenize(texts)) if texts else torch.empty(0, width)

    @property
    def metrics(self) -> dict:
        """What was measured when it was trained, as metrics.json has it. Raises InputError.

        >>> run.metrics["test"]["accuracy"]
        1.0
        """
        path = self._home / "metrics.json"
        if not path.is_file():
            raise InputError(f"{self.folder} has no metrics.json: train.py writes one")
        return read_json(path)

    def __repr__(self):
        return f"<minigpt classifier in {self.folder}: {', '.join(self.labels)}>"


def checked(texts: Iterable[str]) -> list[str]:
    """Return texts as a list. Raises InputError for what is not a list of texts."""
    if isinstance(texts, str):
        raise InputError("these are texts: a list, also if there is one; say [text]")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {i} is {text!r:.50}, not a text")
    return texts
