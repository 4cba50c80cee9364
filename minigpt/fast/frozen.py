"""The part that does not learn, computed once: training starts where learning starts.

Let k be the number of leading blocks in which nothing learns, embeddings included. Each text goes
through them once, and the hidden states that enter block k are kept: every epoch begins there. If
nothing learns up to the pooled vector, that is what is kept, and an epoch is a few matrix products,
whatever the size of the trunk.
"""

import dataclasses
import hashlib
import json

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from minigpt.classifier import Classifier, read
from minigpt.data import AT_ONCE, Tokens, token_batches
from minigpt.edge.errors import InputError
from minigpt.fast import store as cache
from minigpt.fast.packed import packed
from minigpt.fit import to_device
from minigpt.model import GPT2
from minigpt.parallel.group import ALONE, Group
from minigpt.weights import Checkpoint

# N texts, B of them in a batch, T tokens in its longest, C channels
# R rows kept: one for each token of all texts, or one for each text if vectors are pooled
FORMAT = 2  # of what is kept on disk: raise it when the numbers or their order change
STORED = {torch.float32: "<f4", torch.bfloat16: "<i2"}  # numpy has no bfloat16: its bits, then


def first_to_learn(trunk: GPT2) -> int:
    """Return k: reading may start from what enters block k, since nothing below it learns.

    As in `GPT2.forward`, ln_f is block n_layer; n_layer + 1 means that all of the trunk is frozen.
    """
    first = [part for name, part in trunk.named_children() if name not in ("h", "ln_f")]
    parts = [nn.ModuleList(first), *trunk.h, trunk.ln_f]
    learns = [any(p.requires_grad for p in part.parameters()) for part in parts]
    return max(0, [*learns, True].index(True) - 1)  # the first part stands before block 0


@dataclasses.dataclass(frozen=True)
class Kept:
    """What the frozen part made of each text, in batches as `Tokens` has them.

    A pooled vector is served as a text of one token, since any pooling of one vector is that
    vector: whoever reads this sees no difference.
    """

    states: np.ndarray  # (R, C)
    starts: np.ndarray  # (N,): text i has rows starts[i] to starts[i] + rows[i]
    rows: np.ndarray  # (N,)
    lengths: np.ndarray  # (N,), in tokens: what batches are formed by
    labels: torch.Tensor  # (N,)
    first: int  # the block that these states enter

    def __len__(self):
        return len(self.labels)

    def batch(self, texts: np.ndarray):  # -> ((B, T, C), (B,), first), (B,)
        """Return (states, lengths, first), labels: a text's last state once more is its padding."""
        rows = self.rows[texts]
        place = np.minimum(np.arange(rows.max()), rows[:, None] - 1)  # (B, T)
        states = torch.from_numpy(self.states[self.starts[texts, None] + place])
        if self.states.dtype == np.int16:
            states = states.view(torch.bfloat16)
        return (states, torch.from_numpy(rows), self.first), self.labels[torch.from_numpy(texts)]


class Unkept:
    """The same, computed when it is asked for: to read a text just once, or to check the kept."""

    def __init__(self, part: "FrozenPart", texts: Tokens):
        self.part, self.texts = part, texts
        self.rows, self.lengths, self.labels = texts.rows, texts.lengths, texts.labels

    def __len__(self):
        return len(self.texts)

    def batch(self, texts: np.ndarray):  # -> ((B, T, C), (B,), first), (B,)
        """Return (states, lengths, first), labels, as `Kept.batch` does."""
        (ids, lengths), labels = self.texts.batch(texts)
        return (*self.part.read(ids, lengths), self.part.first), labels


def all_frozen(model: Classifier) -> bool:
    """Return whether all of the trunk is frozen, so that pooled vectors can be kept."""
    return first_to_learn(model.transformer) > len(model.transformer.h)


def rows_of(model: Classifier, texts: Tokens) -> np.ndarray:  # (N,)
    """Return how many rows are kept of each text: one for each token, or its one pooled vector."""
    return np.ones_like(texts.lengths) if all_frozen(model) else texts.lengths


