"""Freezing is tested by weights, not by flags: what must not move has the same bits afterwards."""

import argparse

import numpy as np
import pytest
import torch
from common import some_texts
from conftest import random_trunk

from minigpt.checkpoints import describe
from minigpt.classifier import Classifier
from minigpt.cli.choices import policy_name
from minigpt.edge.errors import InputError
from minigpt.fit import Recipe, fit
from minigpt.freeze import (
    count,
    freeze,
    frozen_unchanged,
    names_to_learn,
    table,
    train_mode,
)
from minigpt.peft.methods import put_on
from minigpt.weights import load_trunk

LAST = {"ln_f.weight", "ln_f.bias"}
POLICIES = [
    ({"freeze_trunk": True}, lambda name: False),
    ({"train_last": 1}, lambda name: name.startswith("h.2.") or name in LAST),
    ({"train_last": 3}, lambda name: name.startswith("h.") or name in LAST),
    ({"train_only": "*.bias"}, lambda name: name.endswith(".bias")),
    ({"train_only": "h.*.ln_?.*, wpe.weight"}, lambda n: ".ln_" in n or n == "wpe.weight"),
    ({}, lambda name: True),
]


@pytest.mark.parametrize("policy, learns", POLICIES)
def test_only_what_the_policy_names_gets_a_gradient_and_moves(policy, learns, checkpoint):
    found = describe("x", checkpoint)
    model = Classifier(load_trunk(found.folder), 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    freeze(model, names_to_learn(model.transformer, **policy))

    texts = some_texts()
    inputs, labels = texts.batch(np.arange(24))
    torch.nn.functional.cross_entropy(model(*inputs), labels).backward()
    for name, parameter in model.named_parameters():
        if name == "score.weight" or learns(name.removeprefix("transformer.")):
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name

    fit(model, texts, texts, Recipe(2, 8, 1e-2, 0.1, 0.1, 1.0, 1, seed=0), quiet=True)
    for name, parameter in model.named_parameters():
        learned = name == "score.weight" or learns(name.removeprefix("transformer."))
        assert torch.equal(parameter, before[name]) != learned, name
    assert frozen_unchanged(model, found)


def test_the_proof_notices_a_single_bit(checkpoint):
    found = describe("x", checkpoint)
    model = Classifier(load_trunk(found.folder), 2)
    freeze(model, names_to_learn(model.transformer, train_last=1))
    assert frozen_unchanged(model, found)
    with torch.no_grad():
        model.transformer.h[0].ln_1.bias.view(torch.int32)[3] ^= 1
    assert not frozen_unchanged(model, found)


@pytest.mark.parametrize("policy, learns", POLICIES)
def test_frozen_modules_have_no_dropout_while_the_rest_trains(policy, learns):
    model = Classifier(random_trunk(), 2)
    freeze(model, names_to_learn(model.transformer, **policy))
    train_mode(model)
    trunk = model.transformer
    assert trunk.drop.training == (learns("wte.weight") or learns("wpe.weight"))
    for i, block in enumerate(trunk.h):
        assert block.attn.resid_dropout.training == learns(f"h.{i}.attn.c_proj.bias")
        assert block.attn.training == learns(f"h.{i}.attn.c_proj.bias")
        assert block.mlp.dropout.training == learns(f"h.{i}.mlp.c_proj.bias")


@pytest.mark.parametrize("policy", [{"freeze_trunk": True}, {"train_last": 2}])
def test_with_embeddings_frozen_two_readings_in_training_differ_only_from_where_learning_starts(
    policy,
):
    model = Classifier(random_trunk(), 2)
    freeze(model, names_to_learn(model.transformer, **policy))
    train_mode(model)
    seen = []
    model.transformer.h[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ids = torch.randint(200, (2, 20))
    first, second = model.transformer(ids), model.transformer(ids)
    assert torch.equal(*seen)
    assert torch.equal(first, second) == ("freeze_trunk" in policy)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_training_more_blocks_than_there_are_is_refused(n):
    with pytest.raises(InputError, match=f"--train-last {n}: the trunk has blocks 1 to 3"):
        names_to_learn(random_trunk(), train_last=n)


@pytest.mark.parametrize("globs", ["h.9.*", "h.0.*,transformer.h.1.*", ""])
def test_a_glob_that_matches_nothing_is_refused(globs):
    with pytest.raises(InputError, match="matches no tensor"):
        names_to_learn(random_trunk(), train_only=globs)


def test_the_table_adds_up_and_says_who_learns():
    model = Classifier(random_trunk(), 2)
    freeze(model, names_to_learn(model.transformer, train_last=1))
    lines = {line[:12].strip(): line[12:].split() for line in table(model).splitlines()[1:]}
    assert list(lines) == ["embeddings", "h.0 - h.1", "h.2", "ln_f", "score", "total"]
    assert lines["embeddings"][1] == lines["h.0 - h.1"][1] == "frozen"
    numbers = [
        [int(x.replace(",", "").replace("frozen", "0")) for x in row] for row in lines.values()
    ]
    assert [sum(column[:-1]) for column in zip(*numbers, strict=True)] == numbers[-1]
    assert numbers[-1] == [count(model)["total"], count(model)["learning"]]
    assert numbers[-1][0] == sum(p.numel() for p in model.parameters())


def test_what_was_put_on_has_a_line_of_its_own_in_the_table():
    model = Classifier(random_trunk(), 2)
    added = put_on(model.transformer, {"prompt": 5})
    freeze(model, added)
    lines = {line[:12].strip(): line[12:].split() for line in table(model, added).splitlines()[1:]}
    assert [*lines] == ["embeddings", "h.0 - h.2", "ln_f", "put on", "score", "total"]
    assert lines["embeddings"][1] == "frozen" and lines["put on"] == ["120", "120"]
    assert lines["total"][0] == f"{count(model)['total']:,}"


def test_a_policy_is_named_as_its_flags():
    def name(**flags):
        none = dict.fromkeys(("train_last", "train_only", "warm_head", "lora", "in_last"))
        return policy_name(argparse.Namespace(**none | {"freeze_trunk": False} | flags))

    assert name(freeze_trunk=True) == "freeze-trunk"
    assert name(train_last=2) == "train-last 2"
    assert name(train_only="h.*") == "train-only h.*"
    assert name() == "everything"
    assert name(warm_head=3, train_last=2) == "warm-head 3, train-last 2"
    assert name(lora=8, lora_on="c_attn") == "lora 8"
    assert name(lora=8, lora_on="c_*", in_last=2) == "lora 8 on c_* in-last 2"
    assert name(warm_head=3, prefix=4) == "warm-head 3, prefix 4"
