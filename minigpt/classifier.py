"""The classifier: one vector out of a text's hidden states, and a matrix that scores the classes.

Knows nothing of training.
"""

import math

import torch
from torch import nn

from minigpt.model import GPT2

# B texts, T tokens in the longest, C channels, K classes

POOLINGS = ("last", "first", "mean", "max")


def pool(hidden, lengths, pooling="last"):  # (B, T, C), (B,) -> (B, C)
    """Reduce the hidden states of each text to one vector; padding after `lengths` never counts.

    For `last` and `first` the causal mask is enough: no real token has seen the padding behind it.
    `mean` and `max` leave it out. Only the last token has attended to the whole text, and the first
    one to nothing but itself. `last` is what GPT2ForSequenceClassification of transformers does.
    """
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    if pooling == "first":
        return hidden[:, 0]
    real = torch.arange(hidden.size(1), device=hidden.device) < lengths[:, None]  # (B, T)
    if pooling == "mean":
        return (hidden * real[..., None]).sum(1) / lengths[:, None]
    if pooling == "max":
        return hidden.masked_fill(~real[..., None], -math.inf).amax(1)
    raise ValueError(f"pooling {pooling!r} is not one of {POOLINGS}")


class Classifier(nn.Module):
    """A trunk and a head, under the names of transformers' GPT2ForSequenceClassification."""

    def __init__(self, transformer: GPT2, classes: int, pooling="last"):
        super().__init__()
        self.transformer = transformer
        self.score = nn.Linear(transformer.config.n_embd, classes, bias=False)
        self.pooling = pooling
        nn.init.normal_(self.score.weight, std=0.02)

    def pooled(self, ids, lengths):  # (B, T), (B,) -> (B, C)
        """Return the vectors that `score` is given."""
        return pool(self.transformer(ids), lengths, self.pooling)

    def forward(self, ids, lengths):  # (B, T), (B,) -> (B, K)
        return self.score(self.pooled(ids, lengths))
