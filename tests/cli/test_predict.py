"""`predict` as a batch tool: any text, files of any size, a line for each, and bad lines named."""

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from conftest import LORA, ROOT
from safetensors.torch import save_file

from minigpt.cli.predict import CHUNK, LONGEST_LINE, Skipped, chunked, chunks_of, lines_of
from minigpt.edge.errors import InputError


@pytest.fixture
def trained(run, checkpoint, texts) -> str:
    how = ["--freeze-trunk", "--epochs", 2, "--weights", checkpoint, "--data", texts]
    assert run("train", *how, "--out", "trained")[0] == 0
    return "trained"


def test_a_file_is_answered_line_for_line_in_its_order(run, trained):
    """They are read 64 at a time, and each 64 are sorted by length for that."""
    lines = ["the " * (i % 23) + f"good {i}" for i in range(1000)]
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
        "latin-1; fix it, or skip such lines with --skip-bad\n"
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
    texts = map(str, itertools.count())  # endless, as a pipe may be
    first, second = itertools.islice(chunked(texts, CHUNK), 2)
    assert first + second == [str(i) for i in range(2 * CHUNK)] and len(first) == CHUNK == 64


@pytest.fixture
def stdin():
    """Return a function that puts bytes where a command reads its standard input."""
    with contextlib.ExitStack() as at_end:

        def put(content: bytes) -> None:
            Path("stdin").write_bytes(content)
            before, file = os.dup(0), os.open("stdin", os.O_RDONLY)
            at_end.callback(lambda: (os.dup2(before, 0), os.close(before)))
            os.dup2(file, 0)
            os.close(file)

        yield put


def test_arguments_and_files_are_read_64_at_a_time_and_stdin_line_by_line(stdin):
    Path("lines").write_text("".join(f"line {i}\n" for i in range(65)))
    stdin(b"one\ntwo\nthree\n")
    arguments = [f"text {i}" for i in range(70)]
    how = {"skip_bad": False, "encoding": None, "text_column": None}
    args = argparse.Namespace(texts=[*arguments, "-", "last"], file="lines", **how)
    lists = [texts for texts in chunks_of(args, Skipped()) if texts]
    assert [len(texts) for texts in lists] == [64, 6, 1, 1, 1, 1, 64, 1]
    lines = [f"line {i}" for i in range(65)]
    assert [*itertools.chain(*lists)] == [*arguments, "one", "two", "three", "last", *lines]


def test_arguments_and_stdin_are_answered_in_their_order(run, trained, stdin):
    stdin(b"second\r\n\nfourth\n")
    status, out, err = run("predict", trained, "the good first", "-", "the bad last")
    assert status == 0, err
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[2] for row in rows] == ["the good first", "second", "", "fourth", "the bad last"]
    assert all(row[0] in ("yes", "no") and 0.5 <= float(row[1]) <= 1 for row in rows)


def test_each_line_of_a_pipe_is_answered_before_the_next_one_comes(trained):
    command = [sys.executable, "-m", "minigpt", "predict", trained, "-"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, env=env, **streams) as process:
        try:
            for text in (b"the good one", b"", b"the bad one"):
                process.stdin.write(text + b"\n")
                assert process.stdout.readline().split(b"\t")[2] == text + b"\n"
            process.stdin.close()
            assert process.stdout.read() == b"" and process.wait(60) == 0
        finally:
            process.kill()


def test_what_comes_before_a_bad_line_of_a_pipe_is_answered_too(run, trained, stdin):
    stdin(b"one\ntwo\n" + BAD_LINE + b"\nthree\n")
    status, out, err = run("predict", trained, "zero", "-", "four")
    assert status == 2 and [line.split("\t")[2] for line in out.splitlines()] == [
        *("zero", "one", "two")
    ]
    assert err.startswith("error: stdin, line 3: not UTF-8")


def test_however_many_lines_are_bad_memory_holds_a_few_of_their_names():
    bad = Skipped()
    for i in range(10_000):
        bad.add(f"line {i}")
    assert (bad.count, bad.first) == (10_000, ["line 0", "line 1", "line 2"])


def test_long_texts_come_in_short_lists():
    """What is held in memory does not grow with the number of texts in a list."""
    texts = ("x" * 2**20 for _ in itertools.count())
    sizes = [sum(map(len, chunk)) for chunk in itertools.islice(chunked(texts, CHUNK), 3)]
    assert max(sizes) <= LONGEST_LINE < CHUNK * 2**20


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


