"""The GPT-2 trunk by hand: token ids in, one hidden state for each token out.

Modules and parameters bear the names of the official files, so that those load as they are.
Knows nothing of files, text or labels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minigpt.config import GPT2Config

# B texts in a batch, T tokens, C channels (n_embd), H heads, D = C // H, V vocabulary
# P tokens already in the past, S = P + T tokens that can be looked at


def attention(q, k, v, dropout=0.0):  # (B, H, T, D), (B, H, S, D) x 2 -> (B, H, T, D)
    """Causal attention, as the formula has it: softmax(q kᵀ / √D) v (Vaswani et al. 2017).

    The queries are those of the last T of the S tokens. Each token sees itself and what came
    before. In a batch padded on the right, the padding comes after: no real token ever sees it.
    """
    T, S = q.size(-2), k.size(-2)
    sees = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))  # (B, H, T, S)
    weights = scores.masked_fill(~sees, -math.inf).softmax(-1)
    return F.dropout(weights, dropout) @ v


def fused_attention(q, k, v, dropout=0.0):  # as `attention`
    """The same in one kernel, which never writes the (T, S) scores to memory."""
    T, S = q.size(-2), k.size(-2)
    if T == S:  # the kernel's own causal mask holds for a square
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    if T == 1:  # one query sees all
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    sees = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=sees, dropout_p=dropout)


class Past:
    """The keys and values that one block computed for earlier tokens.

    Generation grows it, so that each new token is computed once: (B, H, T, D) in,
    (B, H, S, D) out. It may start with keys and values that no token has: a learned prefix.
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

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x):  # (..., in) -> (..., out)
        return F.linear(x, self.weight.T, self.bias)  # up to 25 % faster than x @ weight + bias


class Attention(nn.Module):
    """Causal multi-head self-attention: where one token's vector hears of the others."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.attn_pdrop = config.attn_pdrop
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.attention = fused_attention  # an experiment may put another function here

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
    """Two layers over each token's vector by itself."""

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
    """Attention, then MLP, each reading a normed copy and adding to the residual stream."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x, past: Past | None = None, at=None):  # (B, T, C) -> (B, T or 1, C)
        x = x + self.attn(self.ln_1(x), past)
        if at is not None:  # (B,): from here on tokens have no part in each other
            x = x[torch.arange(len(x), device=x.device), at, None]  # (B, 1, C)
        x = x + self.mlp(self.ln_2(x))
        return x


def embedding(rows: int, width: int) -> nn.Embedding:
    """Return a table without values: drawing random ones, even on `meta`, would cost a second."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)


class GPT2(nn.Module):
    """The trunk. Source: Radford et al. 2019; names of the `openai-community/gpt2` files."""

    def __init__(self, config: GPT2Config):
        super().__init__()
        self.config = config
        self.wte = embedding(config.vocab_size, config.n_embd)
        self.wpe = embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, x, past: list[Past] | None = None, *, first=0, end=None, at=None):
        """Read token ids (B, T), after what `past` holds (one Past a block, grown in place).

        Block `first` is the first to run, block `end` the first that does not; ln_f counts as block
        n_layer. With `first` above 0, `x` holds what enters that block instead of ids: (B, T, C).
        If one token of each text is all that is wanted, `at` (B,) says which, counted from the end
        of the batch (-1 is its last place), since something may be put before the texts. Then the
        last block's MLP is spared the others, and what comes out of that block is (B, 1, C).
        """
        if first == 0:
            start, x = len(past[0]) if past else 0, self.wte(x)
            positions = torch.arange(start, start + x.size(1), device=x.device)
            x = self.drop(x + self.wpe(positions))
        blocks = len(self.h)
        end = blocks + 1 if end is None else end
        for i in range(first, min(end, blocks)):
            x = self.h[i](x, past[i] if past else None, at if i == blocks - 1 else None)
        return self.ln_f(x) if first <= blocks < end else x

    def next_token_logits(self, hidden):  # (..., C) -> (..., V)
        """Score each token of the vocabulary as the next one; the output matrix is `wte` again."""
        return F.linear(hidden, self.wte.weight)


@torch.no_grad()
def initialize(model: GPT2, seed: int = 0) -> GPT2:
    """Fill a trunk with random values, as GPT-2's training began with (Radford et al. 2019)."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if name.endswith("bias"):
            tensor.zero_()
        elif tensor.dim() == 1:  # the gain of a layer norm
            tensor.fill_(1.0)
        else:
            std = 0.01 if name == "wpe.weight" else 0.02
            if name.endswith("c_proj.weight"):  # 2 of them add to the residual stream in each block
                std /= math.sqrt(2 * model.config.n_layer)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
    return model
