"""The GPT-2 trunk by hand: token ids in, one hidden state for each token out.

Modules and parameters have the names of the official files, so that those load as they are.
Knows nothing of files, text or labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minigpt.config import GPT2Config

# B texts in a batch, T tokens, C channels (n_embd), H heads, D = C // H, V vocabulary
# P tokens already in the past, S = P + T tokens that can be attended to: without a past, S = T


def attention(q, k, v, dropout=0.0):  # (B, H, T, D), (B, H, S, D) x 2 -> (B, H, T, D)
    """Causal attention as in the formula: softmax(q kᵀ / √D) v (Vaswani et al. 2017).

    Each token attends to itself and to what came before. (S > T in generation, and with a prefix:
    then the queries are those of the last T tokens.) In a batch padded on the right, the padding
    comes after: no real token sees it.
    """
    T, S = q.size(-2), k.size(-2)
    # Row t is token P + t of S: it sees columns 0 to P + t, and P is 0 without a past
    sees = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, H, T, S)
    weights = scores.masked_fill(~sees, -math.inf).softmax(-1)
    return F.dropout(weights, dropout) @ v


def fused_attention(q, k, v, dropout=0.0):  # as `attention`
    """The same in one kernel, which never writes the (T, S) scores to memory."""
    T, S = q.size(-2), k.size(-2)
    if T == S:  # its own causal mask is that of a square: wrong behind a past
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    if T == 1:  # one query, the last, attends to all
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    sees = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, dropout_p=dropout)


class Past:
    """The keys and values that one block computed for earlier tokens.

    Generation extends it, so that each new token is computed once: a Past is for one text, or one
    batch. It may start with keys and values of no token: prefix tuning learns them.
    """

    def __init__(self, keys=None, values=None):  # (B, H, P, D) x 2, or empty
        self.keys, self.values = keys, values

    def __len__(self):
        return 0 if self.keys is None else self.keys.size(-2)

    def extend(self, k, v):  # (B, H, T, D) x 2 -> (B, H, S, D) x 2
        if self.keys is not None:
            k, v = torch.cat((self.keys, k), -2), torch.cat((self.values, v), -2)
        self.keys, self.values = k, v
        return k, v


class Linear(nn.Module):
    """x W + b, with W stored (in, out) as in the official files (where it is named Conv1D)."""

    # F.linear is up to 25 % faster than x @ W + b; fast/ has another function of this signature
    product = staticmethod(F.linear)

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):  # (..., in) -> (..., out)
        return self.product(x, self.weight.T, self.bias)


class Attention(nn.Module):
    """Causal multi-head self-attention: the only place where tokens exchange information."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)  # to q, k and v, side by side
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.attn_pdrop = config.attn_pdrop
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.attention = fused_attention  # or any function of the same signature

    def forward(self, x, past: Past | None = None):  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        if past is not None:
            k, v = past.extend(k, v)
        y = self.attention(q, k, v, self.attn_pdrop if self.training else 0.0)
        y = y.transpose(1, 2).reshape(B, T, C)  # the heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two layers, applied to each token's vector separately."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.mlp_width)
        # GPT-2 was trained with the tanh form of GELU (Hendrycks & Gimpel 2016): not the exact one
        self.act = nn.GELU(approximate="tanh")
        self.c_proj = Linear(config.mlp_width, config.n_embd)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    """Attention, then MLP: each reads a normalized copy of x and adds to x, the residual stream.

    (Vaswani et al. normalize afterwards: then x itself is changed by every block.)
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x, past: Past | None = None):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x), past)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT2(nn.Module):
    """The trunk. Source: Radford et al. 2019; names of the `openai-community/gpt2` files."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # of tokens
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # of positions, learned as well
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def embed(self, ids, past: list[Past] | None = None):  # (B, T) -> (B, T, C)
        """Look up each token and its position. Positions count on from what `past` holds."""
        x = self.wte(ids)
        start = len(past[0]) if past else 0
        positions = torch.arange(start, start + x.size(1), device=x.device)
        return self.drop(x + self.wpe(positions))

    def forward(self, ids, past: list[Past] | None = None):  # (B, T) -> (B, T, C)
        """Read token ids. `past` has one Past for each block, and is extended in place."""
        x = self.embed(ids, past)
        for i, block in enumerate(self.h):
            x = block(x, past[i] if past else None)
        return self.ln_f(x)

    def next_token_logits(self, hidden):  # (..., C) -> (..., V)
        """Score each token of the vocabulary as the next one; the output matrix is `wte`, too."""
        return F.linear(hidden, self.wte.weight)
