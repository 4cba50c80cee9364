"""What the experiments of `explain` stand on: a frozen trunk, labelled texts, and what the one
makes of the other, computed once and kept.
"""

import dataclasses
import functools
from collections import defaultdict

import numpy as np
import tiktoken
import torch
from tqdm import tqdm

from minigpt.classifier import Classifier
from minigpt.data import AT_ONCE, Tokens, token_batches, tokenize
from minigpt.datasets.formats import Example
from minigpt.datasets.load import SPLITS, Dataset, load_dataset, split_off
from minigpt.explain.probes import Probe, fit_probe, judge
from minigpt.explain.states import PLACES, States, at_places, every_layer, kept
from minigpt.fast.frozen import about_states, keep
from minigpt.fast.packed import packed
from minigpt.freeze import freeze
from minigpt.model import GPT2, initialize
from minigpt.tokenizer import load_tokenizer
from minigpt.weights import Checkpoint, find_checkpoint, load_trunk

# N texts, B of them in a batch, T tokens, C channels, L blocks, P places

AT_MOST = {"train": 1000, "dev": 250, "test": 1000}  # texts: enough to see what there is to see


@dataclasses.dataclass(frozen=True, eq=False)  # compared, and hashed, by identity
class Bench:
    """A frozen trunk and labelled texts."""

    trunk: GPT2  # in eval mode
    checkpoint: Checkpoint
    tokenizer: tiktoken.Encoding
    dataset: Dataset
    tokens: dict[str, Tokens]  # by split
    seed: int = 0
    device: str = "cpu"
    quiet: bool = True
    texts: tuple[str, ...] = ()  # what the reader wants to see read

    @property
    def labels(self) -> tuple[str, ...]:
        return self.dataset.labels

    @property
    def layers(self) -> int:
        """The number of layers: one more than blocks."""
        return len(self.trunk.h) + 1

    @property
    def chance(self) -> float:
        """What always naming the commonest class of train is worth on test."""
        counts = torch.bincount(self.tokens["train"].labels, minlength=len(self.labels))
        return (self.tokens["test"].labels == counts.argmax()).double().mean().item()

    @property
    def paired(self) -> bool:
        return len(self.labels) == 2 and any(e.pair for e in self.examples("test"))

    @property
    def classes(self) -> dict[str, torch.Tensor]:  # (N,) by split
        return {split: texts.labels for split, texts in self.tokens.items()}

    def examples(self, split: str) -> list[Example]:
        return getattr(self.dataset, split)

    def tokenize(self, split: str, append_end: bool) -> Tokens:
        """Return the texts of a split as token ids, within the trunk's context."""
        context = self.checkpoint.config.n_positions
        return tokenize(self.examples(split), self.labels, self.tokenizer, context, append_end)

    @functools.cache  # noqa: B019 - a bench lives as long as the program
    def states(self, split: str) -> "States":
        """Return what the trunk makes of a split's texts, at all layers and places."""
        texts = self.tokens[split]
        batches = token_batches(texts.lengths, AT_ONCE[self.device])
        about = self.about(texts) | {"places": PLACES}
        shape = (len(texts), self.layers, len(PLACES), self.trunk.config.n_embd)
        title = f"states of {len(texts)} texts at {len(PLACES)} places, {self.checkpoint.name}"
        array = kept(about, title, shape, lambda: self.pieces(texts, batches))
        return States(array, np.argsort(np.concatenate(batches)), texts.lengths)

    @torch.no_grad()
    def pieces(self, texts: Tokens, batches: list):  # -> (B, L + 1, P, C) each
        trunk = packed(self.trunk, self.layers)
        for rows in tqdm(batches, desc="hidden states", disable=self.quiet or None, leave=False):
            (ids, lengths), _ = texts.batch(rows)
            layers = every_layer(trunk, ids.to(self.device))
            found = [at_places(x.float().cpu(), lengths) for x in layers]  # (B, P, C) each
            yield torch.stack(found, 1).numpy()

    def pooled(self, texts: Tokens, pooling="last") -> torch.Tensor:  # -> (N, C)
        """Return the trunk's pooled vectors of texts, kept as train.py keeps them."""
        vectors = keep(self.frozen(pooling), texts, self.checkpoint)
        return torch.from_numpy(vectors.states[vectors.starts])

    def frozen(self, pooling="last") -> Classifier:
        """Return a classifier of which only the head would learn."""
        model = Classifier(self.trunk, len(self.labels), pooling).to(self.device)
        freeze(model, set())
        return model

    def lengths(self) -> dict[str, torch.Tensor]:  # (N, 1) by split
        """Return how many tokens each text has."""
        return {s: torch.from_numpy(texts.lengths)[:, None] for s, texts in self.tokens.items()}

    def with_random_weights(self) -> "Bench":
        """Return the same with a trunk of the same shape that has learned nothing."""
        trunk = initialize(GPT2(self.trunk.config), self.seed).eval().requires_grad_(False)
        name = f"random weights, seed {self.seed}"
        checkpoint = dataclasses.replace(self.checkpoint, name=name, sha256=name)
        return dataclasses.replace(self, trunk=trunk.to(self.device), checkpoint=checkpoint)

    def about(self, texts: Tokens) -> dict:
        """Return what hidden states of these texts depend on."""
        return about_states(self.frozen(), texts, self.checkpoint)

    def probe(self, vectors: dict[str, torch.Tensor], **how) -> Probe:  # (N, C) by split
        """Fit a probe on the vectors of train, its penalty chosen on those of dev.

        A text that has no such vector, NaN instead, has no part in it.
        """
        there = {split: ~vectors[split].isnan().any(1) for split in ("train", "dev")}
        x, y = ([part[s][there[s]] for s in there] for part in (vectors, self.classes))
        return fit_probe(x[0], y[0], x[1], y[1], len(self.labels), **how)

    def accuracy(self, vectors: dict, among=None, **how) -> dict:  # (N, C) by split
        """Fit a probe, and judge it on all texts of test that have such a vector, or on some."""
        there = (~vectors["test"].isnan().any(1)).nonzero()[:, 0].tolist()
        there = there if among is None else among
        logits = self.probe(vectors, **how).logits(vectors["test"][there])
        examples = [self.examples("test")[i] for i in there]
        return judge(logits, examples, self.labels, self.seed)

    def alike(self, what) -> list[int]:
        """Return the texts of test whose twin is the same in `what`, a function of token ids."""
        twins, ids = defaultdict(list), self.tokens["test"].ids
        for i, example in enumerate(self.examples("test")):
            if example.pair:
                twins[example.pair].append(i)
        pairs = [pair for pair in twins.values() if len(pair) == 2]
        return [i for a, b in pairs if what(ids[a]) == what(ids[b]) for i in (a, b)]

    def wordier(self) -> dict[str, list[float]]:
        """Return the shares of test's pairs whose first class, and second, is longer, by unit."""
        first, second = (
            {e.pair: i for i, e in enumerate(self.examples("test")) if e.pair and e.label == label}
            for label in self.labels
        )
        texts, lengths = [e.text for e in self.examples("test")], self.tokens["test"].lengths
        pairs = [(first[pair], second[pair]) for pair in first.keys() & second.keys()]
        sizes = {"tokens": lengths, "characters": np.array([len(text) for text in texts])}
        more = {
            unit: np.array([size[a] - size[b] for a, b in pairs]) for unit, size in sizes.items()
        }
        return {unit: [float((x > 0).mean()), float((x < 0).mean())] for unit, x in more.items()}

    def at(self, layer: int, place: int | str) -> dict[str, torch.Tensor]:  # (N, C) by split
        """Return the vectors of all texts at one layer and place."""
        return {split: self.states(split).at(layer, place) for split in SPLITS}


def sample(examples: list[Example], most: int, seed: int) -> list[Example]:
    """Return at most so many examples: twins together, labels in the same shares, in their order.

    By the seed; a smaller sample is not part of a larger one.
    """
    if len(examples) <= most:
        return examples
    return split_off(examples, most / len(examples), seed)[1]


def open_bench(weights: str | None, data: str, device: str, texts=(), quiet=False) -> Bench:
    """Find the weights and the texts. Raises InputError."""
    seed = 0
    checkpoint = find_checkpoint(weights)
    tokenizer = load_tokenizer(checkpoint.folder, checkpoint.config.vocab_size)
    dataset = load_dataset(data, seed)
    parts = {s: sample(getattr(dataset, s), AT_MOST[s], seed) for s in SPLITS}
    dataset = dataclasses.replace(dataset, **parts)
    trunk = load_trunk(checkpoint).eval().requires_grad_(False).to(device)
    bench = Bench(trunk, checkpoint, tokenizer, dataset, {}, seed, device, quiet, tuple(texts))
    return dataclasses.replace(bench, tokens={s: bench.tokenize(s, False) for s in SPLITS})
