"""The part that is not trained, computed once: training starts where trainable parameters start.

Let k be the number of leading blocks in which nothing is trained, embeddings included. Each text
goes through them once, and the hidden states that enter block k are stored: every epoch begins
there. If nothing is trained up to the pooled vector, that vector is stored, and an epoch is a few
matrix products, whatever the size of the trunk.
"""

import dataclasses
import hashlib

import numpy as np
import torch
from torch import nn

from minigpt.checkpoints.find import Checkpoint
from minigpt.data import TOKENS_AT_ONCE, Tokens, token_batches
from minigpt.edge.errors import InputError
from minigpt.edge.progress import bar
from minigpt.fast.int8 import check_int8
from minigpt.fast.packing import packed
from minigpt.fast.partial import PartialClassifier, pool_from, run_blocks
from minigpt.fast.store import stored
from minigpt.fit import read_all, to_device
from minigpt.head import Vectors
from minigpt.model import GPT2
from minigpt.parallel.group import GROUP_OF_ONE, Group

# N texts, B of them in a batch, T tokens in its longest, C channels
# R rows stored: one for each token of all texts, or one for each text if vectors are pooled

# Tokens times channels that are read at once on a CPU: 768 tokens of 256 channels, or 256 of 768
AT_ONCE = 196_608
FORMAT = 3  # of what is stored: raise it when the numbers or their order change
# numpy has no bfloat16: its bits, then; and what layers in int8 compute is in float32
STORED = {torch.float32: "<f4", torch.bfloat16: "<i2", torch.int8: "<f4"}


def first_trainable(trunk: GPT2) -> int:
    """Return k: reading may start from what enters block k, since nothing below is trained.

    As in partial.py, ln_f is block n_layer; n_layer + 1 means that all of the trunk is frozen.
    """
    below = [part for name, part in trunk.named_children() if name not in ("h", "ln_f")]
    parts = [nn.ModuleList(below), *trunk.h, trunk.ln_f]
    trained = [any(p.requires_grad for p in part.parameters()) for part in parts]
    return max(0, [*trained, True].index(True) - 1)  # the first part is before block 0


def tokens_at_once(model: PartialClassifier) -> int:
    """Return how many tokens the frozen part reads at once."""
    device = model.score.weight.device.type
    return AT_ONCE // model.score.in_features if device == "cpu" else TOKENS_AT_ONCE[device]


def check_frozen_part(model: PartialClassifier) -> None:
    """Raise InputError if only what is frozen is to be in int8, and there is nothing to compute."""
    if model.dtype == torch.int8 and first_trainable(model.transformer) == 0:
        raise InputError(
            "--dtype int8 is for frozen blocks below what is trained, and here training starts at "
            "the first block; see --train-last and --in-last, or use another --dtype"
        )


@dataclasses.dataclass(frozen=True)
class StoredVectors(Vectors):
    """Pooled vectors, mapped from disk in the order in which they were computed."""

    places: np.ndarray  # (N,): where the vector of text i is

    def batch(self, indices: np.ndarray):  # (B,) -> ((B, C),), (B,)
        """Return (vectors,), labels."""
        x = torch.from_numpy(self.x[self.places[indices]])
        return (x,), self.labels[torch.from_numpy(indices)]


@dataclasses.dataclass(frozen=True)
class StoredStates:
    """The hidden states of texts that enter block `first`, in batches as `Tokens` has them."""

    states: np.ndarray  # (R, C), mapped from disk
    starts: np.ndarray  # (N,): text i has rows starts[i] to starts[i] + lengths[i]
    lengths: np.ndarray  # (N,)
    labels: torch.Tensor  # (N,)
    first: int

    def __len__(self):
        return len(self.labels)

    @property
    def sizes(self) -> np.ndarray:  # (N,)
        """How much of a batch each text takes: one row for each of its tokens."""
        return self.lengths

    def batch(self, texts: np.ndarray):  # (B,) indices -> ((B, T, C), (B,), first), (B,)
        """Return (states, lengths, first), labels: padded with the last state of each text."""
        lengths = self.lengths[texts]
        rows = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)  # (B, T)
        states = torch.from_numpy(self.states[self.starts[texts, None] + rows])
        if self.states.dtype == np.int16:
            states = states.view(torch.bfloat16)
        return (states, torch.from_numpy(lengths), self.first), self.labels[torch.from_numpy(texts)]


