"""Which end of a long text is read, held against cutting all its ids by hand."""

import numpy as np
import pytest

from minigpt.data import Example, tokenize
from minigpt.tokenizer import load_tokenizer

TEXTS = ["the good bad", "zzzzz", "", "zzzz", "zzz", "the " * 300 + "good", "x" * 9999, " " * 9999]


@pytest.mark.parametrize("append_end", [False, True])
@pytest.mark.parametrize("limit", [2, 4, 60])
def test_the_last_tokens_are_those_of_the_whole_text(checkpoint, limit, append_end):
    tokenizer = load_tokenizer(checkpoint)
    examples = [Example(text, "a") for text in TEXTS]
    tokens = tokenize(examples, ("a",), tokenizer, limit, append_end, keep="end")
    end, room = [tokenizer.eot_token] * append_end, limit - append_end
    full = [tokenizer.encode_ordinary(text) for text in TEXTS]
    expected = [ids[max(0, len(ids) - room) :] + end or [tokenizer.eot_token] for ids in full]
    assert [ids.tolist() for ids in tokens.ids] == expected
    assert tokens.truncated == sum(len(ids) > room for ids in full)


def test_the_first_tokens_are_kept_unless_it_is_said(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    examples = [Example(text, "a") for text in TEXTS]
    start = tokenize(examples, ("a",), tokenizer, 4, keep="start")
    plain = tokenize(examples, ("a",), tokenizer, 4)
    assert all(np.array_equal(a, b) for a, b in zip(start.ids, plain.ids, strict=True))
    assert start.ids[0].tolist() == tokenizer.encode_ordinary(TEXTS[0])[:4]


def test_a_million_characters_are_cut_before_they_are_encoded(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    text = Example("good bad " * 200_000 + "the end", "a")
    tokens = tokenize([text], ("a",), tokenizer, 3, keep="end")
    assert tokens.ids[0].tolist() == tokenizer.encode_ordinary("bad the end")[-3:]
