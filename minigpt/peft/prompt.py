"""Prompt tuning: learned vectors before each text (Lester et al. 2021)."""

import torch
import torch.nn.functional as F
from torch import nn

from minigpt.model import GPT2

# B texts in a batch, T tokens, C channels, N vectors

COMMON = 5000  # tokens: byte-pair encodings number them by how common they are


class PromptedEmbedding(nn.Module):
    """N learned vectors, followed by the embeddings of a text's tokens.

    To the trunk they are N tokens that no vocabulary has. They start as the embeddings of random
    common tokens, and are N C trainable parameters. The context has room for N tokens less.
    """

    def __init__(self, embedding: nn.Embedding, length: int):
        super().__init__()
        self.weight = embedding.weight  # the very same table
        tokens = torch.randint(min(COMMON, len(self.weight)), (length,))
        self.prompt = nn.Parameter(self.weight.detach()[tokens].clone())  # (N, C)

    def forward(self, ids):  # (B, T) -> (B, N + T, C)
        return torch.cat((self.prompt.expand(len(ids), -1, -1), F.embedding(ids, self.weight)), 1)


def add_prompt(trunk: GPT2, length: int) -> None:
    """Put N learned vectors before each text, and drop them again behind the last block."""
    trunk.wte = PromptedEmbedding(trunk.wte, length)
    trunk.h[-1].register_forward_hook(lambda _, inputs, hidden: hidden[:, length:])