class FrozenPart:
    """The trunk below block k, for reading only, and pooling, too, where all of it is frozen.

    With a `dtype` other than float32, the frozen part *has* that type, since converting its weights
    once is faster than in every batch; what is trained keeps its float32 weights and is computed
    under autocast, or, with int8, in float32. Raises InputError for int8 where there is none.
    """

    def __init__(self, model: PartialClassifier):
        if model.dtype == torch.int8:
            check_int8(model.score.weight.device.type)
        self.model, self.first = model, first_trainable(model.transformer)
        self.trunk = packed(model.transformer, self.first, model.dtype)
        self.pooling = model.pooling if self.first > len(self.trunk.h) else None
        self.device = model.score.weight.device

    @torch.no_grad()
    def read(self, ids, lengths):  # (B, T), (B,) -> (B, T, C), or (B, C) where vectors are pooled
        """Return what enters block k, or the pooled vectors."""
        ids, lengths = to_device((ids, lengths), self.device)
        if self.pooling is None:
            return run_blocks(self.trunk, self.trunk.embed(ids), 0, self.first)
        return pool_from(self.trunk, ids, lengths, self.pooling)

    def pooled(self, ids, lengths):  # (B, T), (B,) -> (B, C)
        """Return the pooled vectors of a batch, without storing anything."""
        x = self.read(ids, lengths) if self.first else ids
        return x if self.pooling else self.model.pooled(x, lengths, self.first)

    def logits(self, ids, lengths):  # (B, T), (B,) -> (B, K)
        """Return the logits of a batch."""
        return self.model.score(self.pooled(ids, lengths))

    def vectors_of(self, texts: Tokens):  # -> (N, C)
        """Return the pooled vectors of texts."""
        return read_all(self.pooled, texts, self.device, tokens=tokens_at_once(self.model))

    def logits_of(self, texts: Tokens):  # -> (N, K)
        """Return the logits of texts."""
        return read_all(self.logits, texts, self.device, tokens=tokens_at_once(self.model))


def precompute(
    model: PartialClassifier,
    texts: Tokens,
    checkpoint: Checkpoint,
    group: Group = GROUP_OF_ONE,
    quiet=True,
) -> Tokens | StoredStates | StoredVectors:
    """Return what training starts from: computed by the frozen part, or found in the cache.

    That is the texts themselves where there is nothing to save: where the embeddings are trained,
    or the first block is. The frozen part must be that of the checkpoint: what is stored is found
    again by everything that it depends on. Raises InputError if the cache cannot be written.
    """
    k = first_trainable(model.transformer)
    if k == 0:
        return texts
    pooled = k > len(model.transformer.h)
    sizes = np.ones_like(texts.lengths) if pooled else texts.lengths
    batches = token_batches(texts.lengths, tokens_at_once(model))
    order, starts = np.concatenate(batches), np.empty_like(sizes)
    starts[order] = np.cumsum(sizes[order]) - sizes[order]  # in the order of computation

    what = f"{model.pooling}-pooled vectors" if pooled else f"states after block {k}"
    dtype = str(model.dtype).removeprefix("torch.")
    states = stored(
        depends_on(model, texts, checkpoint),
        f"{what} of {len(texts)} texts, {checkpoint.name}, {dtype}",
        (int(sizes.sum()), model.score.in_features),
        STORED[torch.float32 if pooled else model.dtype],
        lambda: frozen_pass(model, texts, batches, group, quiet),
        group,
    )
    if pooled:
        return StoredVectors(states, texts.labels, texts.lengths, starts)
    return StoredStates(states, starts, texts.lengths, texts.labels, k)


def depends_on(model: PartialClassifier, texts: Tokens, checkpoint: Checkpoint) -> dict:
    """Return everything that the hidden states of the frozen part depend on."""
    k, added = first_trainable(model.transformer), hashlib.sha256()
    with torch.device("meta"):
        official = dict(GPT2(checkpoint.config).named_parameters())
    for name, tensor in model.transformer.named_parameters():
        # Of a tuning method, while the head alone is trained (LoRA's B is zero then)
        if name not in official and not tensor.requires_grad:
            added.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return {
        "format": FORMAT,
        "weights": checkpoint.sha256,
        "config": dataclasses.asdict(checkpoint.config),
        "ids": sha256_of_ids(texts),
        "added": added.hexdigest(),
        "first": k,
        "pooling": model.pooling if k > len(model.transformer.h) else None,
        "dtype": str(model.dtype),
        "device": model.score.weight.device.type,
    }


def sha256_of_ids(texts: Tokens) -> str:
    """Return a hash of the ids alone, which depend on texts, tokenizer and limits."""
    digest = hashlib.sha256(np.ascontiguousarray(texts.lengths))
    for ids in texts.ids:
        digest.update(ids)
    return digest.hexdigest()


def frozen_pass(model: PartialClassifier, texts: Tokens, batches: list, group: Group, quiet: bool):
    """Yield what enters block k, unpadded, (R, C) float32 or bfloat16's bits: a piece for a batch.

    The processes of the group share the batches; all get all the pieces, in order.
    """
    part = FrozenPart(model)

    def read_batch(batch):
        (ids, lengths), _ = texts.batch(batch)
        states = part.read(ids, lengths)
        if part.pooling:
            return states
        real = torch.arange(states.size(1)) < lengths[:, None]  # (B, T)
        return states[real.to(states.device)]

    with bar(len(texts), quiet or group.rank > 0, unit=" texts", desc="frozen part") as shown:
        for batch, piece in zip(batches, group.map(read_batch, batches), strict=True):
            bits = piece.cpu() if piece.dtype == torch.float32 else piece.cpu().view(torch.int16)
            yield bits.numpy()
            shown.update(len(batch))
