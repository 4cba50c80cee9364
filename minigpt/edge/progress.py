"""A progress bar with the time left; without a terminal, a line of it now and then."""

import sys

from tqdm import tqdm

EVERY = 30  # seconds between two lines, where there is no terminal


class Lines:
    """What a progress bar writes, as lines: for a stderr that is not a terminal."""

    @staticmethod
    def write(text: str) -> None:
        if text.strip():
            print(text.strip(), file=sys.stderr)

    @staticmethod
    def flush() -> None:
        sys.stderr.flush()


def bar(total: int, hide: bool, **options) -> tqdm:
    """Return a progress bar with the time left; without a terminal, a line of it now and then."""
    if not (sys.stderr and sys.stderr.isatty()):
        seconds = {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY}
        options |= seconds | {"miniters": 1, "file": Lines, "ncols": 80}
    return tqdm(total=total, disable=hide or not sys.stderr, **options)
