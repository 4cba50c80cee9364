"""Labelled texts -> token ids -> right-padded batches. Knows nothing of files or models."""

import dataclasses
from collections import defaultdict

import numpy as np
import tiktoken
import torch

from minigpt.tokenizer import LONGEST

# N texts, B of them in a batch, T tokens in the longest of those


@dataclasses.dataclass(frozen=True)
class Example:
    """One labelled text."""

    text: str
    label: str
    pair: str = ""  # two examples of the same pair have opposite labels
    kind: str = ""  # what makes the text hard, such as a negation
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Texts as token ids, and their classes.

    This is what training and evaluation ask of examples, whatever serves them (as `head.Vectors`):
    `labels`, `lengths` (texts of similar length share a batch), `sizes` (how much of a batch for
    reading a text takes: here its tokens; as a vector, one row) and `batch`.
    """

    ids: list[np.ndarray]  # one array per text, none empty
    labels: torch.Tensor  # (N,)
    truncated: int = 0  # how many texts were longer than the limit

    def __len__(self):
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:  # (N,)
        return np.array([len(ids) for ids in self.ids])

    @property
    def sizes(self) -> np.ndarray:  # (N,)
        """How much of a batch each text takes: a row for each of its tokens."""
        return self.lengths

    def batch(self, indices: np.ndarray):  # (B,) -> ((B, T), (B,)), (B,)
        """Return (ids, lengths), labels: padded on the right, where no real token looks.

        The padding is id 0, a token like any other: attention and pooling never need to know it.
        """
        ids = [torch.from_numpy(self.ids[i]) for i in indices]
        lengths = torch.tensor([len(text) for text in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        return (padded, lengths), self.labels[torch.from_numpy(indices)]


def tokenize(
    examples: list[Example],
    labels: tuple[str, ...],
    tokenizer: tiktoken.Encoding,
    max_length: int,
    append_end: bool = False,
    keep: str = "start",
) -> Tokens:
    """Encode texts; of those longer than `max_length` tokens keep the start or end, and count them.

    With `append_end`, every text is followed by the end-of-text token, within the limit. An empty
    text becomes that one token, since there must be something to read.
    """
    end = [tokenizer.eot_token] if append_end else []
    room = max_length - len(end)
    encoded, truncated = [], 0
    longest = LONGEST * max_length  # in characters: the rest is over the limit anyway
    characters, tokens = slice(longest), slice(room)
    if keep == "end":
        characters, tokens = slice(-longest, None), slice(-room, None)
    for example in examples:
        ids = tokenizer.encode_ordinary(example.text[characters])
        truncated += len(ids) > room
        encoded.append(np.array(ids[tokens] + end or [tokenizer.eot_token], dtype=np.int64))
    return Tokens(encoded, torch.tensor([labels.index(e.label) for e in examples]), truncated)


def shuffled_batches(lengths: np.ndarray, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the texts of each batch of an epoch, by index: of similar length, in random order.

    Texts are shuffled, sorted by length within chunks of 50 batches, cut, and the batches shuffled:
    little padding, and other batches in every epoch (but for texts that are all in one chunk: then
    only their order differs, and that of equal lengths).
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), 50 * size):
        chunk = order[start : start + 50 * size]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    return [batches[i] for i in random.permutation(len(batches))]


# How many tokens are read at once: as many as keep a device busy, and on a CPU so few that the
# hidden states of a block stay in its cache. (How many that is depends on the width: see fast/)
TOKENS_AT_ONCE = {"cpu": 512, "cuda": 3072, "mps": 3072}


def token_batches(lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Return the texts of each batch for reading only: by length, about `tokens` tokens in each."""
    order = np.argsort(-lengths, kind="stable")  # longest first: too little memory shows at once
    batches, start = [], 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def pairs_of(examples: list[Example]) -> list[list[int]]:
    """Return the indices of the two examples of each pair, in the order of their first ones.

    Pairs without exactly two members are left out.
    """
    members = defaultdict(list)
    for i, example in enumerate(examples):
        if example.pair:
            members[example.pair].append(i)
    return [pair for pair in members.values() if len(pair) == 2]
