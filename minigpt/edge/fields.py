"""JSON that came from outside, held against a table of its fields before anyone relies on it.

    FIELDS = {
        "weights.name": text,
        "recipe.max_length": whole(1),
        "history": array,
        "history.*.dev_loss": number(),  # of each item of a list or an object
    }
    run = check(path, read_json(path), FIELDS)

Fields that a table does not name are left alone. Knows nothing of what the fields mean.
"""

import dataclasses
import json
import math
import reprlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from minigpt.edge.errors import InputError

MISSING = object()
MAX = sys.float_info.max  # a larger whole number would overflow as soon as it is computed with


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a field may hold: a test, and the words for it in "n_head is 5.0, not WORDS"."""

    words: str
    accepts: Callable[[object], bool]


text = Kind("a text", lambda value: type(value) is str)
flag = Kind("true or false", lambda value: type(value) is bool)
array = Kind("a list", lambda value: type(value) is list)
table = Kind("an object", lambda value: type(value) is dict)


def whole(least: int = 0, most: float = math.inf) -> Kind:
    """A whole number from `least` to `most`; true and false, which are ints in Python, are none."""
    upper = f"from {least} to {most}" if most < math.inf else f"of {least} or more"
    return Kind(f"a whole number {upper}", lambda n: type(n) is int and least <= n <= most)


def number(least: float = -math.inf, below: float = math.inf) -> Kind:
    """A finite number from `least` up to, and not including, `below`."""
    words = "a finite number"
    if least > -math.inf:
        words = f"a number from {least} up to {below}" if below < math.inf else f"{least} or more"
    return Kind(
        words, lambda n: type(n) in (int, float) and -MAX <= n <= MAX and least <= n < below
    )


positive = Kind("a number above 0", lambda n: number(0).accepts(n) and n > 0)


def one_of(*choices) -> Kind:
    """One of a few values, in their own types: 1 is not True."""
    return Kind(
        " or ".join(map(repr, choices)),
        lambda value: any(type(value) is type(one) and value == one for one in choices),
    )


def texts(least: int = 0) -> Kind:
    """A list of at least so many texts, no two of them alike."""

    def accepts(value) -> bool:
        right = type(value) is list and all(type(item) is str for item in value)
        return right and len({*value}) == len(value) >= least

    return Kind(f"a list of {least} or more different texts", accepts)


def optional(kind: Kind) -> Kind:
    """The same, or null, or no such field at all."""
    return Kind(
        f"{kind.words}, or null", lambda value: value in (None, MISSING) or kind.accepts(value)
    )


def read_json(path: Path):
    """Return what a file of JSON says, in UTF-8. Raises InputError if it says nothing, OSError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None


def check(path: Path, fields, kinds: dict[str, Kind], mend: str = "") -> dict:
    """Return `fields`, having checked each that `kinds` names: {"name.of.a.field": Kind}.

    Raises InputError with the file, the field and its value, and with `mend`, what to do about it.
    """
    mend = mend and f"; {mend}"
    if type(fields) is not dict:
        raise InputError(f"{path}: {reprlib.repr(fields)} is not an object with fields{mend}")
    for names, kind in kinds.items():
        for name, value in values_at(fields, names.split(".")):
            if not kind.accepts(value):
                wrong = f"is {reprlib.repr(value)}, not" if value is not MISSING else "is missing:"
                raise InputError(f"{path}: {name} {wrong} {kind.words}{mend}")
    return fields


def values_at(fields, names: list[str], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (full name, value) of one field, MISSING if there is none, or with `*` of several.

    Where `*` is no list or object, nothing is yielded: a table names the list itself, too.
    """
    if not names:
        yield prefix.removesuffix("."), fields
        return
    first, *rest = names
    if first != "*":
        value = fields.get(first, MISSING) if type(fields) is dict else MISSING
        items = ((first, value),)
    elif type(fields) is dict:
        items = fields.items()
    else:
        items = enumerate(fields) if type(fields) is list else ()
    for name, value in items:
        yield from values_at(value, rest, f"{prefix}{name}.")
