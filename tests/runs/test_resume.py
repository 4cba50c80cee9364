"""A run that was stopped, or robbed of its disk, goes on as if nothing had happened."""

import errno
import gc
import itertools
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from common import IN_INT8, POLICIES, outcome
from safetensors.torch import load_file, save_file

import train
from minigpt.cli.program import errors_for_people
from minigpt.cli.train_flags import parse
from minigpt.parallel import Group
from minigpt.runs import Clock
from minigpt.runs.journal import read_header


def how_to_resume(folder) -> str:
    return f"python -m minigpt train --resume={Path(folder).resolve()}"


class InEachStep(Group):
    """One process. Where several would add up their gradients, it calls act(step, parameters).

    Steps are counted from 1, over all phases of a run.
    """

    def __init__(self, act):
        super().__init__()
        object.__setattr__(self, "act", act)  # groups are frozen
        object.__setattr__(self, "steps", itertools.count(1))

    def add_up(self, total, parameters):
        self.act(next(self.steps), parameters)


@pytest.fixture
def train_while(monkeypatch, capsys, tmp_path):
    """Run train.py in an empty folder, calling act(step, parameters) in the middle of each step.

    Returns (exit status, stdout, stderr).
    """
    monkeypatch.chdir(tmp_path)

    def call(act, *flags):
        capsys.readouterr()
        status = 0
        try:
            with errors_for_people():
                train.job(parse("", [*map(str, flags)]), Clock(), InEachStep(act))
        except SystemExit as exit:
            status = exit.code or 0
        return status, *capsys.readouterr()

    return call


def interrupt_at(step: int):
    """Return what does as Ctrl-C does, pressed twice in the middle of a step."""

    def act(now, _):
        if now == step:
            raise KeyboardInterrupt

    return act


@pytest.mark.parametrize("flags", [*POLICIES, IN_INT8], ids=" ".join)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    flags, run, train_while, checkpoint, texts
):
    """For every policy and every tuning method; stopped in the first epoch, and in a later one."""
    how = ["--weights", checkpoint, "--data", texts, *flags, "--epochs", 3, "--save-every", "0"]
    status, _, err = run("train", *how, "--out", "whole")
    assert status == 0, err
    status, _, err = train_while(interrupt_at(3), *how, "--out", "parts")
    assert status == 130 and f"step 2 is saved. To resume: {how_to_resume('parts')}" in err
    later = interrupt_at(10 if "--warm-head" in flags else 4)  # steps of this process
    status, _, err = train_while(later, "--resume", "parts")
    assert status == 130 and "is saved" in err
    assert not Path("parts/run.json").exists()
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err
    assert outcome("parts") == outcome("whole")


def test_a_run_stopped_between_its_phases_goes_on_with_the_second(
    run, train_while, checkpoint, texts
):
    """With the head trained, and the trunk's first step not yet taken."""
    how = ["--weights", checkpoint, "--data", texts, "--warm-head", 2, "--epochs", 1]
    run("train", *how, "--out", "whole")
    status, _, err = train_while(interrupt_at(11), *how, "--out", "parts")
    assert status == 130 and "step 0 is saved" in err
    steps = []
    status, _, err = train_while(lambda step, _: steps.append(step), "--resume", "parts")
    assert len(steps) == 5  # of the trunk, and none of the head
    assert status == 0, err
    assert outcome("parts") == outcome("whole")


