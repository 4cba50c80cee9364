"""What the experiments stand on: a frozen trunk, labelled texts, and linear probes.

A probe is the head that `train.py --freeze-trunk` fits, with the same recipe, so that an accuracy
here is the accuracy there. Vectors and probes are computed once, and stored.
"""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable

import numpy as np
import tiktoken
import torch
from torch import nn

from minigpt import fit, head
from minigpt.checkpoints import Checkpoint, find_checkpoint, open_tokenizer
from minigpt.cli.program import voices
from minigpt.data import TOKENS_AT_ONCE, Example, Tokens, pairs_of, token_batches, tokenize
from minigpt.datasets import SPLITS, Dataset, load_dataset, split_off
from minigpt.edge.progress import bar
from minigpt.explain.accuracy import accuracy_of, difference, groups_of
from minigpt.explain.hidden_states import POSITIONS, HiddenStates, at_positions, every_layer
from minigpt.fast import (
    PartialClassifier,
    in_processes,
    one_thread,
    packed,
    precompute,
    processes_at_once,
    stored,
)
from minigpt.fast.frozen import depends_on
from minigpt.freeze import freeze
from minigpt.head import HEAD_RECIPE, Vectors, fit_head
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.weights import load_trunk

# N texts, B of them in a batch, T tokens, C channels, L blocks, P positions, K classes

