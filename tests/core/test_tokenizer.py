"""Token ids, compared with those of `transformers` on the same files."""

import json
import random

import pytest
from conftest import ROOT

from minigpt.tokenizer import END_OF_TEXT, load_tokenizer

# What a text may be made of, beside any character at all
SPACES = [*" \t\n\v\x85\u00a0\u2003\u2028\u3000", "  ", "   ", "\n\n", "\r\n"]
INVISIBLE = [*"\0\x01\x1b\x7f\u200b\u200d\ufeff\ufffd\U0010ffff"]
EMOJI = ["😀", "👩\u200d🚀", "👨\u200d👩\u200d👧\u200d👦", "🏳\u200d🌈", "🇫🇷", "👍🏽", "❤\ufe0f"]
SCRIPTS = ["naïve", "ǅ", "e\u0301", "a\u0300\u0323", "жизнь", "映画", "فيلم", "फ़िल्म", "ชอบ", "ﬁ"]
NUMBERS = ["0", "7", "42", "1999", "3.14", "½", "²", "٣", "Ⅻ"]
WORDS = ["it's", "'s", "'S", "we'll", "'re'd", "don’t", "'", "''", "good", "GOOD", "aaaaaaa"]
MARKS = [".", "...", "!?", "--", "_", "#", "<|", "|>", "$"]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Return texts of 0 to 30 pieces, a tenth of them characters from anywhere in Unicode."""
    rng = random.Random(seed)
    anywhere = [c for c in map(chr, range(0x110000)) if not "\ud800" <= c <= "\udfff"]
    kinds = [SPACES, SPACES, INVISIBLE, EMOJI, SCRIPTS, NUMBERS, WORDS, WORDS, MARKS, anywhere]
    return [
        "".join(rng.choice(rng.choice(kinds)) for _ in range(rng.randrange(31)))
        for _ in range(count)
    ]


@pytest.fixture(params=["gpt2", "tiny"])
def folder(request, shared):
    return shared("gpt2-tokenizer") if request.param == "gpt2" else ROOT / "weights" / "tiny"


def vocabulary(folder) -> dict[str, int]:
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8"))


def ids_of_transformers(folder, texts: list[str]) -> list[list[int]]:
    oracle = pytest.importorskip("transformers").GPT2Tokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        split_special_tokens=True,  # <|endoftext|> in a text is plain text there, too
    )
    return oracle(texts)["input_ids"]


def check(folder, texts: list[str]) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode_ordinary_batch(texts, num_threads=1)
    for text, found, expected in zip(texts, ids, ids_of_transformers(folder, texts), strict=True):
        assert found == expected, text
        assert tokenizer.decode(found) == text


def test_ids_of_reviews_are_those_of_transformers_and_decode_to_the_text(folder, shared):
    lines = [
        line
        for split in ("train", "dev", "test")
        for line in (shared("sst2") / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    ]
    assert len(lines) == 6920 + 872 + 1821
    check(folder, [line.split("\t")[0] for line in lines])


def test_ids_of_any_unicode_are_those_of_transformers_and_decode_to_the_text(folder):
    check(folder, random_texts(5000))


def test_the_end_of_text_inside_a_text_is_plain_text(folder):
    texts = [END_OF_TEXT, f"one {END_OF_TEXT} two", f"\n{END_OF_TEXT * 2}"]
    check(folder, texts)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eot_token == vocabulary(folder)[END_OF_TEXT]
    assert tokenizer.decode([tokenizer.eot_token]) == END_OF_TEXT
    assert all(tokenizer.eot_token not in tokenizer.encode_ordinary(text) for text in texts)
