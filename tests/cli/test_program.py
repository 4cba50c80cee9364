"""How a program ends: with which status, in which words, and without a traceback for a user."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

ENDS = {
    "raise InputError('so it is')": (2, "error: so it is\n"),
    "raise InputError('a\\nb\\n' + 'c' * 9999)": (2, "error: a b " + "c" * 796 + " ...\n"),
    "raise MemoryError": (2, "error: not enough memory; try a smaller --batch-size"),
    "raise RuntimeError('CUDA out of memory. Tried to')": (2, "error: not enough memory"),
    "raise RuntimeError('InvalidCxxCompiler: No working')": (2, "error: --compile: the C++"),
    "raise RuntimeError('a bug')": (1, "Traceback"),
    "open('/nowhere/at all')": (2, "error: /nowhere/at all: No such file or directory\n"),
    "raise KeyboardInterrupt": (130, "\ninterrupted\n"),
    "raise Stopped(signal.SIGTERM, 'saved')": (143, "\nsaved\n"),
    "raise BrokenPipeError": (141, ""),
    "os.kill(os.getpid(), signal.SIGTERM)": (143, "\ninterrupted\n"),
    "print('fine')": (0, ""),
}
BEGIN = """
import os, signal, time
from minigpt.cli.program import *
with errors_for_people():
"""


def ends(code: str, **env) -> tuple[int, str]:
    """Run a piece of code where a command runs; return its exit status and what it complains of."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    run = subprocess.run([sys.executable, "-c", BEGIN + code], env=env, capture_output=True)
    return run.returncode, run.stderr.decode()


@pytest.mark.parametrize("code", ENDS)
def test_every_end_has_its_status_and_its_words(code):
    status, said = ends("    " + code)
    assert status == ENDS[code][0] and said.startswith(ENDS[code][1])
    assert status == 1 or "Traceback" not in said


def test_an_error_that_c_code_makes_of_a_signal_is_taken_for_the_signal():
    code = (
        "    try: os.kill(os.getpid(), signal.SIGINT)\n    except BaseException: raise ValueError"
    )
    assert ends(code) == (130, "\ninterrupted\n")


def test_whoever_asks_twice_does_not_wait_for_the_cleaning_up():
    code = (
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    )
    assert ends(code) == (130, "")


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGINT)", "raise Stopped(2)"])
def test_a_signal_while_python_cleans_up_ends_it_without_another_word(how):
    again = "    import atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
    assert ends(f"{again}    {how}") == (130, "\ninterrupted\n")


def test_of_several_processes_the_first_speaks_of_being_stopped():
    assert ends("    raise Stopped(signal.SIGTERM)", RANK="1", TORCHELASTIC_RUN_ID="x") == (143, "")
    assert ends("    raise InputError('x')", RANK="1", TORCHELASTIC_RUN_ID="x") == (2, "error: x\n")
