"""Parameter-efficient tuning: a few numbers, put on a frozen trunk from outside, that learn.

LoRA and a prompt put a module of the same weights in another's place; adapters and a prefix hang on
hooks. So the trunk's own tensors keep their official names, and model.py knows nothing of this.
"""

import fnmatch
import math

import torch
import torch.nn.functional as F
from torch import nn

from minigpt.config import GPT2Config
from minigpt.edge.errors import InputError
from minigpt.model import GPT2, Linear, Past

# B texts in a batch, T tokens, C channels, L blocks, H heads, D = C // H
# N vectors of a prompt or prefix, r rank of LoRA or width of an adapter

COMMON = 5000  # tokens: byte-pair encodings number them by how common they are


class LoRALinear(Linear):
    """x W + b + (x A B) α / r: a change of the weight, but one of rank r (Hu et al. 2021).

    A: (in, r), random; B: (r, out), zero, so that nothing changes at the start. It learns
    r (in + out) numbers for each such layer. α / r keeps the size of the change the same when r is
    changed. Afterwards A B α / r can be added to W, and reading costs nothing more.
    """

    def __init__(self, linear: Linear, rank: int, alpha: float, dropout: float):
        nn.Module.__init__(self)  # the weights are those of the layer it replaces
        self.weight, self.bias = linear.weight, linear.bias
        inputs, outputs = linear.weight.shape
        self.lora_A = nn.Parameter(linear.weight.new_empty(inputs, rank))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(rank, outputs))
        nn.init.uniform_(self.lora_A, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))  # as in peft
        self.register_buffer("scale", torch.tensor(alpha / rank), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):  # (..., in) -> (..., out)
        return super().forward(x) + self.dropout(x) @ self.lora_A @ self.lora_B * self.scale

    @torch.no_grad()
    def merged(self) -> Linear:
        """Return a plain layer that computes the same."""
        linear = Linear(0, 0)
        linear.weight = nn.Parameter(self.weight + self.lora_A @ self.lora_B * self.scale)
        linear.bias = self.bias
        return linear