# Texts, so that all of it takes minutes; mirrored is used whole, as by train.py
AT_MOST = {"train": 2000, "dev": 500, "test": 2000}
LARGE = 50e6  # parameters of a trunk whose batches are enough work for several threads


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity
class Study:
    """A frozen trunk and labelled texts."""

    trunk: GPT2  # in eval mode
    checkpoint: Checkpoint
    tokenizer: tiktoken.Encoding
    dataset: Dataset
    tokens: dict[str, Tokens]  # by split
    seed: int = 0
    device: str = "cpu"
    quiet: bool = True
    extra_texts: tuple[str, ...] = ()  # without labels: the user's, for the experiment `reading`

    @property
    def labels(self) -> tuple[str, ...]:
        return self.dataset.labels

    @property
    def layers(self) -> int:
        """The number of layers: one more than blocks."""
        return len(self.trunk.h) + 1

    @property
    def classes(self) -> dict[str, torch.Tensor]:  # (N,) by split
        return {split: texts.labels for split, texts in self.tokens.items()}

    @property
    def chance(self) -> float:
        """The accuracy on test of always predicting the most frequent class of train."""
        counts = torch.bincount(self.classes["train"], minlength=len(self.labels))
        return (self.classes["test"] == counts.argmax()).double().mean().item()

    @property
    def paired(self) -> bool:
        return len(self.labels) == 2 and bool(pairs_of(self.examples("test")))

    def examples(self, split: str) -> list[Example]:
        return getattr(self.dataset, split)

    def tokenize(self, split: str, append_end: bool) -> Tokens:
        """Return the texts of a split as token ids, cut at the trunk's context."""
        context = self.checkpoint.config.n_positions
        return tokenize(self.examples(split), self.labels, self.tokenizer, context, append_end)

    def each(self, function: Callable, jobs: list, title: str):
        """Yield function(job) for each job, in order, and show how much time is left.

        With a small trunk each core has a process of its own: see `in_processes`.
        """
        small = sum(p.numel() for p in self.trunk.parameters()) < LARGE
        processes = processes_at_once() if small and self.device == "cpu" else 1
        with bar(len(jobs), self.quiet, desc=title, leave=False) as shown:
            for result in in_processes(function, jobs, processes):
                yield result
                shown.update()

    # --- vectors, stored from run to run ---

    def frozen_classifier(self, pooling="last") -> PartialClassifier:
        """Return a classifier whose only trainable parameters are those of the head."""
        model = PartialClassifier(self.trunk, len(self.labels), pooling).to(self.device)
        freeze(model, set())
        return model

    def depends_on(self, texts: Tokens) -> dict:
        """Return all that hidden states of these texts depend on."""
        return depends_on(self.frozen_classifier(), texts, self.checkpoint)

    def computed_once(
        self, texts: Tokens, title: str, settings: dict, shape: tuple, batches: list, read: Callable
    ) -> tuple[np.ndarray, np.ndarray]:  # (N, *shape), (N,)
        """Return an array computed from texts, mapped from the cache, and where in it each text is.

        If it is not stored yet, `read(trunk, batch)` computes it, of `shape` for each text of a
        batch; it may depend on `settings` besides trunk and texts.
        """

        def pieces():
            trunk = packed(self.trunk, self.layers)
            return self.each(lambda batch: read(trunk, batch), batches, title)

        full_title = f"{title} of {len(texts)} texts, {self.checkpoint.name}"
        made_of = self.depends_on(texts) | settings
        array = stored(made_of, full_title, (len(texts), *shape), "<f4", pieces)
        return array, np.argsort(np.concatenate(batches))

    def batches(self, texts: Tokens) -> list[np.ndarray]:
        """Return the texts of each batch for reading only, by index."""
        return token_batches(texts.lengths, TOKENS_AT_ONCE[self.device])

    @functools.cached_property
    def hidden_states(self) -> dict[str, HiddenStates]:
        """The hidden states of each split's texts, at all layers and at POSITIONS."""
        return {split: self.read_hidden_states(texts) for split, texts in self.tokens.items()}

    def read_hidden_states(self, texts: Tokens) -> HiddenStates:
        @torch.no_grad()
        def read(trunk, batch):  # -> (B, L + 1, P, C)
            (ids, lengths), _ = texts.batch(batch)
            layers = every_layer(trunk, ids.to(self.device))
            return torch.stack([at_positions(x.float().cpu(), lengths) for x in layers], 1).numpy()

        shape = self.layers, len(POSITIONS), self.trunk.config.n_embd
        settings = {"positions": POSITIONS}
        return HiddenStates(
            *self.computed_once(texts, "hidden states", settings, shape, self.batches(texts), read)
        )

    def at(self, layer: int, position: int | str) -> dict[str, torch.Tensor]:  # (N, C) by split
        """Return the vectors of all texts at one layer and position."""
        return {split: states.at(layer, position) for split, states in self.hidden_states.items()}

    def pooled(self, texts: Tokens, pooling="last") -> torch.Tensor:  # -> (N, C)
        """Return the pooled vectors on which `train.py --freeze-trunk` fits its head."""
        vectors = precompute(self.frozen_classifier(pooling), texts, self.checkpoint)
        return torch.from_numpy(vectors.x[vectors.places])

    def pooled_by_split(self, pooling: str) -> dict[str, torch.Tensor]:  # (N, C) by split
        return {split: self.pooled(texts, pooling) for split, texts in self.tokens.items()}

    def with_random_weights(self, seed: int) -> "Study":
        """Return the same study of a trunk of the same shape that has not been trained."""
        trunk = initialize(GPT2(self.trunk.config), seed).eval().requires_grad_(False)
        name = f"random weights, seed {seed}"
        checkpoint = dataclasses.replace(self.checkpoint, name=name, sha256=name)
        return dataclasses.replace(self, trunk=trunk.to(self.device), checkpoint=checkpoint)

    # --- probes ---

    @functools.cached_property
    def last(self) -> dict[str, torch.Tensor]:  # (N, C) by split
        """The last token's vectors: those on which `train.py --freeze-trunk` fits its head."""
        return self.pooled_by_split("last")

    @functools.cached_property
    def last_logits(self) -> torch.Tensor:  # (N, K)
        """The logits of test by the probe on the last token's vector."""
        return self.logits([self.last], "probe on the last token")[0]

    def parts(self, vectors: dict[str, torch.Tensor]) -> tuple[Vectors, Vectors]:
        """Return what a probe is fitted on, (N, C) by split: texts without such a vector, NaN
        instead, are left out.
        """
        parts = []
        for split in ("train", "dev"):
            texts, x = self.tokens[split], vectors[split]
            exists = ~x.isnan().any(1)
            lengths = texts.lengths[exists.numpy()]
            parts.append(Vectors(x[exists].numpy(), texts.labels[exists], lengths))
        return tuple(parts)

    def probes(self, parts: list[tuple[Vectors, Vectors]], title: str) -> torch.Tensor:
        """Fit a probe on each of these (train, dev); return their matrices, (probes, K, C)."""
        shape = len(parts), len(self.labels), parts[0][0].x.shape[1]
        made_of = {
            "recipe": dataclasses.asdict(HEAD_RECIPE),
            "code": code_of_heads(),
            "fitted on": [sha256_of_vectors(part) for pair in parts for part in pair],
            "classes": len(self.labels),
            "torch": torch.__version__,
        }

        def pieces():
            return self.each(lambda pair: fit_probe(*pair, shape[1]).numpy()[None], parts, title)

        full_title = f"{title}, {self.checkpoint.name}"
        return torch.tensor(stored(made_of, full_title, shape, "<f4", pieces))

    def probe(self, vectors: dict[str, torch.Tensor]) -> torch.Tensor:  # (N, C) by split -> (K, C)
        """Fit a probe on the vectors of train; those of dev choose what the recipe leaves open."""
        return self.probes([self.parts(vectors)], "a probe")[0]

    def logits(self, several: list[dict], title: str) -> list[torch.Tensor]:  # -> (N, K) each
        """Fit a probe on each of several vectors, (N, C) by split; return the logits of test."""
        probes = self.probes([self.parts(vectors) for vectors in several], title)
        pairs = zip(several, probes, strict=True)
        return [vectors["test"].float() @ probe.T for vectors, probe in pairs]

    def accuracy(self, logits, among: list[int] | None = None) -> dict:  # (N, K)
        """Return the accuracy on test, or on some texts of it: by default, all that have logits."""
        if among is None:
            among = (~logits.isnan().any(1)).nonzero()[:, 0].tolist()
        examples = [self.examples("test")[i] for i in among]
        return accuracy_of(logits[among], examples, self.labels)

    def probe_accuracy(self, vectors: dict) -> dict:
        """Fit a probe on vectors, (N, C) by split; return its accuracy as `accuracy` does."""
        return self.accuracy(self.logits([vectors], "a probe")[0])

    def correct(self, logits) -> np.ndarray:  # (N, K) -> (N,)
        """Return which texts of test are classified correctly."""
        return (logits.argmax(1) == self.classes["test"]).numpy()

    def difference(self, a, b) -> dict:  # (N, K) or (N,) each
        """Return by how much `a` is more accurate than `b`: logits of test, or what is correct."""
        a, b = (self.correct(x) if torch.is_tensor(x) else x for x in (a, b))
        return difference(a, b, groups_of(self.examples("test")))

    def lengths_only(self) -> dict[str, torch.Tensor]:  # (N, 2) by split
        """Return as vectors how many tokens each text has, and nothing else."""
        return {s: with_bias(torch.from_numpy(t.lengths)[:, None]) for s, t in self.tokens.items()}

    def among_equal(self, logits, key: Callable) -> dict:  # (N, K)
        """Return the accuracy on the test texts whose pair has the same key(ids) twice."""
        ids, pairs = self.tokens["test"].ids, pairs_of(self.examples("test"))
        among = [i for a, b in pairs if key(ids[a]) == key(ids[b]) for i in (a, b)]
        if not among:
            return {"alike": 0}
        return {"alike": len(among), "alike_accuracy": self.accuracy(logits, among)["accuracy"]}


