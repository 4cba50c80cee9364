"""Freezing is tested by weights, not by flags: what must not move has the same bits afterwards."""

import numpy as np
import pytest
import torch
from conftest import random_trunk, some_texts

from minigpt.classifier import Classifier
from minigpt.fit import Recipe, Training, train_to_end
from minigpt.freeze import (
    PRESETS,
    freeze,
    frozen_unchanged,
    names_to_train,
    train_mode,
    trainable,
)
from minigpt.weights import load_trunk

RECIPE = Recipe(
    epochs=2, batch_size=8, lr=1e-2, weight_decay=0.1, warmup=0.1, clip=1.0, accumulate=1, seed=0
)
LAST = {"ln_f.weight", "ln_f.bias"}
POLICIES = [  # a policy, and which tensors of the trunk it trains
    ({"freeze_trunk": True}, lambda name: False),
    ({"train_last": 1}, lambda name: name.startswith("h.2.") or name in LAST),
    ({"train_last": 3}, lambda name: name.startswith("h.") or name in LAST),
    ({"train_only": "*.bias"}, lambda name: name.endswith(".bias")),
    ({"train_only": "h.*.ln_?.*, wpe.weight"}, lambda n: ".ln_" in n or n == "wpe.weight"),
    ({}, lambda name: True),
]


def classifier(policy: dict, trunk=None) -> Classifier:
    model = Classifier(trunk or random_trunk(), 2).requires_grad_(False)
    freeze(model, names_to_train(model.transformer, **policy))
    return model


@pytest.mark.parametrize("policy, trains", POLICIES)
def test_only_what_the_policy_names_gets_a_gradient_and_moves(policy, trains, checkpoint):
    """Also with weight decay. The head always moves; what is frozen has the same bits."""
    model, texts = classifier(policy, load_trunk(checkpoint)), some_texts()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moves = {name: trains(name.removeprefix("transformer.")) for name in before}
    moves["score.weight"] = True
    assert trainable(model).keys() == {name for name in moves if moves[name]}

    inputs, labels = texts.batch(np.arange(24))
    torch.nn.functional.cross_entropy(model(*inputs), labels).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.any()) == moves[name], name

    t = Training.of(model, RECIPE, len(texts))
    t.optimizer.zero_grad()
    for _ in range(3):  # not at the end of `fit`, which may go back to the start
        train_to_end(t, texts, texts)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != moves[name], name
    assert frozen_unchanged(model, checkpoint / "model.safetensors")


def test_the_proof_notices_a_single_bit(checkpoint):
    """And only in what is frozen; it reads the file again, so that it can be trusted."""
    path = checkpoint / "model.safetensors"
    model = classifier({"train_last": 1}, load_trunk(checkpoint))
    with torch.no_grad():
        model.transformer.h[2].ln_1.bias += 1  # is trained
    assert frozen_unchanged(model, path)
    with torch.no_grad():
        model.transformer.h[0].ln_1.bias.view(torch.int32)[3] ^= 1
    assert not frozen_unchanged(model, path)


@pytest.mark.parametrize("policy, trains", POLICIES)
def test_frozen_modules_have_no_dropout_while_the_rest_trains(policy, trains):
    model = classifier(policy).eval()
    train_mode(model)
    trunk = model.transformer
    assert trunk.drop.training == (trains("wte.weight") or trains("wpe.weight"))
    for i, block in enumerate(trunk.h):
        assert block.attn.resid_dropout.training == trains(f"h.{i}.attn.c_proj.bias")
        assert block.attn.training == trains(f"h.{i}.attn.c_proj.bias")
        assert block.mlp.dropout.training == trains(f"h.{i}.mlp.c_proj.bias")


@pytest.mark.parametrize("policy", [{"freeze_trunk": True}, {"train_last": 2}], ids=str)
def test_two_passes_in_training_are_equal_up_to_where_training_starts(policy):
    """With embeddings frozen: so what is below may be computed once, dropout or not."""
    model = classifier(policy)
    train_mode(model)
    entered = []
    model.transformer.h[1].register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    ids = torch.randint(200, (2, 20))
    first, second = model.transformer(ids), model.transformer(ids)
    assert torch.equal(*entered)
    assert torch.equal(first, second) == ("freeze_trunk" in policy)


def test_presets_name_the_tensors_of_their_papers():
    trunk = random_trunk()
    names = {name for name, _ in trunk.named_parameters()}
    assert PRESETS.keys() == {"bitfit", "norms"}
    assert names_to_train(trunk, train_only="bitfit") == {n for n in names if n.endswith("bias")}
    norms = names_to_train(trunk, train_only="norms")
    modules = {n for n, module in trunk.named_modules() if isinstance(module, torch.nn.LayerNorm)}
    assert norms == {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


@pytest.mark.parametrize("n", [0, -1, 4])
def test_training_more_blocks_than_there_are_is_refused(n):
    with pytest.raises(ValueError, match=f"train-last {n}: the trunk has blocks 1 to 3"):
        names_to_train(random_trunk(), train_last=n)


@pytest.mark.parametrize("globs", ["h.9.*", "h.0.*,transformer.h.1.*", ""])
def test_a_glob_that_matches_nothing_is_refused(globs):
    with pytest.raises(ValueError, match="matches no tensor"):
        names_to_train(random_trunk(), train_only=globs)
