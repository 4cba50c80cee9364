"""The names of columns, or their values where they have no names -> text and label.

A guess is taken only where it is sure, and said; otherwise the first line is shown, with the flags
that settle it.
"""

import dataclasses
from collections import Counter
from pathlib import Path

from minigpt.edge.errors import InputError, first_few

TEXT_COLUMNS = ("text", "sentence", "content")  # the first that is there
USUAL_TEXTS = ("review", "review_text", "review text", "reviewtext", "message", "tweet", "body")
USUAL_TEXTS += ("comment", "comment_text", "comment text", "headline", "phrase", "v2")
TITLED = ("title", "description")  # read together
USUAL_LABELS = ("sentiment", "category", "class", "class index", "class_index", "target", "stars")
USUAL_LABELS += ("rating", "score", "overall", "topic", "v1")
EXTRA = ("pair", "kind", "split")
KNOWN = {*TEXT_COLUMNS, *USUAL_TEXTS, *TITLED, *USUAL_LABELS, "label"}
FLAGS = "say --text-column and --label-column"

SHORT, FEW = 60, 100  # characters in a label, and how many labels there are, at most
COUNTED = 1000  # different values of a column that are counted


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is to be read, as the flags say it; what they leave out is found."""

    text: tuple[str, ...] = ()  # columns by name, or by number from 1 where there is no header
    label: str | None = None
    encoding: str | None = None
    order: tuple[str, ...] = ()  # what columns without a header are, as in another file beside it

    @classmethod
    def of(cls, args) -> "Reading":
        """Return what --text-column, --label-column and --encoding say."""
        text = tuple(args.text_column.split(",")) if args.text_column else ()
        return cls(text, getattr(args, "label_column", None), args.encoding)

    @property
    def said(self) -> list[str]:
        """The columns that the flags name."""
        return [*self.text, *filter(None, [self.label])]

    @property
    def by_number(self) -> bool:
        """Whether columns are said by numbers, as they are where there is no header."""
        return bool(self.said) and all(name.isdecimal() for name in self.said)

    def is_of(self, first: list[str]) -> bool:
        """Return whether the numbers are names in a header of numbers, as pandas writes them."""
        names = [name for name in first if name]
        numbers = all(name.isdecimal() for name in names) and len({*names}) == len(names)
        return len(first) > 1 and numbers and {*self.said} <= {*names}


AS_FOUND = Reading()


@dataclasses.dataclass(frozen=True)
class Columns:
    """What each column of a file is, by its name there."""

    text: tuple[str, ...]  # joined by a space; none if it was not found
    label: str | None
    extra: dict[str, str]  # {"pair": its name there}
    guess: str = ""  # what was taken for what, in words, where the names leave a doubt


def find_columns(names: list[str], reading: Reading, where: str, labelled=True) -> Columns:
    """Find text and label among names, in any case. Raises InputError for names that are twice.

    Text or label may be missing in what is returned, except where `reading` names them. No label is
    looked for unless rows are `labelled`.
    """
    by_key = {}
    for name in names:
        key = name.strip().lower()
        if key and key in by_key:
            raise InputError(f"{where}: the column {name.strip()!r} is there twice; rename one")
        by_key[key] = name
    by_key.pop("", None)  # columns without a name

    def said(flag: str, wanted: str) -> str:
        if wanted in names or wanted.strip().lower() in by_key:
            return wanted if wanted in names else by_key[wanted.strip().lower()]
        raise InputError(f"{where}: {flag} {wanted}: the columns are {', '.join(by_key) or 'none'}")

    text = tuple(said("--text-column", wanted) for wanted in reading.text)
    label, guesses = None, []
    if reading.label is not None:
        label = said("--label-column", reading.label)
    if not text:
        text, sure = usual_texts(by_key, where)
        if not sure:
            guesses.append(f"text is the column {' and '.join(text)}")
    if label is None and labelled:
        label, sure = usual_label(by_key, where)
        if not sure:
            guesses.append(f"label is the column {label}")
    if label is not None and label in text:
        raise InputError(f"{where}: the column {label} is named as the text and as the label")
    extra = {name: by_key[name] for name in EXTRA if name in by_key}
    return Columns(text, label, extra, ", ".join(guesses))


def usual_texts(by_key: dict[str, str], where: str) -> tuple[tuple[str, ...], bool]:
    """Return the columns that usually hold the text, and whether that is no guess."""
    if known := [by_key[name] for name in TEXT_COLUMNS if name in by_key]:
        return (known[0],), True
    usual = [by_key[name] for name in USUAL_TEXTS if name in by_key]
    if len(usual) > 1:
        raise InputError(f"{where}: is the text {' or '.join(usual)}? say --text-column NAME")
    if not usual and all(name in by_key for name in TITLED):
        usual = [by_key[name] for name in TITLED]
    return tuple(usual), not usual


def usual_label(by_key: dict[str, str], where: str) -> tuple[str | None, bool]:
    """Return the column that usually holds the label, if any, and whether that is no guess."""
    if "label" in by_key:
        return by_key["label"], True
    usual = [by_key[name] for name in USUAL_LABELS if name in by_key]
    if len(usual) > 1:
        raise InputError(f"{where}: is the label {' or '.join(usual)}? say --label-column NAME")
    return (usual[0], False) if usual else (None, True)


class Values:
    """What a column holds, as far as a guess needs it: never more than a few values in memory."""

    def __init__(self):
        self.counts, self.longest, self.filled, self.first = Counter(), 0, False, None

    def add(self, value: str) -> None:
        value = value.strip()
        if self.first is None:
            self.first = value
        self.filled = self.filled or bool(value)
        self.longest = max(self.longest, len(value))
        value = value[: SHORT + 1]
        if value in self.counts or len(self.counts) < COUNTED:
            self.counts[value] += 1

    @property
    def first_is_alone(self) -> bool:
        """Whether the first value is a word that comes once, while all others come again."""
        first = (self.first or "")[: SHORT + 1]
        others = [n for value, n in self.counts.items() if value != first]
        alone = self.counts[first] == 1 and not first.isdecimal()
        return alone and bool(others) and min(others) > 1

    def are_labels(self, n: int) -> bool:
        """Return whether they may be labels: few, short, none missing, and the first once more."""
        few = len(self.counts) <= max(2, min(n // 2, FEW)) and self.counts[self.first] > 1
        return few and self.longest <= SHORT and "" not in self.counts

    def are_often(self, n: int) -> bool:
        """Return whether each comes often: as labels do, and the first words of most texts not."""
        return 2 <= len(self.counts) <= n // 5 and min(self.counts.values()) > 1


def columns_by_values(columns: list[Values], n: int) -> list[str] | None:
    """Return ["text", "label"], or the other way round, for two columns of n rows; None: unsure.

    Labels are few and short, and the texts are not, or there are many more of them. Fewer than
    three rows say nothing: they are taken as this program always took them, the text first.
    """
    if len(columns) != 2:
        return None
    if n < 3:
        return None if any(c.first.lower() in KNOWN for c in columns) else ["text", "label"]
    for i, names in ((1, ["text", "label"]), (0, ["label", "text"])):
        labels, texts = columns[i], columns[1 - i]
        apart = not texts.are_labels(n) or len(texts.counts) >= 5 * len(labels.counts)
        if labels.are_labels(n) and apart and len(texts.counts) > len(labels.counts):
            return names
    return None


def columns_by_number(reading: Reading, width: int, where: str) -> list[str]:
    """Return names for columns that the flags say by their numbers, from 1. Raises InputError."""
    names = [""] * width
    for number in reading.said:
        if not 1 <= int(number[:9]) <= width:
            raise InputError(f"{where}: there is no column {number}: there are {width}")
        names[int(number) - 1] = number
    return names


def unclear(path: Path, line: int, first: list[str], found: Columns | None = None) -> InputError:
    """Return the error for a file whose columns are not understood, with its first line.

    It says which column was `found`, if one of text and label was.
    """
    shown = " | ".join(cell if len(cell) < 60 else cell[:60] + " ..." for cell in first[:12])
    known, flags = "", f"; {FLAGS}, by name, or by number from 1 if there is no header"
    if found and bool(found.text) != (found.label is not None):
        what, other = ("text", "label") if found.text else ("label", "text")
        names = " and ".join(found.text or [found.label])
        known = f" ({what} is the column {names}, but no column is known to be the {other}; "
        known, flags = f"{known}say --{other}-column NAME)", ""
    return InputError(
        f"{path}, line {line}: neither a header with {'|'.join(TEXT_COLUMNS)} and label{known}, "
        f"nor two columns (text, label) that tell themselves apart{flags}. The first line: {shown}"
    )


def rating(where: str, labels: list) -> InputError:
    """Return the error for labels that are fractions."""
    return InputError(
        f"{where}: the label is {first_few(labels)}, a fraction: is it a rating? classes are named "
        "by words or whole numbers: round it, or put it into bins such as low and high"
    )
