"""A classifier that may start at any block, in bfloat16, and that skips what pooling drops.

Built from `GPT2.embed`, its blocks and `ln_f`, which model.py has for such use. Here ln_f counts as
block n_layer, so that block n_layer + 1 is behind the whole trunk.
"""

import torch

from minigpt.classifier import Classifier, pool
from minigpt.model import GPT2

# B texts in a batch, T tokens, C channels, K classes


def run_blocks(trunk: GPT2, x, first: int, end: int):  # (B, T, C) -> (B, T, C)
    """Return the hidden states that enter block `end`, from those that enter block `first`."""
    for block in trunk.h[first:end]:
        x = block(x)
    return trunk.ln_f(x) if first <= len(trunk.h) < end else x


def pool_from(trunk: GPT2, x, lengths, pooling: str, first=0):  # (B, T) or (B, T, C) -> (B, C)
    """Return the pooled vectors, in float32, from ids, or the hidden states that enter `first`.

    Where the last token alone is pooled, the last MLP, two thirds of the last block, is computed
    for that token alone: behind the last attention, tokens exchange no more information.
    """
    blocks, from_end = len(trunk.h), lengths - 1 - x.size(1)
    x = x if first else trunk.embed(x)
    if pooling != "last" or first >= blocks:
        return pool(run_blocks(trunk, x, first, blocks + 1).float(), lengths, pooling)
    x = run_blocks(trunk, x, first, blocks - 1)
    block, texts = trunk.h[-1], torch.arange(len(x), device=x.device)
    x = x + block.attn(block.ln_1(x))
    x = x[texts, from_end, None]  # (B, 1, C); from the end, since a prompt may be before the texts
    x = x + block.mlp(block.ln_2(x))
    return trunk.ln_f(x)[:, 0].float()


def compile_blocks(trunk: GPT2) -> None:
    """Compile the blocks, and the two parts of the last one, which `pool_from` calls separately."""
    for module in (*trunk.h, trunk.h[-1].attn, trunk.h[-1].mlp):
        module.compile(dynamic=True)


class PartialClassifier(Classifier):
    """A classifier that reads token ids, or, from block `first` on, hidden states.

    `dtype` is what the trunk computes in, while its parameters stay as they are; pooling, head and
    loss are always in float32. int8 is for what is not trained (frozen.py): here it is float32.
    """

    def __init__(self, transformer: GPT2, classes: int, pooling="last", dtype=torch.float32):
        super().__init__(transformer, classes, pooling)
        self.dtype = dtype

    def pooled(self, x, lengths, first=0):  # (B, T) ids, or (B, T, C) if first > 0 -> (B, C)
        with torch.autocast(x.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            x = x.float() if first else x  # what was stored may be in bfloat16
            return pool_from(self.transformer, x, lengths, self.pooling, first)

    def forward(self, x, lengths, first=0):  # as `pooled` -> (B, K)
        return self.score(self.pooled(x, lengths, first))