def test_the_state_is_as_old_as_save_every_says_or_the_last_evaluation(
    train_while, checkpoint, texts
):
    """160 texts are 5 steps an epoch."""
    how = ["--weights", checkpoint, "--data", texts]
    for every, step in (("0", 8), ("3600", 5)):
        stop, out = interrupt_at(9), ["--out", every]
        _, _, err = train_while(stop, *how, "--save-every", every, *out)
        assert f"step {step} is saved" in err
        lines = Path(every, "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [0, 1]


class Disk:
    """Counts what is done to a folder's files, and has one of these things fail."""

    def __init__(self):
        self.home, self.fails_at, self.done, self.error = None, None, [], 0
        sys.addaudithook(self.audit)  # a hook stays: without a home, it does nothing

    def audit(self, event: str, args: tuple):
        written = event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if self.home and (written or event in ("os.rename", "os.mkdir", "os.chmod", "os.truncate")):
            self.touch(event, args[0])

    def touch(self, event: str, path) -> None:
        if isinstance(path, str | Path) and os.path.abspath(path).startswith(self.home):
            self.done.append(event)
            if len(self.done) - 1 == self.fails_at:
                raise OSError(self.error, os.strerror(self.error), str(path))


DISK = Disk()


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Give a disk on which what is written below tmp_path can fail."""
    fsync, save = os.fsync, safetensors.torch.save_file

    def failing_fsync(handle):
        DISK.touch("fsync", os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def failing_save(tensors, path, about):
        DISK.touch("save_file", path)
        save(tensors, path, about)

    if not Path("/proc/self/fd").exists():
        pytest.skip("it takes Linux to know which file a handle is of")
    monkeypatch.setattr(os, "fsync", failing_fsync)
    monkeypatch.setattr(safetensors.torch, "save_file", failing_save)
    yield DISK
    DISK.home = None


def test_whatever_cannot_be_written_a_run_says_so_and_goes_on_later(
    run, checkpoint, texts, tmp_path, disk
):
    """Each write is made to fail, one after the other: a full disk, a lost right, a broken one."""
    how = ["--weights", checkpoint, "--data", texts, "--train-last", 1, "--batch-size", 80]
    how += ["--epochs", 1, "--save-every", 0, "--quiet"]

    def attempt(fails_at, *flags):
        disk.fails_at, disk.done, disk.home = fails_at, [], str(tmp_path / "runs")
        status, _, err = run("train", *flags)
        disk.home = None
        return status, err

    Path("runs").mkdir()
    status, err = attempt(None, *how, "--out", "runs/whole")
    assert status == 0, err
    writes = disk.done
    assert {"open", "save_file", "fsync", "os.rename", "os.mkdir"} <= {*writes}
    for n, disk.error in zip(
        range(len(writes)), itertools.cycle((errno.ENOSPC, errno.EACCES, errno.EIO)), strict=False
    ):
        folder = Path("runs", str(n))
        status, err = attempt(n, *how, "--out", folder)
        if status == 0:  # to make a folder that is there may fail
            assert writes[n] == "os.mkdir"
            continue
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, (n, err)
        assert os.strerror(disk.error) in err
        if folder.exists():
            assert not (folder / "run.json").exists() or (folder / "state.safetensors").exists()
            assert how_to_resume(folder) in err
            status, err = attempt(None, "--resume", folder)
        else:
            status, err = attempt(None, *how, "--out", folder)
        assert status == 0, (n, err)
        assert outcome(folder) == outcome("runs/whole")
    assert len(writes) > 40


def test_a_real_disk_that_is_full_is_no_different(run, checkpoint, texts, monkeypatch):
    """The system lets no file grow beyond a limit: the first state fits, a later one does not."""
    resource = pytest.importorskip("resource")
    how = ["--weights", checkpoint, "--data", texts, "--epochs", 2, "--quiet"]
    run("train", *how, "--out", "whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))  # weights, no moments
    try:
        status, _, err = run("train", *how, "--out", "parts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2 and err.count("\n") == 1 and "too large" in err.lower()
    assert f"the state of step 0 is in {Path('parts').resolve()}" in err
    assert not list(Path("parts").glob(".new-*"))
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err
    assert outcome("parts") == outcome("whole")


def in_header(change):
    """Return what changes the JSON of parts/state.safetensors by a function."""

    def spoil():
        header = read_header(Path("parts"))
        change(header)
        tensors = load_file("parts/state.safetensors")
        save_file(tensors, "parts/state.safetensors", {"state": json.dumps(header)})

    return spoil


def in_tensors(change):
    """Return what changes the tensors of parts/state.safetensors by a function."""

    def spoil():
        header, tensors = read_header(Path("parts")), load_file("parts/state.safetensors")
        change(tensors)
        save_file(tensors, "parts/state.safetensors", {"state": json.dumps(header)})

    return spoil


def cut(name: str, by: int = 10):
    path = Path(name)
    return lambda: path.write_bytes(path.read_bytes()[:-by])


BAD_STATES = {
    "holds no state to resume from": lambda: Path("parts/state.safetensors").unlink(),
    "state.safetensors cannot be read": cut("parts/state.safetensors"),
    "format is 5, not 4; start": in_header(lambda header: header.update(format=5)),
    "was saved by an earlier minigpt": in_header(lambda header: header.update(format=3)),
    "history.1.phase is missing": in_header(lambda header: header["history"].append(7)),
    "started with 2 processes": in_header(lambda header: header.update(processes=2)),
    "with other weights": in_header(lambda header: header.update(weights="0")),
    "with other texts": cut("texts.tsv", by=1),
    "with other settings": in_header(lambda header: header["settings"].update(lr=1e-9)),
    "invalid whole number value: 'many'": in_header(lambda h: h["typed"].append("--epochs=many")),
    "unrecognized arguments": in_header(lambda header: header["typed"].append("--surprise")),
    "typed.0 is 7, not a text": in_header(lambda header: header["typed"].insert(0, 7)),
    "is of another kind of run": in_header(lambda header: header.update(phase="head")),
    "another kind": in_header(lambda header: header.update(step=10**9)),
    "does not fit: weights.score": in_tensors(
        lambda t: t.update({"weights.score.weight": torch.zeros(2, 25)})
    ),
    "does not fit: losses": in_tensors(lambda t: t.pop("losses")),
    "does not fit: exp_avg.score": in_tensors(lambda t: t["exp_avg.score.weight"].fill_(torch.nan)),
    "does not fit: random": in_tensors(lambda t: t["random.0.cpu"].fill_(255)),
}


@pytest.mark.parametrize("message", BAD_STATES)
def test_a_state_that_cannot_be_gone_on_from_is_refused_in_one_line(
    message, run, train_while, checkpoint, texts
):
    how = ["--weights", checkpoint, "--data", texts, "--train-last", 1, "--save-every", 0]
    train_while(interrupt_at(4), *how, "--out", "parts")
    BAD_STATES[message]()
    status, _, err = run("train", "--resume", "parts")
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--resume", "whole"], "whole is a finished run"),
        (["--resume", "nowhere"], "nowhere holds no state"),
        (["--resume", "parts", "--lr", "1"], "has the flags of RUN"),
        (["--resume", "parts", "--seed=0"], "has the flags of RUN"),  # even with its default
        (["--resume", "parts", "--weights", "tiny"], "has the flags of RUN"),
        (["--resume="], "it is empty"),
        (["--save-every", "-1"], "-1 is not 0.0 or more"),
    ],
)
def test_resuming_what_cannot_be_gets_one_line(flags, message, run, train_while, checkpoint, texts):
    how = ["--weights", checkpoint, "--data", texts, "--train-last", 1, "--epochs", 1]
    run("train", *how, "--out", "whole")
    train_while(interrupt_at(2), *how, "--out", "parts")
    status, _, err = run("train", *flags)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_an_unfinished_run_does_not_predict_and_says_how_to_finish_it(
    run, train_while, checkpoint, texts
):
    train_while(interrupt_at(2), "--weights", checkpoint, "--data", texts, "--out", "parts")
    status, out, err = run("predict", "parts", "a text")
    assert (status, out) == (2, "") and "-m minigpt train --resume=parts" in err


def test_a_link_in_an_unfinished_files_place_is_not_written_through(
    run, train_while, checkpoint, texts
):
    how = ["--weights", checkpoint, "--data", texts, "--epochs", 1, "--out", "parts"]
    train_while(interrupt_at(2), *how)
    Path("precious").write_text("precious")
    for name in ("history.jsonl", "state.safetensors", "learned.safetensors", "run.json"):
        Path("parts", f".new-{name}").symlink_to(Path("precious").resolve())
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err
    assert Path("precious").read_text() == "precious"


def test_a_run_that_is_being_written_cannot_be_resumed_by_another(
    run, train_while, checkpoint, texts
):
    pytest.importorskip("fcntl")
    answers = []

    def resume_it_too(step, _):
        if step == 1:
            answers.append(run("train", "--resume", "parts"))

    how = ["--weights", checkpoint, "--data", texts, "--epochs", 1, "--out", "parts"]
    assert train_while(resume_it_too, *how)[0] == 0
    ((status, _, err),) = answers
    assert status == 2 and "is being written by another process" in err


def test_a_signal_stops_the_run_where_nobody_reads_what_is_printed(
    train_while, checkpoint, texts, monkeypatch
):
    """As with `2>&1 | tee log`, where Ctrl-C ends tee first: what is printed fails."""

    class Closed:
        def write(self, _):
            raise BrokenPipeError

        def flush(self):
            pass

        def reconfigure(self, **_):
            pass

    taken = []

    def press_ctrl_c(step, _):
        taken.append(step)
        if step == 4:
            monkeypatch.setattr("sys.stderr", Closed())
            signal.raise_signal(signal.SIGINT)

    how = ["--weights", checkpoint, "--data", texts, "--out", "parts"]
    status, _, _ = train_while(press_ctrl_c, *how)
    assert status == 130 and len(taken) == 4
    assert read_header(Path("parts"))["step"] == 4


def test_an_update_that_is_not_finite_is_not_saved(run, checkpoint, texts):
    """Loss and gradient of the first step are finite, and the weights after it are not."""
    how = ["--weights", checkpoint, "--data", texts, "--warmup", 0, "--lr", 1e38, "--epochs", 1]
    status, _, err = run("train", *how, "--save-every", 0, "--out", "parts")
    assert status == 2 and "is not finite (NaN or inf) at step 1" in err and "--lr 1e+38" in err
    assert read_header(Path("parts"))["step"] == 0


@pytest.mark.parametrize("out", ["my run", "=-x", "empty", "link"])
def test_wherever_a_run_is_the_line_that_it_prints_goes_on_with_it(
    out, run, train_while, checkpoint, texts
):
    """A name with a space, one like a flag, an empty folder, a link to one."""
    Path("empty").mkdir()
    Path("link").symlink_to("empty")
    flag = f"--out{out}" if out[0] == "=" else f"--out={out}"
    how = ["--weights", checkpoint, "--data", texts, "--epochs", 1, flag]
    status, _, err = train_while(interrupt_at(2), *how)
    assert status == 130
    command = shlex.split(err[err.index("python -m minigpt train") :])
    status, _, err = run("train", *command[4:])
    assert status == 0, err


def test_data_is_found_again_from_another_folder_and_by_the_name_it_had(
    run, train_while, checkpoint, texts, monkeypatch
):
    """Bundled data has its name first, whatever lies around; a link keeps the name it has."""
    Path("mirrored").mkdir()
    Path("linked.tsv").symlink_to(texts.rename("blob"))
    Path("elsewhere").mkdir()
    for data, policy in (("mirrored", "--freeze-trunk"), ("linked.tsv", "--train-last=1")):
        how = ["--weights", checkpoint, "--data", data, policy, "--epochs", 1]
        train_while(interrupt_at(2), *how, "--out", f"of {data}")
        monkeypatch.chdir("elsewhere")
        status, _, err = run("train", "--resume", f"../of {data}")
        assert status == 0, err
        monkeypatch.chdir("..")


def test_a_second_signal_within_a_step_does_not_wait_for_its_end(train_while, checkpoint, texts):
    def terminate_twice(step, _):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the step went on")

    how = ["--weights", checkpoint, "--data", texts, "--out", "parts"]
    status, _, err = train_while(terminate_twice, *how)
    assert status == 143 and "step 0 is saved" in err


def test_how_often_to_save_can_be_said_anew(train_while, checkpoint, texts):
    train_while(interrupt_at(4), "--weights", checkpoint, "--data", texts, "--out", "parts")
    assert read_header(Path("parts"))["step"] == 0
    train_while(interrupt_at(3), "--resume", "parts", "--save-every", 0)
    assert read_header(Path("parts"))["step"] == 2


def test_two_runs_with_the_same_flags_at_once_get_two_folders(run, train_while, checkpoint, texts):
    """The second begins, and ends, amid the first."""
    how = ["--weights", checkpoint, "--data", texts, "--epochs", 1, "--dropout", 0]

    def run_another(step, _):
        if step == 1:
            assert run("train", *how)[0] == 0

    assert train_while(run_another, *how)[0] == 0
    first, second = sorted(Path("runs").iterdir())
    assert second.name == first.name + "-2"
    assert outcome(first) == outcome(second)


def test_a_gradient_that_is_not_finite_stops_the_run_and_the_last_good_state_stays(
    run, train_while, checkpoint, texts
):
    """The loss is finite: the gradient alone overflows."""

    def overflow(step, parameters):
        if step == 4:
            parameters[0].grad[0] = torch.inf

    how = ["--weights", checkpoint, "--data", texts, "--save-every", 0, "--out", "parts"]
    status, _, err = train_while(overflow, *how)
    assert status == 2 and err.count("\n") == 1
    assert "is not finite (NaN or inf) at step 4 of 30 (learning rate" in err
    assert "try a tenth of" in err
    assert f"the state of step 3 is in {Path('parts').resolve()}" in err
    status, _, err = run("train", "--resume", "parts")
    assert status == 0, err


def test_ten_thousand_steps_take_no_more_memory_than_a_thousand(train_while, checkpoint, texts):
    """Measured in the middle of a run, after each thousand steps."""
    psutil = pytest.importorskip("psutil")
    steps, sizes = [], []

    def measure(step, _):
        if step % 1000 == 1:
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
        steps.append(step)

    how = ["--weights", checkpoint, "--data", texts, "--freeze-trunk", "--batch-size", 1]
    status, _, err = train_while(measure, *how, "--epochs", 63, "--quiet")
    assert status == 0, err
    assert len(steps) == 10080 and sizes[10] - sizes[1] < 2e6
