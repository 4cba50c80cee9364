"""What the experiments stand on: a frozen trunk, labelled texts, and linear probes.

A probe is the head that `train.py --freeze-trunk` fits, with the same recipe, so that an accuracy
here is the accuracy there. What the trunk makes of the texts is computed once, and stored.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tiktoken
import torch
from torch import nn
from tqdm import tqdm

from minigpt.checkpoints import Checkpoint, find_checkpoint, open_tokenizer
from minigpt.cli.program import voices
from minigpt.data import TOKENS_AT_ONCE, Example, Tokens, pairs_of, token_batches, tokenize
from minigpt.datasets import SPLITS, Dataset, load_dataset, split_off
from minigpt.explain.accuracy import accuracy_of
from minigpt.explain.hidden_states import POSITIONS, HiddenStates, at_positions, every_layer
from minigpt.fast import PartialClassifier, one_thread, packed, precompute, stored
from minigpt.fast.frozen import depends_on
from minigpt.freeze import freeze
from minigpt.head import HEAD_RECIPE, Vectors, fit_head
from minigpt.language.initialize import initialize
from minigpt.model import GPT2
from minigpt.weights import load_trunk

# N texts, B of them in a batch, T tokens, C channels, L blocks, P positions, K classes

AT_MOST = {"train": 1000, "dev": 250, "test": 1000}  # texts, so that all of it takes minutes


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
            for batch in tqdm(batches, desc=title, disable=self.quiet or None, leave=False):
                yield read(trunk, batch)

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

    def with_random_weights(self) -> "Study":
        """Return the same study of a trunk of the same shape that has not been trained."""
        trunk = initialize(GPT2(self.trunk.config), self.seed).eval().requires_grad_(False)
        name = f"random weights, seed {self.seed}"
        checkpoint = dataclasses.replace(self.checkpoint, name=name, sha256=name)
        return dataclasses.replace(self, trunk=trunk.to(self.device), checkpoint=checkpoint)

    # --- probes ---

    def probe(self, vectors: dict[str, torch.Tensor]) -> torch.Tensor:  # (N, C) by split -> (K, C)
        """Fit a linear probe on the vectors of train; dev chooses the weight decay.

        Texts that have no such vector, NaN instead, are left out.
        """
        parts = []
        for split in ("train", "dev"):
            texts, x = self.tokens[split], vectors[split]
            exists = ~x.isnan().any(1)
            lengths = texts.lengths[exists.numpy()]
            parts.append(Vectors(x[exists].numpy(), texts.labels[exists], lengths))
        return fit_probe(*parts, len(self.labels))

    def probe_accuracy(self, vectors: dict, among: list[int] | None = None) -> dict:
        """Fit a probe on vectors, (N, C) by split; evaluate it on test, or on some texts of it."""
        if among is None:
            among = (~vectors["test"].isnan().any(1)).nonzero()[:, 0].tolist()
        logits = vectors["test"][among].float() @ self.probe(vectors).T
        examples = [self.examples("test")[i] for i in among]
        return accuracy_of(logits, examples, self.labels, self.seed)

    def lengths_only(self) -> dict[str, torch.Tensor]:  # (N, 2) by split
        """Return as vectors how many tokens each text has, and nothing else."""
        return {s: with_bias(torch.from_numpy(t.lengths)[:, None]) for s, t in self.tokens.items()}

    def equal_pairs(self, key: Callable) -> list[int]:
        """Return the texts of test for whose pair `key`, a function of token ids, is the same."""
        ids = self.tokens["test"].ids
        pairs = pairs_of(self.examples("test"))
        return [i for a, b in pairs if key(ids[a]) == key(ids[b]) for i in (a, b)]


@one_thread()
def fit_probe(train: Vectors, dev: Vectors, classes: int) -> torch.Tensor:  # -> (K, C)
    """Return the matrix of the head that `train.py --freeze-trunk` would fit on these vectors."""
    head = nn.Linear(train.x.shape[1], classes, bias=False)
    fit_head(head, train, dev, HEAD_RECIPE)
    return head.weight.detach().cpu()


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
