"""What the command line says: help, versions, what was meant, and what a folder is."""

import json
import os
from pathlib import Path

import pytest

from minigpt import __version__
from minigpt.cli.commands import COMMANDS, command
from minigpt.cli.train_flags import parser_of


@pytest.mark.parametrize(
    "argv, meant",
    [
        (["train", "--freeze_trunk"], "--freeze-trunk"),
        (["train", "--freezetrunk"], "--freeze-trunk"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--batch_size=3"], "--batch-size"),
        (["train", "--pool", "Last"], "last"),
        (["Predict", "run"], "predict"),
        (["evalute", "run"], "evaluate"),
        (["predict", "run", "--jsn", "x"], "--json"),
        (["evaluate", "run", "--data", "x", "--label_column", "y"], "--label-column"),
        (["generate", "x", "--temprature", "1"], "--temperature"),
    ],
)
def test_what_was_meant_is_asked(argv, meant, run):
    status, out, err = run(*argv)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"; did you mean {meant}? `" in err


def test_what_is_like_nothing_is_not_asked_about(run):
    for argv in (["train", "--colour", "red"], ["translate"], ["train", "--device", "tpu"]):
        status, _, err = run(*argv)
        assert status == 2 and "did you mean" not in err and "--help` lists the choices" in err


def test_every_command_has_a_line_and_both_programs_a_version(run):
    status, out, _ = run("--help")
    assert status == 0
    for name, does in COMMANDS.items():
        assert command(name).__doc__.splitlines()[0] == does
        assert f"  {name:10} {does}\n" in out
    for argv in (["--version"], ["train", "--version"]):
        assert run(*argv)[:2] == (0, f"minigpt {__version__}\n")


def helps(run, command: str) -> list[str]:
    """Return the help of each flag of a command, in one line each."""
    status, out, err = run(command, "--help")
    assert status == 0, err
    flags = []
    for line in out[out.index("\noptions:") :].splitlines():
        if line.startswith("  -"):
            flags.append(line)
        elif line.startswith("        ") and flags:
            flags[-1] += " " + line.strip()
        elif not line.startswith(" "):
            flags.append("")
    return [flag for flag in flags if flag and not flag.startswith(("  -h", "  --version"))]


@pytest.mark.parametrize("command", ["train", *COMMANDS])
def test_the_help_of_every_flag_has_its_default(command, run):
    required = {"evaluate": ["--data"], "export": ["--to"]}.get(command, [])
    flags = helps(run, command)
    assert flags
    for flag in flags:
        assert "default" in flag or flag.split()[0] in required, flag
        assert len(flag.split()) > 3, flag  # what it is, too


def test_the_columns_that_are_understood_stand_in_help():
    data = next(a for a in parser_of("")._actions if a.dest == "data").help
    assert all(column in data for column in ("text", "label", "split", "pair", "kind"))


def test_generate_continues_each_line_of_stdin(run, checkpoint):
    how = ["--weights", checkpoint, "--tokens", 4, "--temperature", 0]
    alone = [run("generate", text, *how)[1] for text in ("the good", "bad")]
    Path("lines").write_bytes(b"the good\r\nbad\n")
    before, file = os.dup(0), os.open("lines", os.O_RDONLY)
    os.dup2(file, 0)
    try:
        status, out, err = run("generate", "-", *how)
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(file)
    assert status == 0 and out == "".join(alone), err


@pytest.fixture
def trained(run, checkpoint, texts) -> str:
    how = ["--freeze-trunk", "--epochs", 1, "--weights", checkpoint, "--data", texts]
    assert run("train", *how, "--out", "trained")[0] == 0
    return "trained"


def test_a_run_is_known_where_weights_are_asked_for(run, trained, checkpoint):
    for argv in (["generate", "x"], ["train"]):
        status, out, err = run(*argv, "--weights", trained)
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert f"--weights trained is a run, a classifier on other weights ({checkpoint}); " in err
    Path(trained, "run.json").write_text("[]")
    assert "those that its run.json names" in run("generate", "x", "--weights", trained)[2]


def test_after_a_training_that_went_to_nan_predict_does_not_advise_to_resume(
    run, checkpoint, texts
):
    how = ["--weights", checkpoint, "--data", texts, "--train-last", 1, "--lr", 1e38]
    status, _, err = run("train", *how, "--out", "gone")
    assert status == 2 and "not finite (NaN or inf)" in err
    status, _, err = run("predict", "gone", "good")
    assert status == 2 and err.count("\n") == 1 and "--resume" not in err
    assert err.startswith("error: gone has no trained classifier: the ")
    assert "try a tenth of --lr 1e+38" in err


def test_a_history_that_says_nothing_of_it_changes_nothing(run, checkpoint, texts):
    how = ["--weights", checkpoint, "--data", texts, "--train-last", 1, "--lr", 1e38]
    run("train", *how, "--out", "gone")
    for content in ("", "[", "7\n", '{"failed": 7}\n', json.dumps({"phase": "trunk"}) + "\n"):
        Path("gone/history.jsonl").write_text(content)
        assert "--resume=gone" in run("predict", "gone", "good")[2]
    Path("gone/history.jsonl").write_bytes(b"\xff\n")
    assert "--resume=gone" in run("predict", "gone", "good")[2]


def test_a_file_without_header_is_said_and_the_classes_are_printed(run, checkpoint, texts):
    texts.write_text(texts.read_text().removeprefix("text\tlabel\n"))
    how = ["--weights", checkpoint, "--data", texts, "--freeze-trunk", "--epochs", 1]
    status, out, err = run("train", *how, "--max-length", 3)
    assert status == 0
    said = "there is no header; column 1 is the text, column 2 is the label\n"
    assert err.splitlines(True)[0] == f"{texts}: {said}"
    assert "\n2 classes: no, yes\n" in out
    (metrics,) = (json.loads(p.read_text()) for p in Path("runs").glob("*/metrics.json"))
    cut = metrics["data"]["truncated_by_split"]
    line = f"longer than 3 tokens, and cut: {cut['train']} of train, {cut['dev']} of dev, "
    assert out.count(line + f"{cut['test']} of test\n") == 2 and min(cut.values()) > 0
    assert sum(cut.values()) == metrics["data"]["truncated"]
