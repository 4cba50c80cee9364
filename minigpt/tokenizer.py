"""vocab.json -> a tiktoken Encoding: text in, token ids out. Knows nothing of labels or models."""

import json
from pathlib import Path

import tiktoken

END_OF_TEXT = "<|endoftext|>"
LONGEST = 256  # bytes in a token, at most; GPT-2's longest has 128

# How GPT-2 cuts text into words before it merges bytes (Radford et al. 2019, `encoder.py`), in the
# wording of tiktoken's `openai_public.py`, which cuts alike and does not backtrack
WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def byte_of_character() -> dict[str, int]:
    """Return the 256 printable characters that stand for bytes in vocab.json and merges.txt.

    Printable ones stand for themselves; for the others stand, in order, the characters from 256 on
    (the space is Ġ). Source: `bytes_to_unicode` in `encoder.py`.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}


def make_encoding(vocab: dict[str, int]) -> tiktoken.Encoding:
    """Build the byte-pair encoding of a vocabulary, {token: id}.

    Byte-pair encoding (Sennrich et al. 2016) starts with single bytes and merges the pair of
    neighbours that was learned first, until no pair is left. In a GPT-2 vocabulary the ids of
    merged tokens rise in the order in which they were learned, which is that of the lines of
    merges.txt. So the ids alone give the order, and this is how tiktoken wants it.
    """
    byte_of = byte_of_character()
    special = {END_OF_TEXT: vocab[END_OF_TEXT]}
    ranks = {
        bytes(byte_of[character] for character in token): i
        for token, i in vocab.items()
        if token not in special
    }
    return tiktoken.Encoding("gpt2", pat_str=WORDS, mergeable_ranks=ranks, special_tokens=special)


def load_tokenizer(folder: Path) -> tiktoken.Encoding:
    """Build the encoding of a checkpoint from its own vocab.json.

    Encode with `encode_ordinary`, so that "<|endoftext|>" inside somebody's text is plain text;
    the special token's id is `eot_token`.
    """
    return make_encoding(json.loads(Path(folder, "vocab.json").read_text(encoding="utf-8")))
