"""Examples become batches of token ids, with nothing lost, repeated or invented."""

import numpy as np
import pytest
import torch
from conftest import ROOT

from minigpt.data import (
    AT_ONCE,
    Example,
    Tokens,
    pairs_of,
    shuffled_batches,
    token_batches,
    tokenize,
)
from minigpt.tokenizer import load_tokenizer


def test_texts_are_cut_at_their_end_and_counted(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    texts = ["the good bad", "zzzzz", "", "zzzz", "zzz"]
    labels = ("x", "y", "z")
    examples = [Example(text, label) for text, label in zip(texts, "zyxzy", strict=True)]
    full = [tokenizer.encode_ordinary(text) for text in texts]
    assert [len(ids) for ids in full] == [4, 5, 0, 4, 3]
    end = tokenizer.eot_token

    tokens = tokenize(examples, labels, tokenizer, max_length=4)
    assert [list(ids) for ids in tokens.ids] == [ids[:4] or [end] for ids in full]
    assert tokens.truncated == 1 and tokens.lengths.tolist() == [4, 4, 1, 4, 3]
    assert tokens.labels.tolist() == [2, 1, 0, 2, 1] and len(tokens) == 5

    ended = tokenize(examples, labels, tokenizer, max_length=4, append_end=True)
    assert [list(ids) for ids in ended.ids] == [[*ids[:3], end] for ids in full]
    assert ended.truncated == 3


def test_a_million_spaces_are_cut_before_they_are_encoded(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    tokens = tokenize([Example(" " * 1_000_000 + "x", "a")], ("a",), tokenizer, 10)
    assert tokens.truncated == 1 and len(tokens.ids[0]) == 10


def test_a_batch_is_padded_on_the_right():
    tokens = Tokens([np.arange(1, n + 1) for n in (2, 5, 1, 3)], torch.tensor([0, 1, 2, 3]))
    (ids, lengths), labels = tokens.batch(np.array([3, 0, 2]))
    assert lengths.tolist() == [3, 2, 1] and labels.tolist() == [3, 0, 2]
    assert ids.shape == (3, 3) and ids.dtype == torch.int64
    for row, n in zip(ids, lengths, strict=True):
        assert row[:n].tolist() == list(range(1, n + 1))


def test_a_pair_is_two_examples_and_neither_one_nor_three():
    pairs = ["b", "a", "", "c", "a", "b", "", "d", "d", "d"]
    examples = [Example("", "", pair) for pair in pairs]
    assert pairs_of(examples) == [[0, 5], [1, 4]]


def is_each_text_once(batches: list[np.ndarray], n: int) -> bool:
    return np.array_equal(np.sort(np.concatenate(batches)), np.arange(n))


@pytest.mark.parametrize("n, size", [(1, 4), (64, 32), (100, 32), (3301, 32), (50, 1)])
def test_shuffled_batches_hold_every_text_once_and_are_full_but_for_one(n, size):
    lengths = np.random.default_rng(n).integers(1, 60, n)
    batches = shuffled_batches(lengths, size, seed=0, epoch=3)
    assert is_each_text_once(batches, n)
    odd = [len(batch) for batch in batches if len(batch) != size]
    assert odd == ([n % size] if n % size else [])


def test_shuffled_batches_depend_on_seed_and_epoch_alone():
    """So that a training that is resumed need not store the order in which it was."""
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        first = shuffled_batches(lengths, 8, seed, epoch)
        np.random.seed(seed + epoch)  # nobody else's random numbers matter
        again = shuffled_batches(lengths, 8, seed, epoch)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        batches[seed, epoch] = {frozenset(batch.tolist()) for batch in first}
    for a, b in (((0, 0), (0, 1)), ((0, 0), (1, 0))):  # other neighbours, not only another order
        assert len(batches[a] & batches[b]) < 0.1 * len(batches[a])


@pytest.mark.parametrize("limit", [1, 100, 4096])
def test_token_batches_hold_every_text_once_and_as_many_as_the_limit_allows(limit):
    lengths = np.random.default_rng(0).integers(1, 300, 2000)
    batches = token_batches(lengths, limit)
    assert is_each_text_once(batches, 2000)
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= limit for b in batches)
    assert all((len(b) + 1) * lengths[b].max() > limit for b in batches[:-1])


def padding(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Return the share of a data set's positions that are padding."""
    return 1 - lengths.sum() / sum(len(b) * lengths[b].max() for b in batches)


def test_little_of_what_is_read_is_padding(shared):
    lines = (shared("sst2") / "train.tsv").read_text(encoding="utf-8").splitlines()
    examples = [Example(*line.split("\t")) for line in lines]
    tokenizer = load_tokenizer(ROOT / "weights" / "tiny")
    lengths = tokenize(examples, ("0", "1"), tokenizer, max_length=256).lengths
    naive = np.array_split(np.random.default_rng(0).permutation(len(lengths)), len(lengths) // 32)
    assert padding(naive, lengths) > 0.4  # what shuffling alone would cost
    assert all(padding(shuffled_batches(lengths, 32, 0, e), lengths) < 0.1 for e in range(3))
    assert all(padding(token_batches(lengths, n), lengths) < 0.03 for n in AT_ONCE.values())
