"""What oneDNN computes for what is trained: the numbers and gradients of torch's own products."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import random_trunk, some_texts

from minigpt.classifier import Classifier
from minigpt.fast.packing import can_pack
from minigpt.fast.products import OneDNNLinear, use_onednn
from minigpt.fit import Recipe, Training, train_to_end
from minigpt.freeze import freeze, names_to_train
from minigpt.model import Linear

pytestmark = pytest.mark.skipif(
    not can_pack(torch.zeros(1)), reason="oneDNN has no such kernels on this processor"
)


@pytest.mark.parametrize("trained", [(True, True, True), (True, False, False), (False, True, True)])
@pytest.mark.parametrize("shape", [(3, 5, 24), (1, 1, 24), (7, 24)], ids=str)
def test_a_product_and_its_gradients_are_those_of_torch(shape, trained):
    """With weights as the files have them, and only the gradients that somebody wants."""
    x, weight, bias = torch.randn(shape), torch.randn(24, 40), torch.randn(40)
    results = []
    for linear in (F.linear, OneDNNLinear.apply):
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


@pytest.mark.parametrize("policy", [{}, {"train_last": 1}], ids=str)
def test_training_gives_the_same_weights(policy):
    recipe, texts, weights = Recipe(2, 8, 1e-3, 0.1, 0.1, 1.0, 1, seed=0), some_texts(), []
    trunk = random_trunk()
    torch.manual_seed(0)
    plain = Classifier(trunk, 2)
    fast = copy.deepcopy(plain)
    use_onednn(fast.transformer)
    layers = [m for m in fast.modules() if isinstance(m, Linear)]
    assert layers and all(layer.product == OneDNNLinear.apply for layer in layers)
    for model in (plain, fast):
        freeze(model, names_to_train(model.transformer, **policy))
        torch.manual_seed(1)  # dropout
        train_to_end(Training.of(model, recipe, len(texts)), texts, texts)
        weights.append(dict(model.named_parameters()))
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=0, atol=1e-5)
