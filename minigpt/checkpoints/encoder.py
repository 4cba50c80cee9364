"""Text -> ids where a tokenizer's files ask for more than byte-pair merges.

Added tokens are cut out of a text first, wherever they stand; what is left between them may get a
space in front, and is encoded; tokens may be put before the whole. Knows nothing of files.
"""

import dataclasses
import itertools
import re

import tiktoken


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A tiktoken Encoding with what comes around it: the same methods, where minigpt uses them.

    Source: `AddedVocabulary::extract_and_normalize` and the ByteLevel pre-tokenizer of Hugging
    Face's `tokenizers`.
    """

    encoding: tiktoken.Encoding
    added: tuple[dict[str, int], ...] = ()  # {token: id}; a table after what the one before left
    prefix_space: bool = False
    before: tuple[int, ...] = ()  # ids that begin every text

    @property
    def eot_token(self) -> int:
        return self.encoding.eot_token

    @property
    def n_vocab(self) -> int:
        ids = [i for table in self.added for i in table.values()]
        return max([self.encoding.n_vocab - 1, *ids]) + 1

    def decode_single_token_bytes(self, token: int) -> bytes:
        for table in self.added:
            for content, i in table.items():
                if i == token:
                    return content.encode("utf-8", "replace")
        return self.encoding.decode_single_token_bytes(token)

    def encode_ordinary(self, text: str) -> list[int]:
        encode = self.encoding.encode_ordinary
        ids = [encode(p) if type(p) is str else [p] for p in self.pieces(text)]
        return [*self.before, *itertools.chain(*ids)]

    def pieces(self, text: str) -> list[str | int]:
        """Cut a text at added tokens: what is between them as text, they themselves as ids."""
        pieces = [text]
        for table in self.added:
            cut = [split(p, table) if type(p) is str else [p] for p in pieces]
            pieces = [piece for part in cut for piece in part]
        if self.prefix_space:
            pieces = [
                f" {p}" if type(p) is str and p and not p.startswith(" ") else p for p in pieces
            ]
        return pieces


def split(text: str, table: dict[str, int]) -> list[str | int]:
    """Cut a text at the tokens of a table: from the left, and the longest where several begin."""
    longest_first = sorted(table, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)  # odd ones are tokens
    return [table[part] if i % 2 else part for i, part in enumerate(parts)]
