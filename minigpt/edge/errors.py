"""What a user can mend is an InputError: one line, exit status 2, no traceback."""


class InputError(ValueError):
    """Bad input. The message says what is wrong, where, and what to do."""


class Stopped(KeyboardInterrupt):
    """A signal ended the program after it had saved what it saves. The message may be empty."""

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.number = number


def one_line(error: Exception | str) -> str:
    """Return a message in one line: a name in a hostile file may have line breaks, or no end."""
    text = " ".join(str(error).split())
    return text if len(text) < 800 else text[:800] + " ..."


def first_few(names) -> str:
    """Return a list for a person: the first three names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