class Adapter(nn.Module):
    """y + GELU(y W₁ + b₁) W₂ + b₂, through a bottleneck of r channels (Houlsby et al. 2019).

    It stands behind attention, and another behind the MLP, before their output is added to the
    residual stream. W₂ and b₂ are zero at the start: nothing changes. It learns 2 C r + r + C
    numbers, twice in each block.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.down, self.up = Linear(channels, width), Linear(width, channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        nn.init.normal_(self.down.weight, std=0.01)

    def forward(self, y):  # (B, T, C) -> (B, T, C)
        return y + self.up(F.gelu(self.down(y), approximate="tanh"))


def adapt(module: nn.Module, _, output):
    """Pass what a module gives through its adapter: a forward hook."""
    return module.adapter(output)


class PromptedEmbedding(nn.Module):
    """N learned vectors, and behind them the embeddings of a text's tokens (Lester et al. 2021).

    To the trunk they are N tokens that no vocabulary has. They start as the embeddings of random
    common tokens, and are N C numbers. The context has room for N tokens less.
    """

    def __init__(self, embedding: nn.Embedding, length: int):
        super().__init__()
        self.weight = embedding.weight  # the very table
        tokens = torch.randint(min(COMMON, len(self.weight)), (length,))
        self.prompt = nn.Parameter(self.weight.detach()[tokens].clone())  # (N, C)

    def forward(self, ids):  # (B, T) -> (B, N + T, C)
        return torch.cat((self.prompt.expand(len(ids), -1, -1), F.embedding(ids, self.weight)), 1)


def without_prompt(trunk: GPT2, _, kwargs, hidden):
    """Drop the hidden states at the prompt, which no text has: a forward hook of the trunk.

    They are not dropped halfway (`end`), not met again when reading goes on from there (`first`),
    and not among the tokens that are wanted (`at`).
    """
    halfway = kwargs.get("first") or kwargs.get("end") is not None
    if halfway or kwargs.get("at") is not None:
        return hidden
    return hidden[:, len(trunk.wte.prompt) :]


class Prefix(nn.Module):
    """N learned keys and values in every block, for all tokens to look at (Li & Liang 2021).

    They are a past that no token had. They start as those of N random common tokens, which learns
    better than random numbers (ibid., section 7.4), and are 2 L N C numbers, learned as they are
    and not through a network (P-Tuning v2, Liu et al. 2022). The context has room for N tokens
    less, since positions count on from there.
    """

    def __init__(self, trunk: GPT2, length: int):
        super().__init__()
        past = [Past() for _ in trunk.h]
        with torch.no_grad():
            trunk(torch.randint(min(COMMON, len(trunk.wte.weight)), (1, length)), past)
        self.keys = nn.Parameter(torch.cat([block.keys for block in past]))  # (L, H, N, D)
        self.values = nn.Parameter(torch.cat([block.values for block in past]))

    def past(self, texts: int) -> list[Past]:
        """Return a past of N tokens for each block: (B, H, N, D) keys and values."""
        return [
            Past(k.expand(texts, -1, -1, -1), v.expand(texts, -1, -1, -1))
            for k, v in zip(self.keys, self.values, strict=True)
        ]


def with_prefix(trunk: GPT2, args, kwargs):
    """Let a trunk begin with its learned past: a hook before its forward."""
    return args, kwargs | {"past": trunk.prefix.past(len(args[0]))}


METHODS = ("lora", "adapter", "prompt", "prefix")


def method_of(flags: dict) -> str | None:
    """Return which of the methods the flags ask for, if any."""
    return next((name for name in METHODS if flags.get(name) is not None), None)


def room_for_text(config: GPT2Config, flags: dict) -> tuple[int, int]:
    """Return the fewest and the most tokens a text can be cut to, its end token included.

    A prompt or a prefix takes its room from the context.
    """
    taken = flags.get("prompt") or flags.get("prefix") or 0
    return 1 + flags["append_end"], config.n_positions - taken


def put_on(trunk: GPT2, flags: dict) -> set[str]:
    """Put on the trunk what the flags say; return the names of the parameters that came with it.

    `flags` are those of train.py: "lora" R with "lora_alpha", "lora_on" and "lora_dropout";
    "adapter" R; "prompt" N; "prefix" N. LoRA and adapters go in the last "in_last" blocks, or in
    all. Raises InputError for what does not fit the trunk.
    """
    method, before = method_of(flags), {name for name, _ in trunk.named_parameters()}
    if method is None:
        return set()
    amount, context, width = flags[method], trunk.config.n_positions, trunk.config.n_embd
    if method in ("prompt", "prefix"):
        if not 1 <= amount < context:
            raise InputError(f"--{method} {amount}: 1 to {context - 1} leave room for a text")
    elif not 1 <= amount <= width:
        raise InputError(f"--{method} {amount}: it can be 1 to {width}, the width of the trunk")
    blocks = len(trunk.h)
    last = blocks if flags.get("in_last") is None else flags["in_last"]
    if not 1 <= last <= blocks:
        raise InputError(f"--in-last {last}: the trunk has blocks 1 to {blocks}")

    if method == "lora":
        names = linear_layers(trunk, flags["lora_on"], last)
        for name in names:
            linear, more = trunk.get_submodule(name), (flags["lora_alpha"], flags["lora_dropout"])
            trunk.set_submodule(name, LoRALinear(linear, amount, *more))
    elif method == "adapter":
        for block in trunk.h[blocks - last :]:
            for module in (block.attn, block.mlp):
                module.adapter = Adapter(width, amount)
                module.register_forward_hook(adapt)
    elif method == "prompt":
        trunk.wte = PromptedEmbedding(trunk.wte, amount)
        trunk.register_forward_hook(without_prompt, with_kwargs=True)
    else:
        trunk.prefix = Prefix(trunk, amount)
        trunk.register_forward_pre_hook(with_prefix, with_kwargs=True)
    return {name for name, _ in trunk.named_parameters()} - before


def linear_layers(trunk: GPT2, globs: str, last: int) -> list[str]:
    """Return the linear layers in the last blocks whose names, or ends of them, match a glob."""
    there = [
        f"h.{i}.{name}"
        for i in range(len(trunk.h) - last, len(trunk.h))
        for name, module in trunk.h[i].named_modules()
        if isinstance(module, Linear)
    ]
    chosen = set()
    for glob in globs.split(","):
        matching = {name for name in there if fnmatch.fnmatch(f".{name}", f"*.{glob.strip()}")}
        if not matching:
            raise InputError(f"--lora-on {glob!r} matches no layer; they are like {there[0]}")
        chosen |= matching
    return sorted(chosen)


def merge(trunk: GPT2) -> None:
    """Add what LoRA has learned to the weights: plain layers are left, which compute the same."""
    for name, module in list(trunk.named_modules()):
        if isinstance(module, LoRALinear):
            trunk.set_submodule(name, module.merged())