class FrozenPart:
    """The trunk below block k, for reading only, and pooling, too, where all of it is frozen.

    With a `dtype` other than float32, the frozen part *is* of that type, since casting its weights
    once beats casting them in every batch; what learns keeps its float32 weights and is computed
    under autocast.
    """

    def __init__(self, model: Classifier):
        self.first = first_to_learn(model.transformer)
        self.trunk = packed(model.transformer, self.first, model.dtype)
        self.pooling = model.pooling if all_frozen(model) else None
        self.device = model.score.weight.device

    @torch.no_grad()
    def read(self, ids, lengths):  # (B, T), (B,) -> (B, T, C), (B,), or (B, 1, C), (B,)
        """Return what enters block k, or one pooled vector a text, and how much of it counts."""
        ids, lengths = to_device((ids, lengths), self.device)
        if self.pooling is None:
            return self.trunk(ids, end=self.first), lengths
        return read(self.trunk, ids, lengths, self.pooling)[:, None], torch.ones_like(lengths)

    def of(self, texts: Tokens) -> Unkept | Tokens:
        """Return what serves the same batches as `keep`, without writing anything."""
        return Unkept(self, texts) if self.first else texts


def keep(
    model: Classifier, texts: Tokens, checkpoint: Checkpoint, group: Group = ALONE, quiet=True
) -> Kept | Tokens:
    """Compute what the frozen part makes of all texts, or find it in the cache.

    Returns the texts themselves where there is nothing to save: where the embeddings learn, or the
    first block does. What is kept is found again by everything that it depends on; the frozen part
    is that of the checkpoint. Raises InputError if the cache cannot be written.
    """
    k = first_to_learn(model.transformer)
    if k == 0:
        return texts
    rows = rows_of(model, texts)
    batches = token_batches(texts.lengths, AT_ONCE[model.score.weight.device.type])
    order, starts = np.concatenate(batches), np.empty_like(rows)
    starts[order] = np.cumsum(rows[order]) - rows[order]  # rows stand as they are computed

    about = about_states(model, texts, checkpoint)
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    shape = int(rows.sum()), model.score.in_features
    dtype = STORED[torch.float32 if all_frozen(model) else model.dtype]
    states = cache.load(key, shape, dtype)
    if not group.all_agree(states is not None):
        pieces = frozen_pass(model, texts, batches, group, quiet)
        if group.local_rank == 0:  # one process on each machine writes
            what = f"{model.pooling}-pooled vectors"
            if not all_frozen(model):
                what = f"states before block {k}"
            title = f"{what} of {len(texts)} texts, {checkpoint.name}, {about['dtype'][6:]}"
            states = cache.store(key, shape, dtype, about | {"title": title}, pieces)
        else:
            for _ in pieces:
                pass
        group.all_agree(True)  # none reads before all is written
        states = cache.load(key, shape, dtype) if states is None else states
        if states is None:
            raise InputError("what was kept in the cache is gone at once; is its limit too low?")
    states = np.asarray(states)  # still mapped, but with indexing as fast as an array's
    return Kept(states, starts, rows, texts.lengths, texts.labels, k)


def about_states(model: Classifier, texts: Tokens, checkpoint: Checkpoint) -> dict:
    """Return all that kept states depend on."""
    added = hashlib.sha256()
    with torch.device("meta"):
        official = dict(GPT2(checkpoint.config).named_parameters())
    own = [*model.transformer.named_parameters(), *model.transformer.named_buffers()]
    for name, tensor in own:  # put on (peft.py), and read with while the head is fitted alone
        if name not in official and not tensor.requires_grad:
            added.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return {
        "format": FORMAT,
        "weights": checkpoint.sha256,
        "config": dataclasses.asdict(checkpoint.config),
        "ids": texts.sha256(),
        "added": added.hexdigest(),
        "first": first_to_learn(model.transformer),
        "pooling": model.pooling if all_frozen(model) else None,
        "dtype": str(model.dtype),
        "device": model.score.weight.device.type,
    }


def frozen_pass(model: Classifier, texts: Tokens, batches: list, group: Group, quiet: bool):
    """Yield what enters block k, unpadded, (R, C) float32 or bfloat16's bits: a piece for a batch.

    The batches are shared out to the processes of the group; all get all the pieces, in order.
    """
    part = FrozenPart(model)

    def read_batch(rows):
        states, lengths = part.read(*texts.batch(rows)[0])
        return states[torch.arange(states.size(1)) < lengths[:, None]]  # without the padding

    hide = quiet or group.rank > 0 or None
    with tqdm(total=len(texts), unit=" texts", desc="frozen part", disable=hide) as bar:
        for rows, piece in zip(batches, group.map(read_batch, batches), strict=True):
            bits = piece.cpu() if piece.dtype == torch.float32 else piece.cpu().view(torch.int16)
            yield bits.numpy()
            bar.update(len(rows))
