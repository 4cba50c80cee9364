"""What every command does alike: how it reads its flags, and how it ends."""

import argparse
import contextlib
import difflib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable

from minigpt.edge.errors import InputError, Stopped, one_line

# Read as torch loads, which comes later: threads that wait soon sleep (docs/speed.md)
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

MEMORY = ("out of memory", "allocate memory", "DefaultCPUAllocator")  # in torch's RuntimeErrors


class Help(argparse.RawDescriptionHelpFormatter):
    """Help in which every flag has its default."""

    def _get_help_string(self, action):
        said = not action.option_strings or action.required or action.dest in ("help", "version")
        if said or "default" in action.help:
            return action.help
        words = {"None": "none", "False": "off", "[]": "none"}
        return f"{action.help}; default: {words.get(str(action.default), '%(default)s')}"


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError, and takes no abbreviated flags."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=Help, **options)

    def error(self, message):
        meant = self.meant(message)
        raise InputError(f"{message}; {meant}`{self.prog} --help` lists the choices")

    def meant(self, message: str) -> str:
        """Return a question, if what is not known is like something that is."""
        if flag := re.match(r"unrecognized arguments: .*?(--?[^\s=]+)", message):
            written, known = flag[1], list(self._option_string_actions)
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            written, known = choice[1], re.findall(r"[\w.-]+", choice[2])
        else:
            return ""
        names = {name.lstrip("-"): name for name in known}
        written = written.lower().replace("_", "-").lstrip("-")
        alike = difflib.get_close_matches(written, names, 1, 0.7)
        return f"did you mean {names[alike[0]]}? " if alike else ""


def voices(quiet: bool = False, rank: int = 0) -> tuple[Callable, Callable]:
    """Return what prints on stdout, unless it is to be quiet, and what tells of guesses on stderr.

    Of several processes, the first speaks.
    """

    def silent(*_):
        pass

    say = silent if quiet or rank > 0 else print
    return say, silent if rank > 0 else functools.partial(print, file=sys.stderr)


def load_torch() -> None:
    """Load torch, which takes a second, where Ctrl-C gets its one line.

    numpy first: torch would load it itself, and drop the exception of a signal that arrives then.
    """
    import numpy  # noqa: F401
    import torch  # noqa: F401

    import minigpt.runs  # noqa: F401, with most of what is loaded besides


@contextlib.contextmanager
def errors_for_people():
    """End the program as the README promises: status 2 for bad input, 130 when interrupted.

    SIGTERM ends it as Ctrl-C does, with status 143.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # it may be unable to show every character
    with signals_raised() as received:
        try:
            try:
                yield
            except Exception:
                if received:  # C code that was interrupted may raise an error of its own instead
                    raise Stopped(received[0]) from None
                raise
            if sys.stdout:
                sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output has ended, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)  # as a shell reports SIGPIPE
        except KeyboardInterrupt as error:
            if int(os.environ.get("RANK", 0)) == 0:  # of several processes, the first one reports
                with contextlib.suppress(OSError):  # Ctrl-C has ended the reader too: `2>&1 | tee`
                    print(f"\n{str(error) or 'interrupted'}", file=sys.stderr)
            end(128 + getattr(error, "number", signal.SIGINT))
        except Exception as error:
            message = message_of(error)
            if message is None:
                raise  # a bug: its traceback is wanted
            print(f"error: {message}", file=sys.stderr)
            end(2)


@contextlib.contextmanager
def signals_raised():
    """Raise Stopped where the program is when SIGINT or SIGTERM arrives; exit at the second one.

    Gives the list of the signals received.
    """
    received = []

    def stop(number, _):
        received.append(number)
        signal.signal(number, exit_immediately)  # it does not wait for our cleaning up
        raise Stopped(number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except SystemExit:  # Python's cleaning up is not worth waiting for, nor its traceback
        before = dict.fromkeys(before, exit_immediately)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_immediately(number: int, _=None):
    """Handle a signal: files are written whole or not at all, so that nothing can be damaged."""
    os._exit(128 + number)


def message_of(error: Exception) -> str | None:
    """Return one line for an error that a user can mend, or None for a bug."""
    if isinstance(error, InputError):
        return one_line(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'standard input or output'}: {error.strerror or error}"
    text = str(error) if isinstance(error, RuntimeError) else ""
    if "InvalidCxxCompiler" in text:
        return "--compile: the C++ compiler that torch finds does not work; leave --compile out"
    if isinstance(error, MemoryError) or any(words in text for words in MEMORY):
        return "not enough memory; try a smaller --batch-size with --accumulate, or --max-length"
    return None


def end(status: int) -> None:
    """Exit. One of several processes skips the interpreter's cleaning up, which the threads that
    wait for messages from the other processes would turn into an abort.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
