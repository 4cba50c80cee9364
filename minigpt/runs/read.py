"""A run reads texts: their logits, or the vectors that its head is given."""

import torch

from minigpt.data import Example, Tokens, tokenize
from minigpt.fast import FrozenPart
from minigpt.runs.folder import Run

# N texts, K classes, C channels


def tokens_of(run: Run, examples: list[Example]) -> Tokens:
    """Return texts as the run reads them."""
    return tokenize(examples, run.labels, run.tokenizer, run.max_length, run.append_end, run.keep)


def unlabelled(run: Run, texts: list[str]) -> list[Example]:
    """Return texts as examples: any label will do."""
    return [Example(text, run.labels[0]) for text in texts]


def read(run: Run, part: FrozenPart, examples: list[Example]) -> tuple[torch.Tensor, Tokens]:
    """Return the logits, (N, K), and the texts as they were read."""
    tokens = tokens_of(run, examples)
    return part.logits_of(tokens), tokens


def rate(run: Run, part: FrozenPart, texts: list[str]) -> torch.Tensor:  # -> (N, K)
    """Return the probability of each class."""
    return read(run, part, unlabelled(run, texts))[0].softmax(1)


def vectors_of(run: Run, part: FrozenPart, texts: list[str]) -> torch.Tensor:  # -> (N, C)
    """Return the pooled vectors."""
    return part.vectors_of(tokens_of(run, unlabelled(run, texts)))
