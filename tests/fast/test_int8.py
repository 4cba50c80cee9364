"""Layers in int8 compute exactly what they say, and vectors stay near those of float32."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import needs_int8
from conftest import random_trunk, some_texts

from minigpt.checkpoints import describe, find_checkpoint, open_tokenizer
from minigpt.data import tokenize
from minigpt.datasets import load_dataset
from minigpt.fast import FrozenPart, PartialClassifier, precompute
from minigpt.fast.frozen import depends_on
from minigpt.fast.int8 import Int8Linear, TanhGELU
from minigpt.fast.packing import packed
from minigpt.fit import evaluate
from minigpt.freeze import freeze, names_to_train
from minigpt.head import fit_head
from minigpt.model import Linear
from minigpt.weights import load_trunk

pytestmark = needs_int8
ROWS, INPUTS, OUTPUTS = 20, 96, 40


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def enormous(x):  # (T, in)
    """Make a few channels of the first token 1,000 times as large, as GPT-2 has them."""
    x[0, [3, 7, 11]] *= 1000
    return x


@pytest.mark.parametrize("zero", [128, 24])
def test_a_layer_is_a_product_of_whole_numbers_between_two_scales(zero):
    x, weight, bias = enormous(draw(ROWS, INPUTS)), draw(OUTPUTS, INPUTS) * 0.1, draw(OUTPUTS)
    x[1], weight[2] = 0, 0  # nothing is divided by zero
    ours = Int8Linear(weight, bias, zero)(x.view(2, -1, INPUTS)).view(ROWS, OUTPUTS).numpy()

    x, weight = x.numpy().astype(np.float64), weight.numpy().astype(np.float64)
    of_output = np.maximum(np.abs(weight).max(1) / 127, 1e-30)
    of_token = np.maximum(x.max(1) / (255 - zero), x.min(1) / -zero).clip(1e-30)
    w, u = np.rint(weight / of_output[:, None]), np.rint(x / of_token[:, None]) + zero
    assert u.min() >= 0 and u.max() <= 255 and w.min() >= -127 and w.max() <= 127
    sums = (u.astype(np.int64) - zero) @ w.astype(np.int64).T
    expected = of_token[:, None] * of_output * sums + bias.numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_no_token_depends_on_the_scale_of_another():
    layer, x = Int8Linear(draw(OUTPUTS, INPUTS), draw(OUTPUTS)), draw(ROWS, INPUTS)
    alone = layer(x[1:])
    assert torch.equal(layer(enormous(x))[1:], alone)
    by_column = x.T.contiguous().T
    assert not by_column.is_contiguous() and torch.equal(layer(by_column)[1:], alone)


def test_what_is_not_finite_stays_so():
    x = draw(ROWS, INPUTS)
    x[0, 5], x[1, 5] = torch.nan, torch.inf
    finite = Int8Linear(draw(OUTPUTS, INPUTS), draw(OUTPUTS))(x).isfinite()
    assert not finite[:2].any() and finite[2:].all()


def test_the_faster_gelu_is_gelu():
    x = torch.linspace(-12, 12, 4001)
    torch.testing.assert_close(TanhGELU()(x), F.gelu(x, approximate="tanh"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("large", [False, True], ids=["as it is", "enormous first position"])
@torch.no_grad()
def test_hidden_states_point_where_those_of_float32_do(large):
    trunk, (ids, _) = random_trunk(n_embd=96), some_texts().batch(np.arange(24))[0]
    trunk.wpe.weight.data[0, [3, 7, 11]] *= 1000 if large else 1
    before = {name: p.clone() for name, p in trunk.named_parameters()}
    copy = packed(trunk, 4, torch.int8)
    layers = [type(m) for m in copy.modules() if isinstance(m, Int8Linear | Linear | TanhGELU)]
    assert layers.count(Int8Linear) == 12 and layers.count(TanhGELU) == 3 and Linear not in layers
    ours, exact = copy(ids), trunk(ids)
    assert ours.dtype == torch.float32
    similar = F.cosine_similarity(ours, exact, dim=-1)
    assert similar.mean() > 0.999 and 0.998 < similar.min() < 0.999999
    assert all(torch.equal(p, before[name]) for name, p in trunk.named_parameters())


@torch.no_grad()
def test_what_was_put_in_a_block_or_hung_on_a_layer_stays():
    trunk, ids = random_trunk(), torch.arange(40).view(2, 20)
    trunk.h[0].mlp.act = torch.nn.ReLU()
    trunk.h[1].mlp.act.register_forward_hook(lambda module, _, y: y * 3)
    trunk.h[2].mlp.c_fc.register_forward_hook(lambda module, _, y: y * 3)
    trunk.h[2].attn.c_attn.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    ours = packed(trunk, 4, torch.int8)(ids)
    assert F.cosine_similarity(ours, trunk(ids), dim=-1).min() > 0.999


@pytest.mark.parametrize("policy", [{"freeze_trunk": True}, {"train_last": 1}], ids=str)
@torch.no_grad()
def test_only_what_is_frozen_is_in_int8(policy, checkpoint):
    base, texts, logits = describe("x", checkpoint), some_texts(), []
    for dtype in (torch.float32, torch.int8):
        model = PartialClassifier(load_trunk(checkpoint), 2, dtype=dtype)
        torch.nn.init.ones_(model.score.weight)
        freeze(model, names_to_train(model.transformer, **policy))
        stored = precompute(model, texts, base)  # the second time, of another dtype: not the first
        reader = model.score if "freeze_trunk" in policy else model
        logits.append(evaluate(reader, stored))
        once = FrozenPart(model).logits_of(texts)
        torch.testing.assert_close(once, logits[-1], rtol=0, atol=1e-2 * once.std().item())
    assert 0 < (logits[0] - logits[1]).norm() < 0.05 * logits[0].norm()
    assert type(model.transformer.h[-1].mlp.c_fc) is Linear  # the model itself is as it was
    first = model.transformer.embed(texts.batch(np.arange(2))[0][0])
    model.dtype = torch.int8
    ours = model(first, torch.tensor([2, 2]), 3)
    model.dtype = torch.float32
    assert torch.equal(ours, model(first, torch.tensor([2, 2]), 3))  # what is trained


def test_vectors_in_int8_are_not_taken_for_others(checkpoint):
    base, texts = describe("x", checkpoint), some_texts()
    depend = []
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        model = PartialClassifier(load_trunk(checkpoint), 2, dtype=dtype)
        freeze(model, set())
        depend.append(depends_on(model, texts, base))
    assert all(depend.count(one) == 1 for one in depend)


def test_with_tiny_a_head_gives_the_answers_that_it_gives_in_float32():
    dataset, tiny = load_dataset("mirrored", seed=0), find_checkpoint("tiny")
    texts = tokenize(dataset.dev[:150], dataset.labels, open_tokenizer(tiny), 256)
    answers, vectors = [], []
    for dtype in (torch.float32, torch.int8):
        model = PartialClassifier(load_trunk(tiny.folder), 2, dtype=dtype)
        freeze(model, set())
        vectors.append(precompute(model, texts, tiny))
        if not answers:
            fit_head(model.score, vectors[0], vectors[0])
            score = model.score
        answers.append(evaluate(score, vectors[-1]).argmax(1))
    x, y = (torch.from_numpy(part.x[part.places]) for part in vectors)
    assert F.cosine_similarity(x, y).mean() > 0.999
    assert (answers[0] == answers[1]).float().mean() > 0.95