@pytest.mark.parametrize(
    "text", ["", "<|endoftext|>", "\0\x1b", "x " * 5000, "שלום 👩‍👩‍👧 e\u0301", "\ud800"]
)
def test_any_text_gets_the_same_answer_alone_and_in_a_batch(text, run, trained):
    def answer(*texts):
        status, out, err = run("predict", trained, "--json", *texts)
        assert status == 0, err
        return json.loads(out.splitlines()[0])["probabilities"]

    alone, in_batch = answer(text), answer(text, "good", "the " * 50)
    assert all(abs(alone[label] - in_batch[label]) < 1e-5 for label in alone)


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "no text"),
        (["--file", "nowhere"], "nowhere: No such file"),
        (["--file", "latin-1.txt"], "not UTF-8"),
    ],
)
def test_texts_that_are_not_there_or_not_text_get_one_line_and_status_2(
    flags, message, run, trained
):
    Path("latin-1.txt").write_bytes(BAD_LINE + b"\n")
    status, _, err = run("predict", trained, *flags)
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_texts_that_are_empty_or_unlike_those_of_train_get_a_word_on_stderr(run, trained):
    about = json.loads(Path("trained", "run.json").read_text())
    least, most = about["train_lengths"]  # in tokens, of which "a" is one
    like = ["a" * least, "a" * (2 * most)]
    assert run("predict", trained, *like)[2] == ""
    status, out, err = run("predict", trained, *like, "", " \t", "a" * (2 * most + 1))
    assert status == 0 and out.count("\n") == 5
    assert err == (
        "2 of 5 texts are empty: their answer means nothing\n"
        "1 of 5 texts are much shorter or longer than all it was trained on, "
        f"{least} to {most} tokens: do not trust their answers\n"
    )
    about["train_lengths"] = [100, 200]
    Path("trained", "run.json").write_text(json.dumps(about))
    assert "1 of 1 texts are much shorter" in run("predict", trained, "a" * 49)[2]
    assert run("predict", trained, "a" * 50)[2] == ""
    del about["train_lengths"]  # a run of an earlier version
    Path("trained", "run.json").write_text(json.dumps(about))
    assert run("predict", trained, "a")[2] == ""


def spoil(folder: str, file: str, change) -> None:
    path = Path(folder, file)
    path.write_text(change(path.read_text()), encoding="utf-8")


BAD_RUNS = {
    "no such run": lambda: shutil.rmtree("trained"),
    "trained: no such run": lambda: Path("trained/run.json").unlink(),
    "run.json: not JSON": lambda: spoil("trained", "run.json", lambda text: text[:100]),
    "was trained on weights with sha256": lambda: spoil(
        "trained", "run.json", lambda text: text.replace('"sha256": "', '"sha256": "0')
    ),
    "learned.safetensors cannot be read": lambda: Path("trained/learned.safetensors").write_bytes(
        Path("trained/learned.safetensors").read_bytes()[:-5]
    ),
    "learned.safetensors is not what was written": lambda: save_file(
        {"score.weight": torch.zeros(2, 24)}, "trained/learned.safetensors"
    ),
    "does not fit": lambda: save_file(
        {"score.weight": torch.zeros(3, 24)}, "trained/learned.safetensors"
    ),
    "a folder, or ORG/REPO": lambda: shutil.rmtree("checkpoint"),
}


@pytest.mark.parametrize("message", BAD_RUNS)
def test_a_run_that_cannot_be_trusted_is_refused_in_one_line(message, run, trained):
    BAD_RUNS[message]()
    status, out, err = run("predict", trained, "good")
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err


BAD_RECIPES = [
    ({"lora": "3"}, "recipe.lora is '3', not a whole number"),
    ({"lora": True}, "recipe.lora is True, not a whole number"),
    (LORA | {"lora_on": None}, "recipe.lora_on is None, not a text"),
    (LORA | {"lora_alpha": float("inf")}, "recipe.lora_alpha is inf, not a number above 0"),
    (LORA | {"in_last": 1.0}, "recipe.in_last is 1.0, not a whole number"),
    ({"prompt": 3.0}, "recipe.prompt is 3.0, not a whole number"),
    ({"prompt": 1000}, "run.json does not fit its weights"),
    (LORA, "does not fit: h.0.attn.c_attn.lora_A"),
    ({"prompt": 3}, "does not fit: wte.prompt"),
]


@pytest.mark.parametrize("change, message", BAD_RECIPES, ids=str)
def test_a_recipe_that_the_run_never_had_is_refused(change, message, run, trained):
    """What it names would be added, with random values, and change every answer."""
    saved = json.loads(Path("trained/run.json").read_text())
    saved["recipe"] |= {"max_length": 30} | change
    Path("trained/run.json").write_text(json.dumps(saved))
    status, out, err = run("predict", trained, "good")
    assert (status, out) == (2, "") and err.count("\n") == 1 and message in err


def test_where_the_first_line_is_a_json_object_none_is_taken_for_a_text(run, trained):
    Path("objects.txt").write_text('{"text": "a"}\nthe good one\n{"text": "b"}\n')
    status, out, err = run("predict", trained, "--file", "objects.txt", "--skip-bad")
    assert status == 0 and out.count("\n") == 1 and out.endswith("the good one\n")
    assert "skipped 2 bad lines" in err
    status, out, err = run("predict", trained, "--file", "objects.txt")
    assert (status, out) == (2, "") and "save it as a .jsonl file" in err