@one_thread()
def fit_probe(train: Vectors, dev: Vectors, classes: int) -> torch.Tensor:  # -> (K, C)
    """Return the matrix of the head that `train.py --freeze-trunk` would fit on these vectors."""
    score = nn.Linear(train.x.shape[1], classes, bias=False)
    fit_head(score, train, dev, HEAD_RECIPE)
    return score.weight.detach().cpu()


def code_of_heads() -> str:
    """Return a hash of the code that fits heads: what was fitted by another is fitted again."""
    return hashlib.sha256("".join(map(inspect.getsource, (fit, head))).encode()).hexdigest()


def sha256_of_vectors(vectors: Vectors) -> str:
    """Return a hash of all that a probe fitted on these vectors depends on."""
    digest = hashlib.sha256(np.ascontiguousarray(vectors.lengths))
    digest.update(np.ascontiguousarray(vectors.x))
    digest.update(vectors.labels.numpy())
    return digest.hexdigest()


def with_bias(features: torch.Tensor) -> torch.Tensor:  # (N, F) -> (N, F + 1)
    """Add a constant: a probe has no bias, as vectors of a trunk have a mean that serves as one."""
    return torch.cat((features.float(), torch.ones(len(features), 1)), 1)


def sample(examples: list[Example], most: int, seed: int) -> list[Example]:
    """Return at most so many examples, in their order: whole pairs, labels in the same proportions.

    A smaller sample is not a part of a larger one with the same seed.
    """
    if len(examples) <= most:
        return examples
    return split_off(examples, most / len(examples), seed)[1]


def part_of(texts: Tokens, indices) -> Tokens:
    """Return some texts, by index."""
    return Tokens([texts.ids[i] for i in indices], texts.labels[torch.as_tensor(indices)])


def open_study(weights: str | None, data: str, device: str, extra_texts=(), quiet=False) -> Study:
    """Find the weights and the texts. Raises InputError."""
    seed = 0
    checkpoint = find_checkpoint(weights)
    tokenizer = open_tokenizer(checkpoint)
    dataset = load_dataset(data, seed, note=voices()[1])
    parts = {s: sample(getattr(dataset, s), AT_MOST[s], seed) for s in SPLITS}
    dataset = dataclasses.replace(dataset, **parts)
    trunk = load_trunk(checkpoint.folder).eval().requires_grad_(False).to(device)
    study = Study(
        trunk, checkpoint, tokenizer, dataset, {}, seed, device, quiet, tuple(extra_texts)
    )
    return dataclasses.replace(study, tokens={s: study.tokenize(s, False) for s in SPLITS})
