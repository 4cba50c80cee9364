"""Tokens and merges of a checkpoint, held against each other and against the model's rows."""

import dataclasses
from pathlib import Path

from minigpt.checkpoints.settings import ONE_FILE, Settings, fields_of, read_settings
from minigpt.edge.errors import InputError, first_few
from minigpt.edge.fields import read_json
from minigpt.tokenizer import END_OF_TEXT, LONGEST, byte_of_character


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What the files of a tokenizer say. Added tokens may be in `vocab`, too, or not."""

    vocab: dict[str, int]
    merges: list[list[str]]  # the pairs to merge, in order
    files: tuple[Path, ...]  # where they are from: one for each, or one for both
    settings: Settings

    @property
    def ids(self) -> dict[str, int]:
        """Return {token: id} of all tokens."""
        return self.vocab | {token: t.id for token, t in self.settings.added.items()}

    @property
    def merged(self) -> dict[str, int]:
        """Return {token: id} of those that merges make, and of what ends a text."""
        made = byte_of_character().keys() | {"".join(pair) for pair in self.merges}
        apart = self.settings.added.keys() - made
        tokens = {token: i for token, i in self.vocab.items() if token not in apart}
        return tokens | {END_OF_TEXT: self.ids[END_OF_TEXT]}


def read_vocabulary(folder: Path) -> Vocabulary:
    """Return what a folder's tokenizer.json says, or else its vocab.json and merges.txt.

    As in transformers, the first counts where both are there. Raises InputError.
    """
    one = fields_of(folder, ONE_FILE)
    if one:
        files = (folder / ONE_FILE,)
        vocab, merges = one["model"]["vocab"], one["model"]["merges"]
        merges = [pair.split(" ") if type(pair) is str else pair for pair in merges]
    else:
        files = (folder / "vocab.json", folder / "merges.txt")
        for file in files:
            if not file.exists():
                raise InputError(f"{file} is missing; a checkpoint brings its own")
        vocab = read_json(files[0])
        try:
            lines = files[1].read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{files[1]}: not UTF-8 ({error})") from None
        merges = [line.split(" ") for line in lines[lines[0].startswith("#version") :] if line]
    if type(vocab) is not dict or not all(type(i) is int for i in vocab.values()):
        raise InputError(f"{files[0]} is not a table of tokens and their ids, whole numbers")
    if not all(type(pair) is list and all(type(p) is str for p in pair) for pair in merges):
        raise InputError(f"{files[-1]} has merges that are not pairs of tokens")
    settings = read_settings(folder, one, vocab)
    return Vocabulary(vocab, merges, files, settings)


def check_vocabulary(vocabulary: Vocabulary, vocab_size: int) -> None:
    """Raise InputError unless this is a GPT-2 vocabulary, for a model with `vocab_size` tokens."""
    vocab_file, merges_file = vocabulary.files[0], vocabulary.files[-1]
    vocab, ids = vocabulary.vocab, vocabulary.ids
    if END_OF_TEXT not in ids:
        raise InputError(f"{vocab_file} has no {END_OF_TEXT}: not a GPT-2 vocabulary")
    if not 0 <= vocab_size - len(ids) < 128:  # some models round the number of rows up
        more = [token for token in ids if token not in vocab]
        beyond = f" with {first_few(map(repr, more))}, added" if more else ""
        raise InputError(
            f"{vocab_file} has {len(ids)} tokens{beyond}, the model {vocab_size}: they do not "
            "belong together; put the model's own there"
        )
    outside = [i for i in vocabulary.settings.before if i >= len(ids)]
    if outside:
        raise InputError(f"{vocab_file}: post_processor has the id {outside[0]}, that of no token")
    byte_of = byte_of_character()
    tokens = vocabulary.merged.keys() - {END_OF_TEXT}
    if strange := {*"".join(tokens)} - byte_of.keys():
        raise InputError(f"{vocab_file}: character {min(strange)!r} stands for no byte")
    if max(map(len, tokens), default=0) > LONGEST:  # a character is a byte
        raise InputError(f"{vocab_file} has a token of more than {LONGEST} bytes")

    # Merges are done in the order of ids (`make_encoding`), so that ids have to rise from line to
    # line of merges.txt, as they do in GPT-2's own files
    made = [vocab.get("".join(pair), -1) for pair in vocabulary.merges]
    bytes_ = [vocab.get(character, -1) for character in byte_of]
    rising = [max(bytes_), *made]
    if min(bytes_) < 0 or any(a >= b for a, b in zip(rising, made, strict=False)):
        raise InputError(f"{merges_file} and {vocab_file} do not belong together")
    if len(tokens) != len(bytes_) + len(made) or sorted(vocab.values()) != [*range(len(vocab))]:
        raise InputError(
            f"{vocab_file} has tokens that {merges_file} does not make, or gaps between its ids"
        )
