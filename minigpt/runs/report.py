"""What a run took and what it came to, for a person. Knows nothing of models or files."""

import time
from pathlib import Path


class Clock:
    """Seconds by phase."""

    def __init__(self):
        self.start = self.last = time.monotonic()
        self.laps = {"load": 0.0, "frozen": 0.0, "fit": 0.0, "test": 0.0}

    def lap(self, phase: str) -> None:
        """Say that what went on since the last lap was `phase`."""
        now = time.monotonic()
        self.laps[phase] += now - self.last
        self.last = now

    def go_on(self, laps: dict[str, float]) -> None:
        """Add what an earlier process took for the same run."""
        self.start -= sum(laps.values())
        self.laps = {phase: self.laps[phase] + seconds for phase, seconds in laps.items()}

    def seconds(self) -> dict[str, float]:
        laps = self.laps | {"total": time.monotonic() - self.start}
        return {phase: round(seconds, 3) for phase, seconds in laps.items()}


def report(metrics: dict, folder: Path) -> str:
    """Return what a run has come to, in a few lines for a person."""
    test, freezing = metrics["test"], metrics["freezing"]
    low, high = test["interval"]
    frozen = "unchanged, bit for bit" if freezing["frozen_unchanged"] else "CHANGED: this is a bug"
    if freezing["learning"] == freezing["total"]:
        frozen = "none"
    rows = [
        ("test accuracy", f"{test['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%})"),
        ("learned", f"{freezing['learning']:,} of {freezing['total']:,} numbers"),
        ("frozen tensors", frozen),
        ("time", f"{metrics['seconds']['total']:.1f} s"),
        ("run", str(folder)),
    ]
    if "pairs" in test:
        pairs = test["pairs"]
        rows.insert(1, ("pairs in order", f"{pairs['in_order']:.1%} of {pairs['n']}; chance: 50 %"))
    return "\n".join(f"{name:16}{value}" for name, value in rows)
