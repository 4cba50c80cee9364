"""A packed trunk computes what the trunk computes, and leaves the trunk as it was."""

import importlib
import types

import pytest
import torch
from conftest import random_trunk

from minigpt.fast.packing import PackedLinear, can_pack, packed, packed_to_generate
from minigpt.fast.partial import run_blocks
from minigpt.model import attention

MODULE = importlib.import_module("minigpt.fast.packing")  # `packed` itself is its function
ALL = 4  # blocks 0 to 2, and ln_f, which counts as block 3


def some_ids():
    return torch.randint(200, (4, 30), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["packed", "not on this processor"])
def kernels(request, monkeypatch):
    """Have a test run with such kernels, where there are some, and as if there were none."""
    if request.param != "packed":
        monkeypatch.setattr(MODULE, "can_pack", lambda tensor: False)
    elif not can_pack(torch.zeros(1)):
        pytest.skip("this processor or this build of torch has no such kernels")
    return request.param


@pytest.mark.parametrize("end", [0, 2, 3, ALL])
@torch.no_grad()
def test_a_packed_trunk_reads_as_the_trunk_does(end, kernels):
    trunk = random_trunk()
    ours, theirs = (
        run_blocks(model, model.embed(some_ids()), 0, end) for model in (packed(trunk, end), trunk)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@torch.no_grad()
def test_in_bfloat16_it_is_as_near_as_bfloat16_comes(kernels):
    trunk = random_trunk()
    exact, ours = trunk(some_ids()), packed(trunk, ALL, torch.bfloat16)(some_ids())
    assert ours.dtype == torch.bfloat16
    assert 0 < (ours - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("kernels", ["packed"], indirect=True)
@torch.no_grad()
def test_the_next_tokens_logits_are_the_same(kernels):
    trunk, hidden = random_trunk(), torch.randn(5, 24)
    expected = trunk.next_token_logits(hidden)
    ours = packed_to_generate(trunk)
    torch.testing.assert_close(ours.next_token_logits(hidden), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours(some_ids()), trunk(some_ids()), rtol=0, atol=1e-5)
    assert "next_token_logits" in vars(ours) and "next_token_logits" not in vars(trunk)


def test_the_trunk_itself_stays_as_it_is_and_goes_on_learning(kernels):
    trunk = random_trunk().train()
    before = dict(trunk.named_parameters())
    packed(trunk, ALL)
    assert all(p is before[name] for name, p in trunk.named_parameters())
    assert not any(isinstance(module, PackedLinear) for module in trunk.modules())
    trunk(some_ids()).sum().backward()
    assert trunk.training and trunk.h[0].mlp.c_fc.weight.grad is not None


def test_what_need_not_be_converted_is_shared_and_not_copied(kernels):
    """The embeddings are the largest matrix; where nothing is packed, all is shared."""
    trunk = random_trunk()
    own = {p.data_ptr() for p in trunk.parameters()}
    copy = packed(trunk, ALL)
    assert all(p.data_ptr() in own for p in copy.parameters())
    matrices = 0 if kernels == "packed" else 4 * len(trunk.h)  # those that are laid out anew
    assert sum(p.dim() == 2 for p in copy.parameters()) == 2 + matrices  # wte and wpe


def test_where_bfloat16_has_no_such_kernels_it_is_computed_without(monkeypatch):
    def without_bfloat16(name):
        return (lambda: False) if "bf16" in name else getattr(torch.ops.mkldnn, name)

    there = {name: without_bfloat16(name) for name in MODULE.OPERATIONS}
    monkeypatch.setattr(MODULE, "onednn", types.SimpleNamespace(**there))
    assert not can_pack(torch.zeros(1, dtype=torch.bfloat16))
    copy = packed(random_trunk(), ALL, torch.bfloat16)
    assert not any(isinstance(module, PackedLinear) for module in copy.modules())


@torch.no_grad()
def test_what_an_experiment_put_in_a_block_is_in_the_copy(kernels):
    """Other functions, and hooks: the copy is of what the trunk is by now."""
    trunk = random_trunk()
    trunk.h[1].attn.attention = lambda q, k, v, dropout: attention(q, k, v) * 0
    trunk.h[0].mlp.register_forward_hook(lambda module, _, y: y * 2)
    trunk.h[0].mlp.act = torch.nn.ReLU()
    trunk.h[2].mlp.c_fc.register_forward_hook(lambda module, _, y: y * 3)
    trunk.h[2].attn.c_attn.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    ours = packed(trunk, ALL)(some_ids())
    torch.testing.assert_close(ours, trunk(some_ids()), rtol=0, atol=1e-5)
