"""What speed.py measures, as minigpt does it; peers.py has the same jobs as others do them."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from minigpt.checkpoints import describe
from minigpt.data import Tokens
from minigpt.fast import (
    FrozenPart,
    PartialClassifier,
    own_process,
    packed_to_generate,
    precompute,
    use_onednn,
)
from minigpt.fit import Recipe, Training, train_to_end
from minigpt.freeze import freeze, names_to_train
from minigpt.head import HEAD_RECIPE, fit_head
from minigpt.language.generate import generate_ids
from minigpt.peft import put_on
from minigpt.weights import load_trunk

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPOCHS = {"frozen": 10, "last": 3, "lora": 1, "full": 1}
FINE = Recipe(1, 32, 5e-5, 0.1, 0.1, 1.0, 1, seed=0)  # 5e-5: what the documentation uses
LORA = {"lora": 8, "lora_alpha": 16.0, "lora_on": "c_attn", "lora_dropout": 0.0}
GENERATED = 256  # tokens


def texts_in(folder: Path, part: str) -> Tokens:
    """Return the texts that all read: "train", "dev", or "test", which is for reading only."""
    rows = json.loads((folder / "texts.json").read_text())[part]
    return Tokens([np.array(ids) for ids, _ in rows], torch.tensor([label for _, label in rows]))


def do(job: str, dtype: str, folder: Path) -> Callable:
    """Return a job as a function; what stands before it is not measured."""
    train, dev, test = (texts_in(folder, part) for part in ("train", "dev", "test"))
    own_process()  # as train.py and predict do
    describe("random", folder)  # the first time takes the file's hash: see opening.py

    def opened(**policy):
        checkpoint = describe("random", folder)
        model = PartialClassifier(load_trunk(folder), 2, dtype=getattr(torch, dtype))
        added = put_on(model.transformer, LORA if job == "lora" else {})
        freeze(model, added or names_to_train(model.transformer, **policy))
        return model.to(DEVICE), checkpoint

    def predict():
        model, _ = opened(freeze_trunk=True)
        return FrozenPart(model).logits_of(test)

    def generate():
        model, _ = opened()
        trunk, ids = packed_to_generate(model.transformer), train.ids[0].tolist()
        return list(generate_ids(trunk, ids, tokens=GENERATED, temperature=0))

    def training():
        policy = {"last": {"train_last": 2}, "frozen": {"freeze_trunk": True}}.get(job, {})
        model, checkpoint = opened(**policy)
        use_onednn(model)
        computed = [precompute(model, part, checkpoint) for part in (train, dev)]
        if job == "frozen":
            recipe = dataclasses.replace(HEAD_RECIPE, epochs=EPOCHS[job])
            return fit_head(model.score, *computed, recipe)
        recipe = dataclasses.replace(FINE, epochs=EPOCHS[job])
        return train_to_end(Training.of(model, recipe, len(train)), *computed)

    if job == "read":
        model, _ = opened(freeze_trunk=True)
        part = FrozenPart(model)
        part.vectors_of(test)  # as the others: once before it is measured
        return lambda: part.vectors_of(test)
    return {"predict": predict, "open": opened, "generate": generate}.get(job, training)
