"""vocab.json + merges.txt -> a tiktoken Encoding: text in, token ids out."""

import json
from pathlib import Path

import tiktoken

from minigpt.edge.errors import InputError

END_OF_TEXT = "<|endoftext|>"
LONGEST = 256  # bytes in a token; GPT-2's longest has 128

# How GPT-2 cuts text into words before the merges (Radford et al. 2019, `encoder.py`), in the
# wording of tiktoken's `openai_public.py`, which cuts alike and does not backtrack
WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def byte_of_character() -> dict[str, int]:
    """Return the 256 printable characters by which both files write bytes (`bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def read_vocabulary(folder: Path) -> tuple[dict[str, int], list[list[str]], list[Path]]:
    """Return tokens with their numbers, the pairs to merge, in order, and the files they are in.

    Those are vocab.json and merges.txt, or tokenizer.json, where later transformers save both.
    Raises InputError.
    """
    files = [Path(folder, "vocab.json"), Path(folder, "merges.txt")]
    if not files[0].exists() and Path(folder, "tokenizer.json").exists():
        files = [Path(folder, "tokenizer.json")]
    file = files[0]
    try:
        if len(files) == 1:
            whole = json.loads(file.read_text(encoding="utf-8"))
            words, vocab = whole["pre_tokenizer"], whole["model"]["vocab"]
            if whole.get("normalizer") or words["type"] != "ByteLevel" or words["add_prefix_space"]:
                raise InputError(f"{file} changes texts before it encodes them, as no GPT-2 does")
            merges = [p.split(" ") if type(p) is str else p for p in whole["model"]["merges"]]
        else:
            vocab = json.loads(file.read_text(encoding="utf-8"))
            file = files[1]
            lines = file.read_text(encoding="utf-8").split("\n")
            merges = [line.split(" ") for line in lines[lines[0].startswith("#version") :] if line]
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing; a checkpoint brings its own") from None
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read ({error})") from None
    if not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise InputError(f"{files[0]} is not a table of tokens and their numbers")
    if not all(type(pair) is list and all(type(p) is str for p in pair) for pair in merges):
        raise InputError(f"{files[-1]} has merges that are no pairs of tokens")
    return vocab, merges, files


def load_tokenizer(folder: Path, vocab_size: int) -> tiktoken.Encoding:
    """Build the byte-pair encoding of a checkpoint from its own files.

    Text is encoded with `encode_ordinary`, so that "<|endoftext|>" inside somebody's text is
    plain text; the special token is `eot_token`. Raises InputError, naming the file, for files
    that are not a GPT-2 vocabulary, or not one for a model with `vocab_size` rows in `wte`.
    """
    vocab, merges, files = read_vocabulary(folder)
    vocab_file, merges_file = files[0], files[-1]
    if END_OF_TEXT not in vocab:
        raise InputError(f"{vocab_file} has no {END_OF_TEXT}: not a GPT-2 vocabulary")

    if not 0 <= vocab_size - len(vocab) < 128:  # some models round the number of rows up
        raise InputError(
            f"{vocab_file} has {len(vocab)} tokens, the model {vocab_size}: not its own"
        )

    byte_of = byte_of_character()
    special = {END_OF_TEXT: vocab[END_OF_TEXT]}
    try:
        ranks = {
            bytes(byte_of[c] for c in token): i
            for token, i in vocab.items()
            if token not in special
        }
    except KeyError as error:
        raise InputError(f"{vocab_file}: character {error} stands for no byte") from None

    if max(map(len, ranks), default=0) > LONGEST:
        raise InputError(f"{vocab_file} has a token of more than {LONGEST} bytes")

    # tiktoken merges by the number of the token that comes out, the files by the line of the
    # merge. The two agree where numbers rise from line to line, as they do in GPT-2's own files.
    merged = [vocab.get("".join(pair), -1) for pair in merges]
    starts = [vocab.get(c, -1) for c in byte_of]
    if min(starts) < 0 or any(a >= b for a, b in zip([max(starts), *merged], merged, strict=False)):
        raise InputError(f"{merges_file} and {vocab_file} do not belong together")
    if len(ranks) != len(starts) + len(merged) or sorted(vocab.values()) != [*range(len(vocab))]:
        raise InputError(f"{vocab_file} has tokens that {merges_file} does not make, or gaps")
    return tiktoken.Encoding(
        name=str(folder), pat_str=WORDS, mergeable_ranks=ranks, special_tokens=special
    )
