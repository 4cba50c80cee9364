"""What a user can mend is an InputError: one line, exit status 2, no traceback."""

import argparse
import contextlib
import os
import signal
import sys


class InputError(ValueError):
    """Bad input. The message says what is wrong, where, and what to do."""


# What reading a value out of somebody's JSON may raise, where it is not as it should be
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)
MALFORMED += (RecursionError,)


class Stopped(KeyboardInterrupt):
    """A signal asked for the end, and what was to be saved is saved. The message may be empty."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number


def leave(number: int, _=None):
    """Handle a signal: be gone. Files appear whole or not at all, so that nothing is lost."""
    os._exit(128 + number)


def one_line(error: Exception) -> str:
    """Return a message in one line: a name in a hostile file may have breaks, or no end."""
    text = " ".join(str(error).split())
    return text if len(text) < 800 else text[:800] + " ..."


def first_few(names) -> str:
    """Return a list for a person: the first three names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are InputErrors, too, and that takes no half names."""

    def __init__(self, **how):
        super().__init__(allow_abbrev=False, **how)

    def error(self, message):
        raise InputError(f"{message}; `{self.prog} --help` lists the choices")


@contextlib.contextmanager
def errors_for_people():
    """End the program as the README promises: status 2 for bad input, 130 when interrupted.

    SIGTERM ends it as Ctrl-C does, with status 143.
    """
    heard = []

    def stop(number, _):
        heard.append(number)
        signal.signal(number, leave)  # the next one does not wait for what we clean up
        raise Stopped(number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a text may hold what has no sign there
    try:
        try:
            yield
        except Exception:
            if heard:  # C code that was interrupted may make an error of its own of that
                raise Stopped(heard[0]) from None
            raise
        if sys.stdout:
            sys.stdout.flush()
    except InputError as error:
        message = one_line(error)
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports SIGPIPE
    except (MemoryError, RuntimeError) as error:
        full = ("out of memory", "allocate memory", "DefaultCPUAllocator")
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in full):
            raise  # a bug: its traceback is wanted
        message = "not enough memory; try a smaller --batch-size with --accumulate, or --max-length"
    except OSError as error:
        message = f"{error.filename or 'standard input or output'}: {error.strerror or error}"
    except KeyboardInterrupt as error:
        if int(os.environ.get("RANK", 0)) == 0:  # of several processes, the first speaks
            with contextlib.suppress(OSError):  # Ctrl-C has ended who listened, too: `2>&1 | tee`
                print(f"\n{str(error) or 'interrupted'}", file=sys.stderr)
        end(128 + getattr(error, "number", signal.SIGINT))
    else:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"error: {message}", file=sys.stderr)
    end(2)


def end(status: int) -> None:
    """End the program. One of several processes goes without the interpreter's cleaning up, which
    the threads that wait for messages from the others would turn into an abort.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
