"""What a run writes as it goes: its history, and the state from which it can be resumed.

history.jsonl       a line for each evaluation
state.safetensors   all that is needed to continue (snapshot.py): tensors, and in the header JSON

The state is one file, so that one rename replaces it whole: there is no moment between two files.
It contains the history, too; history.jsonl is written after it. Once a run is finished, the state
is removed and run.json is written.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from shlex import quote

import safetensors
import safetensors.torch
import torch

from minigpt.checkpoints.find import Checkpoint
from minigpt.data import Tokens
from minigpt.edge import fields, files
from minigpt.edge.checkout import train_command
from minigpt.edge.errors import InputError, Stopped
from minigpt.fast.frozen import sha256_of_ids
from minigpt.fit import Training, fit
from minigpt.head import ConditionedHeads
from minigpt.parallel.group import GROUP_OF_ONE, Group
from minigpt.runs.report import Clock
from minigpt.runs.snapshot import restore, snapshot
from minigpt.runs.watch import NotFinite, Signals, check, finite, not_finite, progress

STATE, HISTORY = "state.safetensors", "history.jsonl"
FORMAT = 4  # of the state: raise it when older ones can no longer be read
STEPS_BETWEEN_MESSAGES = 100  # of a head, in a group: it saves and stops together


@dataclasses.dataclass(frozen=True)
class State:
    """A run between two steps, as it was saved."""

    phase: str
    step: int
    seconds: float  # that this phase has taken
    history: list[dict]  # of all phases
    tensors: dict[str, torch.Tensor]


class Journal:
    """Saves a run every so many seconds and at evaluations, and stops it between two steps.

    Without a folder, nothing is written, and signals are not waited for. The processes of a group
    each have one, and the first of them writes.
    """

    def __init__(
        self,
        folder: Path | None = None,
        numbered: bool = False,  # a number is added to its name if that is taken
        header: dict | None = None,  # what was typed, and what a resumed run must find unchanged
        every: float = 60.0,  # seconds
        group: Group = GROUP_OF_ONE,
        clock: Clock | None = None,
        quiet: bool = True,
        state: State | None = None,  # where a resumed run continues
    ):
        self.folder, self.numbered, self.header, self.every = folder, numbered, header, every
        self.group, self.clock, self.quiet, self.state = group, clock or Clock(), quiet, state
        self.history = list(state.history) if state else []  # of all phases
        self.step = state.step if state else None  # of the last state on disk
        self.phase, self.began, self.saved_at = "", time.monotonic(), time.monotonic()
        self.saved_step = None  # the last one saved, also by another process
        self.unread = []  # of the last steps, what has not yet been checked: see watch.finite
        self.lock = files.lock(folder) if state and self.writes else None

    @property
    def writes(self) -> bool:
        return self.folder is not None and self.group.rank == 0

    @property
    def at_evaluations(self) -> float:
        """The seconds that must be between two states at evaluations: a head has many in one."""
        return min(self.every, 1.0) if self.phase == "head" else 0.0

    @property
    def trains_alone(self) -> bool:
        """Whether each process takes all steps: those of a head take less time than a message."""
        return self.group.size > 1 and self.phase == "head"

    def run(self, phase: str):
        """Return a function that trains to the end: checked, saved and shown, or resumed."""

        def run(t: Training, train, dev) -> None:
            self.phase, self.began, self.saved_step = phase, time.monotonic(), None
            if self.state:
                self.resume(t)
            self.unread.clear()
            group = GROUP_OF_ONE if self.trains_alone else self.group
            steps = finite(fit(t, train, dev, group), t, self.unread)
            hide = self.quiet or self.group.rank > 0
            here = threading.current_thread() is threading.main_thread()  # no other has signals
            signals = Signals(self.writes) if self.folder and here else None
            try:
                with signals or contextlib.nullcontext():
                    for _ in progress(self.saved(steps, t, signals), t, len(train), hide):
                        pass
                    if signals and signals.received:  # after the last step
                        raise Stopped(signals.received)
            except NotFinite as error:
                self.note_failure(str(error))
                raise InputError(f"{error}{self.where()}") from None
            self.clock.lap("fit")

        return run

    def resume(self, t: Training) -> None:
        """Put the saved state into a training of the same phase. Raises InputError."""
        state, self.state = self.state, None
        lines = [
            {name: value for name, value in line.items() if name != "phase"}
            for line in state.history
            if line["phase"] == self.phase
        ]
        taken = state.step - (len(lines) - 1) * t.steps_per_epoch  # of the epoch that was left
        fits = lines and 0 <= taken <= t.steps_per_epoch and state.step <= t.steps
        heads = len(t.model.V) if isinstance(t.model, ConditionedHeads) else 0
        fits = fits and all(line["head"] < heads if "head" in line else not heads for line in lines)
        if state.phase != self.phase or not fits:
            raise InputError(f"{self.folder / STATE} is of another kind of run; start a new one")
        t.step, t.history = state.step, lines
        restore(state.tensors, t, self.group)
        state.tensors.clear()  # which may be gigabytes
        self.began -= state.seconds

    def is_past(self, phase: str) -> bool:
        """Return whether a resumed run has already finished a phase."""
        return self.state is not None and self.state.phase != phase

    def saved(self, steps, t: Training, signals: Signals | None):
        """Yield each step, having saved it if it is time to; stop if a signal was received."""
        for _ in steps:
            every = self.every
            if not t.losses:  # it was an evaluation
                if t.step:
                    t.history[-1]["seconds"] = round(time.monotonic() - self.began, 3)
                self.history.append({"phase": self.phase} | t.history[-1])
                every, self.saved_step = self.at_evaluations, None
            self.pause(t, signals, every)
            yield t

    def history_text(self, *more: dict) -> str:
        """Return what history.jsonl has."""
        return "".join(json.dumps(line) + "\n" for line in (*self.history, *more))

    def note_failure(self, why: str) -> None:
        """Say in the history that the training went wrong, for whoever opens the folder later."""
        if self.writes and self.step is not None:
            text = self.history_text({"phase": self.phase, "failed": why})
            with contextlib.suppress(OSError):
                files.write(self.folder / HISTORY, text)

    def save(self, t: Training) -> None:
        """Write the state. Raises InputError if it cannot be written; the last one stays."""
        check(self.unread, t)
        tensors = snapshot(t, self.group) if self.folder else {}
        if not all(tensors[n].isfinite().all() for n in tensors if n.startswith("weights.")):
            raise not_finite("norm of the weights", t.step, t)
        self.saved_step = t.step
        if not self.writes:
            return
        self.clock.lap("fit")
        header = self.header | {"format": FORMAT, "phase": self.phase, "step": t.step}
        header |= {"history": self.history, "seconds": time.monotonic() - self.began}
        state = (tensors, {"state": json.dumps(header | {"laps": self.clock.laps})})
        with self.writing():
            if self.step is not None:
                files.write(self.folder / STATE, *state)
                self.step = t.step
                files.write(self.folder / HISTORY, self.history_text())
            else:  # the state first: with it, the folder can be resumed
                contents = {STATE: state, HISTORY: self.history_text()}
                self.folder = files.write_folder(self.folder, contents, self.numbered)
                self.lock = files.lock(self.folder)
        self.step, self.saved_at = t.step, time.monotonic()

    @contextlib.contextmanager
    def writing(self):
        """Say what is still there when something cannot be written."""
        try:
            yield
        except OSError as error:
            text = f"{self.folder} cannot be written ({error.strerror}){self.where()}"
            if self.step is not None:
                text += f"; once that is fixed, resume: {self.command()}"
            raise InputError(text) from None

    def pause(self, t: Training, signals: Signals | None, every: float) -> None:
        """Between two steps: save if it is time to, and stop if a signal was received.

        The processes of a group do this together, if one of them has a reason.
        """
        if self.trains_alone and t.losses and t.step % STEPS_BETWEEN_MESSAGES:
            return
        received = signals.received if signals else None
        late = self.writes and (self.step is None or time.monotonic() - self.saved_at >= every)
        reasons = torch.tensor([float(late), float(received is not None)])
        if self.group.size > 1:
            reasons = reasons.to(self.group.device)
            self.group.all_reduce([reasons])
        late, stop = reasons.tolist()
        if (late or stop) and self.saved_step != t.step:
            self.save(t)
        if stop:
            raise Stopped(received or signal.SIGTERM)

    def finish(self, save) -> None:
        """Have save(folder) write the results; nothing is left to resume afterwards."""
        if self.writes:
            with self.writing():
                files.write(self.folder / HISTORY, self.history_text())
                save(self.folder)
            self.step = None

    def where(self) -> str:
        """Return where the last state is, if there is one, as the end of a sentence."""
        return "" if self.step is None else f"; the state of step {self.step} is in {self.folder}"

    def command(self) -> str:
        """Return the command that resumes from there."""
        return f"{train_command(self.group.size)} --resume={quote(str(self.folder))}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        """Say how to resume, if the run ends early."""
        if self.lock is not None:
            os.close(self.lock)
        if isinstance(error, KeyboardInterrupt) and self.writes and self.step is not None:
            message = f"stopped; step {self.step} is saved. To resume: {self.command()}"
            raise Stopped(getattr(error, "number", signal.SIGINT), message) from None


def sha256_of_data(labels: tuple[str, ...], *splits: Tokens) -> str:
    """Return a hash of data as a model reads it: names of the classes, ids, and classes."""
    parts = [(sha256_of_ids(texts), texts.labels.tolist()) for texts in splits]
    return hashlib.sha256(repr((labels, parts)).encode("utf-8", "surrogatepass")).hexdigest()


def open_journal(
    typed,
    settings: dict,
    folder: Path,
    checkpoint: Checkpoint,
    data: str,
    group: Group,
    clock: Clock,
) -> Journal:
    """Return the journal of a new run, or with --resume that of one that was stopped.

    `typed` are the flags of train.py as they were typed, `settings` what they were settled to, and
    `data` is a hash of the texts. Raises InputError for a run that cannot be resumed.
    """
    argv = typed.argv
    if not typed.resume:  # what is found or chosen now must be found again from another folder
        names = ("weights", "data", "device", "dtype")
        argv = [*argv, *(f"--{name}={settings[name]}" for name in names)]
    own = ("out", "quiet", "save_every")
    same = {name: value for name, value in settings.items() if name not in own}
    header = {"typed": argv, "weights": checkpoint.sha256, "texts": data, "processes": group.size}
    header["settings"] = json.loads(json.dumps(same))
    state = read_state(folder, header, clock) if typed.resume else None
    numbered = typed.out is None and not typed.resume
    return Journal(folder, numbered, header, typed.save_every, group, clock, typed.quiet, state)


MEND = "start the run again, or bring it back from a copy"
FIELDS = {
    "format": fields.one_of(FORMAT),
    "phase": fields.text,
    "step": fields.whole(),
    "seconds": fields.number(),
    "history": fields.array,
    "history.*.phase": fields.text,
    "history.*.dev_loss": fields.number(),
    "history.*.dev_accuracy": fields.number(),
    "history.*.head": fields.optional(fields.whole()),
    **{f"laps.{part}": fields.number() for part in Clock().laps},
    "weights": fields.text,
    "texts": fields.text,
    "processes": fields.whole(1),
    "settings": fields.table,
    "typed": fields.array,
    "typed.*": fields.text,
}


def failure_of(folder: Path) -> str | None:
    """Return why the training of a run went wrong, if its history ends by saying so."""
    path = files.part_of(folder, HISTORY)
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        last = json.loads(lines[-1]) if lines else {}
    except (ValueError, RecursionError):
        return None
    failed = last.get("failed") if isinstance(last, dict) else None
    return failed if isinstance(failed, str) else None


def read_header(folder: Path) -> dict:
    """Return the header of a run's state, every field checked. Raises InputError."""
    path = files.part_of(folder, STATE)
    if not path.is_file():
        if (folder / "run.json").is_file():
            raise InputError(f"{folder} is a finished run: there is nothing left to resume")
        raise InputError(f"{folder} holds no state to resume from; start the run again")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        header = json.loads(metadata.get("state", ""))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {MEND}") from None
    if type(header) is dict and header.get("format") in range(1, FORMAT):
        raise InputError(f"{path} was saved by an earlier minigpt and cannot be resumed; {MEND}")
    return fields.check(path, header, FIELDS, MEND)


def read_state(folder: Path, now: dict, clock: Clock) -> State:
    """Return the state of a run that was stopped; its clock is continued.

    Raises InputError unless weights, texts and processes are what they were: `now` says what they
    are now.
    """
    header, path = read_header(folder), folder / STATE
    for name, value in now.items():
        if name != "typed" and header[name] != value:
            message = f"{folder} was started with other {name}"
            if name == "processes":
                message = f"{folder} was started with {header[name]} processes: resume with as many"
            raise InputError(f"{message}; bring them back, or start a new run")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); start the run again") from None
    clock.go_on(header["laps"])
    own = {name: header[name] for name in ("phase", "step", "seconds", "history")}
    return State(**own, tensors=tensors)
