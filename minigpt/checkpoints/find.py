"""A name -> a checkpoint: a folder in the official layout that has been verified."""

import dataclasses
import re
import sys
from pathlib import Path

import tiktoken

from minigpt.checkpoints.encoder import Encoder
from minigpt.checkpoints.hashes import sha256_of
from minigpt.checkpoints.hub import NoNetwork, exists, from_hub
from minigpt.checkpoints.verify import (
    FILES,
    INDEX,
    OTHER_WEIGHTS,
    SMALL,
    WEIGHTS,
    check_files,
    check_small_files,
    check_tensors,
    check_weights_there,
    read_config,
    weight_files,
)
from minigpt.checkpoints.vocabulary import check_vocabulary, read_vocabulary
from minigpt.config import GPT2Config
from minigpt.edge.checkout import checkout
from minigpt.edge.errors import InputError
from minigpt.tokenizer import END_OF_TEXT, make_encoding

BUNDLED = checkout() / "weights"  # has tiny, and room for gpt2

# The official repositories: revision, and the sha256 of model.safetensors
OFFICIAL = {
    "gpt2": (
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": (
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": (
        "32b71b12589c2f8d625668d2335a01cac3249519",
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "gpt2-xl": (
        "15ea56dee5df4983c59b2538573817e1667135e2",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder in the official layout, verified."""

    name: str  # what --weights can be given again
    folder: Path
    sha256: str  # of model.safetensors, or of its index and then all shards
    config: GPT2Config

    @property
    def repository(self) -> str | None:
        """Its name on the Hub, or None: neither `tiny` nor a folder of this machine is there."""
        if self.name in OFFICIAL:
            return f"openai-community/{self.name}"
        return None if self.name == "tiny" or Path(self.name).is_dir() else self.name


def find_checkpoint(name: str | None) -> Checkpoint:
    """Return what --weights names: an official size, `tiny`, a folder, or ORG/REPO on the Hub.

    None means gpt2 if it is at hand or can be downloaded, else the bundled tiny, saying so.
    Raises InputError if there is no such checkpoint, or if it is not as it should be.
    """
    if name is None:
        try:
            return find_checkpoint("gpt2")
        except NoNetwork:
            print(
                "gpt2 is not on this machine and cannot be downloaded: using the bundled tiny",
                file=sys.stderr,
            )
            return find_checkpoint("tiny")
    if name in OFFICIAL:
        revision, sha256 = OFFICIAL[name]
        folder = BUNDLED / name
        if not (folder / "model.safetensors").exists():
            folder = from_hub(f"openai-community/{name}", FILES, revision)
        return describe(name, folder, sha256)
    if name == "tiny":
        return describe(name, BUNDLED / name)
    if Path(name).is_dir():
        return describe(str(Path(name).resolve()), Path(name).absolute())
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return describe(name, download(name))
    raise InputError(
        f"--weights {name}: no such folder; say {', '.join(OFFICIAL)}, tiny, a folder, or ORG/REPO"
    )


def download(repository: str) -> Path:
    """Return the folder of a repository's files, those that a folder would need. Raises InputError.

    What is no checkpoint is refused before its weights are downloaded, in a folder's words.
    """
    folder = from_hub(repository, optional=SMALL)
    check_small_files(folder, repository)
    commit = folder.name
    from_hub(repository, (FILES[0],), commit, optional=(WEIGHTS,))
    if not (folder / WEIGHTS).is_file():
        from_hub(repository, (FILES[0],), commit, optional=(INDEX,))
        if not (folder / INDEX).is_file():
            others = [name for name in OTHER_WEIGHTS if exists(repository, name)]
            check_weights_there(folder, repository, others)
        from_hub(repository, tuple(path.name for path in weight_files(folder)), commit)
    return folder


def describe(name: str, folder: Path, official: str | None = None) -> Checkpoint:
    """Verify a folder and return what it is. Raises InputError.

    With `official`, a sha256, model.safetensors must be that file and no other. Of the values of
    its tensors, nothing is read but for this hash.
    """
    check_files(folder)
    config, sha256 = read_config(folder / "config.json"), sha256_of(weight_files(folder))
    if official not in (None, sha256):
        raise InputError(
            f"{folder / WEIGHTS} is not the official file: its sha256 is {sha256}, not {official}; "
            "delete it and download it again"
        )
    check_tensors(folder, config)
    return Checkpoint(name, folder, sha256, config)


def earlier_weights(checkpoint: Checkpoint, folder: Path, name: str) -> Checkpoint:
    """Verify a folder with an earlier state of a checkpoint's weights, and return what it is.

    It has no vocabulary: that is the checkpoint's. Raises InputError.
    """
    if read_config(folder / "config.json") != checkpoint.config:
        raise InputError(
            f"{folder}/config.json is not that of {checkpoint.name}, to which it belongs"
        )
    check_tensors(folder, checkpoint.config)
    return Checkpoint(name, folder, sha256_of(weight_files(folder)), checkpoint.config)


def open_tokenizer(
    checkpoint: Checkpoint, append_end: bool = True, keep: str = "start"
) -> tiktoken.Encoding | Encoder:
    """Build a checkpoint's tokenizer from its own files, verified. Raises InputError.

    Where these end each text with <|endoftext|>, whoever encodes has to; without `append_end`,
    which says so, such a tokenizer is refused. So is one that begins each text with a token, where
    the end of a long text is to be kept.
    """
    vocabulary = read_vocabulary(checkpoint.folder)
    check_vocabulary(vocabulary, checkpoint.config.vocab_size)
    settings, encoding = vocabulary.settings, make_encoding(vocabulary.merged)
    if settings.append_end and not append_end:
        raise InputError(
            f"{vocabulary.files[0]} ends every text with {END_OF_TEXT}; say --append-end to do so"
        )
    if settings.before and keep == "end":
        raise InputError(
            f"{vocabulary.files[0]} begins every text with a token, which is lost where the end of "
            "a long text is kept; leave out --keep end"
        )
    added = [
        t
        for t in settings.added.values()
        if t.content != END_OF_TEXT and not (t.special and settings.split_special)
    ]
    tables = [{t.content: t.id for t in added if t.normalized is late} for late in (False, True)]
    if not (added or settings.prefix_space or settings.before):
        return encoding
    tables = tuple(table for table in tables if table)
    return Encoder(encoding, tables, settings.prefix_space, settings.before)
