"""Examples -> token ids -> right-padded batches. Knows nothing of files or models."""

import dataclasses
import hashlib

import numpy as np
import tiktoken
import torch

from minigpt.datasets.formats import Example
from minigpt.tokenizer import LONGEST

# B texts in a batch, T tokens in the longest of them


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Texts as token ids, and their classes: what a model reads."""

    ids: list[np.ndarray]  # one array of ids a text, none empty
    labels: torch.Tensor  # (texts,)
    truncated: int = 0  # how many texts were longer than the limit

    def __len__(self):
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:  # (texts,)
        return np.array([len(ids) for ids in self.ids])

    @property
    def rows(self) -> np.ndarray:  # (texts,)
        """What each text takes of a batch: one row for each of its tokens."""
        return self.lengths

    def sha256(self) -> str:
        """Return a hash of the ids alone, which stand for texts, tokenizer and limits in one."""
        digest = hashlib.sha256(np.ascontiguousarray(self.lengths))
        for text in self.ids:
            digest.update(text)
        return digest.hexdigest()

    def batch(self, rows: np.ndarray):  # -> ((B, T), (B,)), (B,)
        """Return (ids, lengths), labels: ids padded on the right, where no real token looks."""
        ids = [torch.from_numpy(self.ids[i]) for i in rows]
        lengths = torch.tensor([len(text) for text in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        return (padded, lengths), self.labels[torch.from_numpy(rows)]


def tokenize(
    examples: list[Example],
    labels: tuple[str, ...],
    tokenizer: tiktoken.Encoding,
    max_length: int,
    append_end: bool = False,
) -> Tokens:
    """Encode texts; cut those longer than `max_length` tokens at their end, and count them.

    With `append_end`, every text is followed by the end-of-text token, within the limit. An empty
    text becomes that one token, since there must be something to read.
    """
    end = [tokenizer.eot_token] if append_end else []
    room = max_length - len(end)
    rows, truncated = [], 0
    texts = [e.text[: LONGEST * max_length] for e in examples]  # more could not be within the limit
    for ids in tokenizer.encode_ordinary_batch(texts, num_threads=2):
        truncated += len(ids) > room
        rows.append(np.array(ids[:room] + end or [tokenizer.eot_token], dtype=np.int64))
    return Tokens(rows, torch.tensor([labels.index(e.label) for e in examples]), truncated)


def sha256_of(labels: tuple[str, ...], *splits: Tokens) -> str:
    """Return a hash of data as a model reads it: names of the classes, ids, and classes."""
    parts = [(texts.sha256(), texts.labels.tolist()) for texts in splits]
    return hashlib.sha256(repr((labels, parts)).encode("utf-8", "surrogatepass")).hexdigest()


def shuffled_batches(lengths: np.ndarray, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch: in random order, of texts of similar length.

    Rows are shuffled, sorted by length within pools of 50 batches, cut, and the batches shuffled:
    little padding, and the mixture differs from epoch to epoch.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 50 * size):
        pool = order[start : start + 50 * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in random.permutation(len(batches))]


# How many tokens are read at once: as many as keep a device busy, and on a CPU few enough that the
# hidden states of a block stay in its cache
AT_ONCE = {"cpu": 512, "cuda": 3072, "mps": 3072}


def token_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return the rows of each batch for reading only: by length, about `tokens` tokens in each."""
    order = np.argsort(-lengths, kind="stable")  # longest first: what does not fit fails at once
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches
