"""Training, from a recipe to weights: the head on a frozen trunk, then whatever else is trained.

What is not trained is computed once, and each phase starts from there.
"""

import dataclasses

import torch

from minigpt.checkpoints.find import Checkpoint
from minigpt.data import Tokens
from minigpt.fast import PartialClassifier, one_thread, precompute, use_onednn
from minigpt.fit import Recipe, Training
from minigpt.freeze import freeze
from minigpt.head import HEAD_RECIPE, fit_head
from minigpt.runs.journal import Journal


def recipe_of(settings: dict) -> Recipe:
    """Pick a recipe out of settings of the same names."""
    return Recipe(**{field.name: settings[field.name] for field in dataclasses.fields(Recipe)})


def class_weights_of(settings: dict, train: Tokens, classes: int) -> torch.Tensor | None:  # (K,)
    """Return the weights of the classes in the loss: balanced as scikit-learn does it, or None.

    A class with n_k of n texts has n / (K n_k): each class weighs the same, a text 1 on average.
    """
    if not settings.get("class_weights"):
        return None
    counts = torch.bincount(train.labels, minlength=classes)
    return len(train) / (classes * counts.clamp(min=1)).float()


def tune(
    model: PartialClassifier,
    names: set[str],
    train: Tokens,
    dev: Tokens,
    settings: dict,
    checkpoint: Checkpoint,
    journal: Journal | None = None,
) -> Training:
    """Train the head and the named tensors of the trunk, as the settings of train.py say.

    Returns the training at its end. A run that is resumed continues where its journal stopped.
    """
    journal, recipe = journal or Journal(), recipe_of(settings)
    weights = class_weights_of(settings, train, model.score.out_features)
    head_alone, warm_up = settings["freeze_trunk"], settings["warm_head"]

    def computed():
        splits = [
            precompute(model, texts, checkpoint, journal.group, journal.quiet)
            for texts in (train, dev)
        ]
        journal.clock.lap("frozen")
        return splits

    if head_alone or (warm_up and not journal.is_past("head")):
        freeze(model, set())
        first = recipe
        if warm_up:  # --epochs, --lr, --weight-decay, --clip: for what comes after
            own = {name: getattr(HEAD_RECIPE, name) for name in ("lr", "weight_decay", "clip")}
            first = dataclasses.replace(recipe, epochs=warm_up, **own)
        vectors = computed()
        with one_thread():
            t = fit_head(model.score, *vectors, first, journal.run("head"), weights)
        journal.group.broadcast(model.score.weight)  # another machine may round differently
    freeze(model, names)
    if not head_alone:
        if not settings["compile"]:
            use_onednn(model)
        t = Training.of(model, recipe, len(train))
        t.class_weights = weights
        journal.run("trunk")(t, *computed())
    return t
