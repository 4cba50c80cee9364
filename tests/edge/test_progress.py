"""The progress of what takes long, where there is no terminal."""

import re
import time

from minigpt.edge import progress


def steps(hide: bool) -> None:
    with progress.bar(4, hide, desc="ladder", leave=False) as bar:
        for _ in range(4):
            time.sleep(0.03)
            bar.update()


def test_without_a_terminal_it_is_a_line_now_and_then_with_the_time_left(monkeypatch, capsys):
    steps(False)
    assert capsys.readouterr().err == ""  # it did not take long
    monkeypatch.setattr(progress, "EVERY", 0.02)
    steps(False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and not any("\r" in line for line in lines)
    assert all(re.match(r"ladder: +\d+%.* [1-4]/4 \[\d\d:\d\d<\d\d:\d\d", line) for line in lines)
    steps(True)
    assert capsys.readouterr().err == ""
