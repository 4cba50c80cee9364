"""What a run writes as it goes: its history, and the state from which it can be taken up again.

history.jsonl       a line for each evaluation, appended
state.safetensors   all it takes to go on (state.py): tensors, and in the header JSON

The state is one file, so that one rename makes it whole: there is no moment between two files.
Once a run is finished, the state is gone and run.json is there. Knows nothing of what it saves.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import safetensors
import safetensors.torch
import torch

from minigpt.edge import fields, files
from minigpt.edge.errors import InputError, Stopped
from minigpt.parallel.group import ALONE, Group
from minigpt.runs.report import Clock

STATE, HISTORY = "state.safetensors", "history.jsonl"
FORMAT = 1  # of the state: raise it when older ones can no longer be read


@dataclasses.dataclass(frozen=True)
class State:
    """A run between two steps, as it was saved."""

    phase: str
    step: int
    seconds: float  # that this phase has taken
    history: list[dict]  # of all phases
    tensors: dict[str, torch.Tensor]


class Journal:
    """Saves a run every so many seconds and at each evaluation, and stops it between two steps.

    Without a folder, nothing is written and nothing stops. The processes of a group each have one,
    and the first of them writes.
    """

    def __init__(
        self,
        folder: Path | None = None,
        numbered: bool = False,  # a number is added to its name if that is taken
        about: dict | None = None,  # what a resumed run must find unchanged, and its flags
        every: float = 60.0,  # seconds
        group: Group = ALONE,
        clock: Clock | None = None,
        found: State | None = None,  # where a resumed run goes on
    ):
        self.folder, self.numbered, self.about, self.every = folder, numbered, about, every
        self.group, self.clock, self.found = group, clock, found
        self.history = list(found.history) if found else []  # of all phases
        self.step = found.step if found else None  # of the last state on disk
        self.phase, self.heard, self.saved = "", None, time.monotonic()
        self.at = None  # the step at which it was last saved, also by another process
        self.lock = files.lock(folder) if found and self.writes else None
        if found and self.writes:  # lines that are younger than the state will come again
            with self.writing():
                files.write(folder / HISTORY, "".join(map(json_line, self.history)))

    @property
    def writes(self) -> bool:
        return self.folder is not None and self.group.rank == 0

    def take_up(self, phase: str, epochs: int, per_epoch: int) -> State | None:
        """Begin a phase of so many epochs; return the saved state if it is of this phase.

        Its history is that of the phase alone. Raises InputError if it is not from in there.
        """
        self.phase = phase
        found, self.found = self.found, None
        if found is None:
            return None
        lines = [
            {name: value for name, value in line.items() if name != "phase"}
            for line in found.history
            if line["phase"] == phase
        ]
        evaluated = len(lines) - 1
        least, most = evaluated * per_epoch, min(evaluated + 1, epochs) * per_epoch
        if found.phase != phase or not (0 <= evaluated <= epochs and least <= found.step <= most):
            raise InputError(f"{self.folder / STATE} is of another kind of run; start a new one")
        return dataclasses.replace(found, history=lines)

    def is_past(self, phase: str) -> bool:
        """Return whether a resumed run has left a phase behind."""
        return self.found is not None and self.found.phase != phase

    def note(self, line: dict) -> None:
        """Add a line to the history."""
        line = {"phase": self.phase} | line
        self.history.append(line)
        if self.writes and self.step is not None:
            with self.writing():
                files.append(self.folder / HISTORY, json_line(line))

    def save(self, step: int, seconds: float, tensors: dict[str, torch.Tensor]) -> None:
        """Write the state. Raises InputError if it cannot be written; the last one stays."""
        self.at = step
        if not self.writes:
            return
        self.clock.lap("fit")
        about = self.about | {"format": FORMAT, "phase": self.phase, "step": step}
        about |= {"history": self.history, "seconds": seconds, "laps": self.clock.laps}
        state = (tensors, {"state": json.dumps(about)})
        with self.writing():
            if self.step is not None:
                files.write(self.folder / STATE, *state)
            else:  # the folder appears with its first state in it
                history = "".join(map(json_line, self.history))
                found = {HISTORY: history, STATE: state}
                self.folder = files.write_folder(self.folder, found, self.numbered)
                self.lock = files.lock(self.folder)
        self.step, self.saved = step, time.monotonic()

    @contextlib.contextmanager
    def writing(self):
        """Say what is still there when something cannot be written."""
        try:
            yield
        except OSError as error:
            text = f"{self.folder} cannot be written ({error.strerror}){self.whereabouts()}"
            if self.step is not None:
                text += f"; once that is mended, go on: {self.how()}"
            raise InputError(text) from None

    def pause(self, step: int, now: Callable[[], tuple[float, dict]]) -> None:
        """Between two steps: save if it is time to, and stop if a signal was heard.

        `now` returns what `save` wants. The processes of a group do this together, if one of them
        has a reason.
        """
        late = self.writes and time.monotonic() - self.saved >= self.every
        reasons = torch.tensor([float(late), float(self.heard is not None)])
        if self.group.size > 1:
            reasons = reasons.to(self.group.device)
            self.group.add_up([reasons])
        late, heard = reasons.tolist()
        if (late or heard) and self.at != step:
            self.save(step, *now())
        if heard:
            raise Stopped(self.heard or signal.SIGTERM)

    @contextlib.contextmanager
    def listening(self):
        """Have Ctrl-C and SIGTERM wait for the end of a step; the second of them does not wait."""

        def hear(number, _):
            if self.heard is not None:
                signal.signal(number, before[number])
                signal.raise_signal(number)
                return
            self.heard = number
            if self.writes:
                with contextlib.suppress(OSError):  # Ctrl-C has ended who listened: `2>&1 | tee`
                    print("\nstopping after this step; once more: at once", file=sys.stderr)

        numbers = (signal.SIGINT, signal.SIGTERM) if self.folder else ()
        before = {number: signal.signal(number, hear) for number in numbers}
        try:
            yield
            if self.heard is not None:  # after the last step
                raise Stopped(self.heard)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def whereabouts(self) -> str:
        """Return where the last state is, if there is one, as the end of a sentence."""
        return "" if self.step is None else f"; the state of step {self.step} is in {self.folder}"

    def how(self) -> str:
        """Return the command that goes on from there."""
        size = self.group.size
        python = f"torchrun --nproc_per_node={size}" if size > 1 else "python"
        return f"{python} train.py --resume={quote(str(self.folder))}"

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        """Say how to go on, if the run ends before its time."""
        if self.lock is not None:
            os.close(self.lock)
        if isinstance(error, KeyboardInterrupt) and self.writes and self.step is not None:
            message = f"stopped; step {self.step} is saved. To go on: {self.how()}"
            raise Stopped(getattr(error, "number", signal.SIGINT), message) from None


def json_line(line: dict) -> str:
    return json.dumps(line) + "\n"


MEND = "start the run again, or bring it back from a copy"
PHASES = Clock().laps.keys()
FIELDS = {
    "format": fields.one_of(FORMAT),
    "phase": fields.text,
    "step": fields.whole(),
    "seconds": fields.number(),
    "history": fields.array,
    "history.*.phase": fields.text,
    "history.*.dev_loss": fields.number(),
    "history.*.dev_accuracy": fields.number(),
    "laps": fields.Kind(
        f"an object with {', '.join(PHASES)}",
        lambda laps: type(laps) is dict and laps.keys() == PHASES,
    ),
    "laps.*": fields.number(),
    "weights": fields.text,
    "texts": fields.text,
    "processes": fields.whole(1),
    "flags": fields.table,
}


def read_about(folder: Path) -> dict:
    """Return the header of a run's state, every field checked. Raises InputError."""
    path = files.part_of(folder, STATE)
    if not path.is_file():
        if (folder / "run.json").is_file():
            raise InputError(f"{folder} is a finished run: there is nothing left to resume")
        raise InputError(f"{folder} holds no state to go on from; start the run again")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        about = json.loads(header.get("state", ""))
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {MEND}") from None
    return fields.check(path, about, FIELDS, MEND)


def state_of(folder: Path, about: dict, clock: Clock) -> State:
    """Return the state of a run that was stopped; its clock goes on.

    Raises InputError unless weights, texts and processes are what they were (`about` says what they
    are now).
    """
    was, path = read_about(folder), folder / STATE
    for name, now in about.items():
        if name != "flags" and was[name] != now:
            what = f"{folder} was started with other {name}"
            if name == "processes":
                what = f"{folder} was started with {was[name]} processes: resume it with as many"
            raise InputError(f"{what}; bring them back, or start a new run")
    try:
        tensors = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); start the run again") from None
    clock.go_on(was["laps"])
    own = {name: was[name] for name in ("phase", "step", "seconds", "history")}
    return State(**own, tensors=tensors)
