"""Runs that minigpt 0.1.0 made before its code was laid out anew: in tests/runs/earlier/."""

import json
import shutil
from pathlib import Path

import pytest

EARLIER = Path(__file__).with_name("earlier")


@pytest.fixture
def earlier(run, tmp_path):
    """Copy the runs, and the small checkpoint that they belong to, into the current folder."""
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    return run


@pytest.mark.parametrize("name", ["head", "lora"])
def test_a_finished_run_still_opens_and_gives_the_same_answers(name, earlier):
    answers = [json.loads(line) for line in Path(name, "answers.jsonl").read_text().splitlines()]
    texts = [answer["text"] for answer in answers]
    status, out, err = earlier("predict", name, "--json", *texts)
    assert status == 0, err
    for line, answer in zip(out.splitlines(), answers, strict=True):
        now = json.loads(line)
        assert (now["text"], now["label"]) == (answer["text"], answer["label"])
        assert now["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)


@pytest.mark.parametrize("name", ["head", "lora"])
def test_a_finished_run_is_still_exported(name, earlier):
    status, _, err = earlier("export", name, "--to", "exported")
    assert status == 0, err
    assert Path("exported/model.safetensors").is_file()


def test_a_stopped_run_is_refused_in_one_line(earlier):
    """Its state has the settled flags in place of what was typed, and no name for some of them."""
    status, _, err = earlier("train", "--resume", "stopped")
    assert status == 2 and err.count("\n") == 1
    assert "was saved by an earlier minigpt and cannot be resumed; start the run again" in err
