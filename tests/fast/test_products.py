"""What oneDNN computes for what is trained: the numbers and gradients of torch's own products."""

import copy
import importlib

import pytest
import torch
import torch.nn.functional as F
from conftest import random_trunk, some_texts

from minigpt.fast import PartialClassifier
from minigpt.fast.packing import can_pack
from minigpt.fast.products import Product, use_onednn
from minigpt.fit import Recipe, Training, train_to_end
from minigpt.freeze import freeze, names_to_train
from minigpt.model import Linear
from minigpt.peft import put_on

LORA = {"lora_alpha": 4.0, "lora_dropout": 0.0}

pytestmark = pytest.mark.skipif(
    not can_pack(torch.zeros(1)), reason="oneDNN has no such kernels on this processor"
)


@pytest.mark.parametrize("trained", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("shape", [(3, 5, 24), (1, 1, 24), (7, 24)], ids=str)
def test_a_product_and_its_gradients_are_those_of_torch(shape, trained):
    """With weights as the files have them, and only the gradients that somebody wants."""
    x, weight, bias = torch.randn(shape), torch.randn(24, 40), torch.randn(40)
    results = []
    for linear in (F.linear, Product.apply):
        leaves = [
            t.clone().requires_grad_(wanted)
            for t, wanted in zip((x, weight, bias), trained, strict=True)
        ]
        y = linear(leaves[0], leaves[1].T, leaves[2])
        (y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    for expected, ours in zip(*results, strict=True):
        assert (ours is None) == (expected is None)
        if ours is not None:
            assert ours.is_contiguous()  # a gradient is not laid out again
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flags", [{}, {"lora": 2, "lora_on": "*"}], ids=str)
@pytest.mark.parametrize("policy", [{}, {"train_last": 1}], ids=str)
def test_training_gives_the_same_weights(policy, flags):
    recipe, texts, weights = Recipe(2, 8, 1e-3, 0.1, 0.1, 1.0, 1, seed=0), some_texts(), []
    torch.manual_seed(0)
    plain = PartialClassifier(random_trunk(), 2)
    added = put_on(plain.transformer, LORA | flags) if flags else set()
    fast = copy.deepcopy(plain)
    use_onednn(fast)
    for model, product in ((plain, F.linear), (fast, Product.apply)):
        assert all(m.product == product for m in model.modules() if isinstance(m, Linear))
        freeze(model, added or names_to_train(model.transformer, **policy))
        torch.manual_seed(1)  # dropout
        train_to_end(Training.of(model, recipe, len(texts)), texts, texts)
        weights.append(dict(model.named_parameters()))
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-5)


def test_no_more_is_kept_for_the_gradients_than_they_need():
    """Of a frozen layer, the weight, which is there anyway, and not what came in."""
    x, weight = torch.randn(50, 24, requires_grad=True), torch.randn(40, 24)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        Product.apply(x, weight, torch.randn(40))
        assert [t.shape for t in kept] == [weight.shape]
        Product.apply(x.detach(), weight.requires_grad_(), torch.randn(40))
        assert [t.shape for t in kept[1:]] == [x.shape]


def test_in_bfloat16_torch_is_left_to_itself():
    model = PartialClassifier(random_trunk(), 2, dtype=torch.bfloat16)
    use_onednn(model)
    assert all(m.product == F.linear for m in model.modules() if isinstance(m, Linear))


def test_train_uses_it(run, checkpoint, texts, monkeypatch, tmp_path):
    models, tune = [], importlib.import_module("minigpt.runs.tune")
    monkeypatch.setattr(tune, "use_onednn", models.append)
    status, _, err = run(
        "train", "--weights", checkpoint, "--data", texts, "--epochs", 1, "--out", tmp_path / "run"
    )
    assert status == 0 and len(models) == 1, err
