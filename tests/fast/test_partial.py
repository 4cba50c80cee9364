"""Reading in parts is reading: from any block to any other, without what pooling drops."""

import itertools

import pytest
import torch
from conftest import random_trunk

from minigpt.classifier import POOLINGS, Classifier
from minigpt.fast.partial import PartialClassifier, compile_blocks, pool_from, run_blocks

BEHIND = 4  # blocks 0 to 2, and ln_f, which counts as block 3


def some_batch():  # -> (B, T), (B,)
    lengths = torch.tensor([1, 30, 7, 29])
    return torch.randint(200, (4, 30), generator=torch.Generator().manual_seed(0)), lengths


@pytest.mark.parametrize("first, end", [*itertools.combinations_with_replacement(range(5), 2)])
@torch.no_grad()
def test_to_a_block_and_on_from_there_is_the_way_through(first, end):
    trunk, (ids, _) = random_trunk(), some_batch()
    x = run_blocks(trunk, trunk.embed(ids), 0, first)
    x = run_blocks(trunk, x, first, end)
    assert torch.equal(run_blocks(trunk, x, end, BEHIND), trunk(ids))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("first", range(BEHIND))
@torch.no_grad()
def test_from_any_block_the_logits_are_those_of_the_plain_classifier(first, pooling):
    trunk, (ids, lengths) = random_trunk(), some_batch()
    ours, plain = PartialClassifier(trunk, 3, pooling), Classifier(trunk, 3, pooling)
    ours.load_state_dict(plain.state_dict())
    x = run_blocks(trunk, trunk.embed(ids), 0, first) if first else ids
    torch.testing.assert_close(ours(x, lengths, first), plain(ids, lengths), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling, tokens", [("last", 1), ("first", 30), ("mean", 30), ("max", 30)])
@pytest.mark.parametrize("first", range(3))
@torch.no_grad()
def test_the_last_mlp_reads_no_more_than_is_pooled(first, pooling, tokens):
    model, (ids, lengths), seen = PartialClassifier(random_trunk(), 2, pooling), some_batch(), []
    trunk = model.transformer
    x = run_blocks(trunk, trunk.embed(ids), 0, first) if first else ids
    trunk.h[-1].mlp.register_forward_hook(lambda _, inputs, y: seen.append(y.shape))
    model(x, lengths, first)
    assert seen == [(4, tokens, 24)]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_are_those_of_the_plain_classifier(pooling):
    trunk, batch = random_trunk(), some_batch()
    ours, plain = PartialClassifier(trunk, 3, pooling), Classifier(trunk, 3, pooling)
    ours.load_state_dict(plain.state_dict())
    gradients = []
    for model in (ours, plain):
        model.zero_grad()
        model(*batch).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for mine, oracle in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_in_bfloat16_parameters_vectors_and_logits_stay_in_float32():
    trunk, batch = random_trunk(), some_batch()
    model, exact = PartialClassifier(trunk, 2, dtype=torch.bfloat16), Classifier(trunk, 2)
    ours, expected = model.pooled(*batch), exact.pooled(*batch)
    assert ours.dtype == model(*batch).dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 0 < (ours - expected).norm() < 0.02 * expected.norm()


def test_compiling_reaches_what_is_called_of_the_last_block():
    """With the last token pooled, its attention and MLP are called, and the block is not."""
    trunk = random_trunk()
    compile_blocks(trunk)
    called = []
    for name, module in trunk.named_modules():
        module.register_forward_pre_hook(lambda module, _, name=name: called.append(name))
    compiled = {n for n, m in trunk.named_modules() if m._compiled_call_impl is not None}
    with torch.compiler.set_stance("force_eager"):
        pool_from(trunk, torch.tensor([[1, 2, 3]]), torch.tensor([3]), "last")
    last = len(trunk.h) - 1
    assert f"h.{last}" not in called
    assert {f"h.{i}" for i in range(last)} | {f"h.{last}.attn", f"h.{last}.mlp"} <= compiled
    assert {f"h.{last}.attn", f"h.{last}.mlp"} <= {*called}
