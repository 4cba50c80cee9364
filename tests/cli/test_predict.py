"""`predict` as a batch tool: any text, files of any size, a line for each, and bad lines named."""

import itertools
import json
import time
import tracemalloc
from pathlib import Path

import pytest

from minigpt.cli.predict import LONGEST_LINE, Skipped, chunks, lines_of
from minigpt.edge.errors import InputError


@pytest.fixture
def trained(run, checkpoint, texts) -> str:
    how = ["--freeze-trunk", "--epochs", 2, "--weights", checkpoint, "--data", texts]
    assert run("train", *how, "--out", "trained")[0] == 0
    return "trained"


def test_a_file_is_answered_line_for_line_in_its_order(run, trained):
    """3,000 lines are several lists of texts, and each is sorted by length to be read."""
    lines = ["the " * (i % 23) + f"good {i}" for i in range(3000)]
    Path("lines").write_text("\n".join(lines) + "\n", encoding="utf-8")
    status, out, err = run("predict", trained, "--file", "lines", "--json")
    assert (status, err) == (0, "")
    assert [json.loads(line)["text"] for line in out.splitlines()] == lines


BAD_LINE = "caf\xe9".encode("latin-1")


def test_what_comes_before_a_bad_line_is_answered_and_the_line_is_named(run, trained):
    Path("lines").write_bytes(b"one\n" * 20 + BAD_LINE + b"\nlast\n")
    status, out, err = run("predict", trained, "--file", "lines")
    assert status == 2 and out.count("\n") == 20
    assert err == (
        "error: lines, line 21: not UTF-8; say what it is with --encoding, such as --encoding "
        "latin-1; mend it, or go on past it with --skip-bad\n"
    )


def test_with_skip_bad_the_others_are_answered_and_the_bad_ones_counted(run, trained):
    Path("lines").write_bytes(b"\n".join([b"one", BAD_LINE, b"two", BAD_LINE, b"three"]))
    status, out, err = run("predict", trained, "--file", "lines", "--skip-bad")
    assert status == 0 and [line.split("\t")[2] for line in out.splitlines()] == [
        *("one", "two", "three")
    ]
    assert err == "skipped 2 bad lines: lines, line 2, lines, line 4\n"


def test_a_line_that_no_memory_holds_is_a_bad_line():
    """256 MB without a line's end, which take no room on disk, and little in memory."""
    with open("huge", "wb") as file:
        file.truncate(2**28)
        file.seek(0, 2)
        file.write(b"\nshort\n")
    tracemalloc.start()
    bad = Skipped()
    assert list(lines_of("huge", "huge", bad)) == ["short"] and bad.first == ["huge, line 1"]
    with pytest.raises(InputError, match="huge, line 1: longer than"):
        list(lines_of("huge", "huge", None))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * LONGEST_LINE


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_first_answers_do_not_wait_for_the_last_text():
    texts = iter(map(str, itertools.count()))  # endless, as a pipe may be
    first, error = next(chunks(texts))
    assert error is None and first == [str(i) for i in range(len(first))] and len(first) < 10


def test_a_slow_pipe_is_answered_text_by_text():
    def slow():
        while True:
            time.sleep(0.3)
            yield "a text"

    lists = [texts for texts, _ in itertools.islice(chunks(slow()), 4)]
    assert [len(texts) for texts in lists] == [1, 1, 1, 1]


def test_however_many_lines_are_bad_memory_holds_a_few_of_their_names():
    bad = Skipped()
    for i in range(10_000):
        bad.add(f"line {i}")
    assert (bad.count, bad.first) == (10_000, ["line 0", "line 1", "line 2"])


def test_long_texts_come_in_short_lists():
    """What is held in memory does not grow with the number of texts in a list."""
    lists = itertools.islice(chunks("x" * 2**20 for _ in itertools.count()), 12)
    assert max(sum(map(len, texts)) for texts, _ in lists) <= LONGEST_LINE


STRANGE = [
    "",
    "x" * 1_000_000,
    "no spaces " * 100_000,
    "\0\a\x1b[31m\x7f",
    "\ud800 alone \udfff",
    "مرحبا שלום \u202e",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "<|endoftext|>",
    "\u2028\u2029\x85\r\n",
]


def test_training_takes_any_text_and_so_does_predict(run, checkpoint):
    """From JSON, which may hold half a surrogate pair; the same answer alone and among others."""
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(STRANGE * 20)]
    Path("strange.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ["--weights", checkpoint, "--data", "strange.jsonl", "--freeze-trunk", "--epochs", 1]
    status, _, err = run("train", *how, "--out", "run")
    assert status == 0, err
    texts = [text for text in STRANGE if "\0" not in text]  # which no argument can hold

    def answers(*texts):
        status, out, err = run("predict", "run", "--json", "--", *texts)
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    for text, among in zip(texts, answers(*texts), strict=True):
        (alone,) = answers(text)
        assert alone["text"] == among["text"] == text
        assert abs(alone["probability"] - among["probability"]) < 1e-5
