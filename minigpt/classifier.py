"""The head: one vector out of a text's hidden states, and a matrix that scores the classes.

Knows nothing of training.
"""

import math

import torch
from torch import nn

from minigpt.model import GPT2

# B texts, T tokens in the longest, C channels, K classes


def pool(hidden, lengths, how="last"):  # (B, T, C), (B,) -> (B, C)
    """Reduce the hidden states of each text to one vector; padding after `lengths` never counts.

    Under causal attention only the last token has seen the whole text, and only the first token
    has seen nothing else: `last` is what GPT2ForSequenceClassification does.
    """
    if how == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    if how == "first":
        return hidden[:, 0]
    real = torch.arange(hidden.size(1), device=hidden.device) < lengths[:, None]  # (B, T)
    if how == "mean":
        return (hidden * real[..., None]).sum(1) / lengths[:, None]
    if how == "max":
        return hidden.masked_fill(~real[..., None], -math.inf).amax(1)
    raise ValueError(f"pooling {how!r} is not one of {POOLINGS}")


POOLINGS = ("last", "first", "mean", "max")


def read(trunk: GPT2, x, lengths, how="last", first=0):  # (B, T) or (B, T, C), (B,) -> (B, C)
    """Return the pooled vector of each text; `x` and `first` are as in `GPT2.forward`."""
    if how == "last" and first < len(trunk.h):  # what no one will look at is not computed
        hidden = trunk(x, first=first, at=lengths - 1 - x.size(1))
        return hidden[:, 0].float()
    return pool(trunk(x, first=first).float(), lengths, how)


class Classifier(nn.Module):
    """A trunk and a head, under the names of transformers' GPT2ForSequenceClassification.

    `dtype` is what the trunk computes in, its parameters staying as they are; pooling, head and
    loss are always in float32.
    """

    def __init__(self, transformer: GPT2, classes: int, pooling="last", dtype=torch.float32):
        super().__init__()
        self.transformer = transformer
        self.score = nn.Linear(transformer.config.n_embd, classes, bias=False)
        self.pooling = pooling
        self.dtype = dtype
        nn.init.normal_(self.score.weight, std=0.02)

    def pooled(self, x, lengths, first=0):  # (B, T) or (B, T, C), (B,) -> (B, C)
        """Return the vectors that `score` is given; `x` and `first` as in `GPT2.forward`."""
        x = x.float() if first else x  # what was kept may be in bfloat16
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return read(self.transformer, x, lengths, self.pooling, first)

    def forward(self, x, lengths, first=0):  # as `pooled` -> (B, K)
        return self.score(self.pooled(x, lengths, first))
