"""Computed once = computed anew: same logits, same training, wherever training starts."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from conftest import LORA, random_trunk, some_texts, without_key_bias

from minigpt.checkpoints import Checkpoint, describe
from minigpt.classifier import POOLINGS, Classifier
from minigpt.data import Tokens
from minigpt.edge.errors import InputError
from minigpt.fast import FrozenPart, PartialClassifier, check_frozen_part, frozen, int8, precompute
from minigpt.fast.frozen import StoredStates, StoredVectors, first_trainable
from minigpt.fit import Recipe, Training, evaluate, train_to_end
from minigpt.freeze import freeze, names_to_train, trainable
from minigpt.head import HEAD_RECIPE, fit_head, vectors_of
from minigpt.peft import put_on
from minigpt.weights import load_trunk, save_trunk

RECIPE = Recipe(2, 8, 1e-2, 0.1, 0.1, 1.0, 1, seed=0)
FROZEN = {"freeze_trunk": True}


@pytest.fixture
def base(checkpoint) -> Checkpoint:
    return describe("x", checkpoint)


def classifier(base, policy, pooling="last", dtype=torch.float32, dropout=0.1):
    torch.manual_seed(0)
    model = PartialClassifier(load_trunk(base.folder, dropout), 2, pooling, dtype).eval()
    freeze(model, names_to_train(model.transformer, **policy))
    return model


def reader_of(model: PartialClassifier, examples):
    """Return what of the model reads such examples: its head alone, where vectors are stored."""
    return model.score if isinstance(examples, StoredVectors) else model


def array_of(examples) -> np.ndarray:
    return examples.x if isinstance(examples, StoredVectors) else examples.states


STARTS = [  # a policy, and the first block that it trains; ln_f counts as block 3
    (FROZEN, 4),
    ({"train_last": 1}, 2),
    ({"train_last": 3}, 0),
    ({"train_only": "*.bias"}, 0),
    ({"train_only": "h.*.ln_?.*, wpe.weight"}, 0),
    ({}, 0),
]


@pytest.mark.parametrize("policy, first", STARTS, ids=str)
def test_reading_starts_at_the_first_block_in_which_something_is_trained(policy, first, base):
    model = classifier(base, policy)
    assert first_trainable(model.transformer) == first
    kind = Tokens if first == 0 else StoredVectors if first == 4 else StoredStates
    assert type(precompute(model, some_texts(), base)) is kind


CUTS = [
    FROZEN,
    {"train_only": "ln_f.*"},
    {"train_only": "h.2.*"},
    {"train_last": 2},
    {"train_only": "h.1.ln_?.bias"},
]


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("policy", CUTS, ids=str)
@torch.no_grad()
def test_logits_from_what_is_stored_are_those_from_the_ids(policy, how, base):
    model, texts = classifier(base, policy, how), some_texts()
    stored = precompute(model, texts, base)
    reader = reader_of(model, stored)
    for chosen in (np.arange(24), np.array([7]), np.array([20, 3, 11])):
        (inputs, labels), (states, same) = texts.batch(chosen), stored.batch(chosen)
        torch.testing.assert_close(reader(*states), model(*inputs), rtol=0, atol=1e-5)
        assert torch.equal(labels, same)
    assert len(array_of(stored)) == (24 if policy == FROZEN else texts.lengths.sum())
    expected = evaluate(model, texts)
    torch.testing.assert_close(evaluate(reader, stored), expected, rtol=0, atol=1e-5)
    once = FrozenPart(model).logits_of(texts)
    torch.testing.assert_close(once, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("policy", CUTS, ids=str)
def test_training_from_what_is_stored_gives_the_weights_of_training_from_the_ids(policy, how, base):
    """Dropout included: below where training starts there is none."""
    texts, results = some_texts(), []
    for computed_once in (True, False):
        model = classifier(base, policy, how)
        examples = precompute(model, texts, base) if computed_once else texts
        torch.manual_seed(1)
        reader = reader_of(model, examples)
        train_to_end(Training.of(reader, RECIPE, len(texts)), examples, examples)
        results.append([without_key_bias(n, p.detach()) for n, p in trainable(model).items()])
    for ours, oracle in zip(*results, strict=True):
        assert (ours - oracle).norm() <= 1e-4 * oracle.norm()


@pytest.mark.parametrize("how", POOLINGS)
def test_a_head_fitted_on_stored_vectors_is_the_one_that_the_core_fits_in_memory(how, base):
    model, texts = classifier(base, FROZEN, how), some_texts()
    plain = Classifier(model.transformer, 2, how)
    heads = []
    for vectors in (precompute(model, texts, base), vectors_of(plain, texts)):
        fit_head(model.score, vectors, vectors, dataclasses.replace(HEAD_RECIPE, epochs=3))
        heads.append(model.score.weight.detach().clone())
    assert (heads[0] - heads[1]).norm() <= 1e-4 * heads[1].norm() > 0


@pytest.mark.parametrize("policy", [FROZEN, {"train_last": 1}], ids=str)
@torch.no_grad()
def test_in_bfloat16_the_trunk_is_rounded_and_the_rest_is_not(policy, base):
    exact_model = classifier(base, policy)
    model, texts = classifier(base, policy, dtype=torch.bfloat16), some_texts()
    stored = precompute(model, texts, base)
    reader = reader_of(model, stored)
    assert array_of(stored).dtype == (np.float32 if policy == FROZEN else np.int16)
    (states, *rest), _ = stored.batch(np.arange(24))
    assert states.dtype == (torch.float32 if policy == FROZEN else torch.bfloat16)
    assert reader(states, *rest).dtype == torch.float32
    exact, logits = evaluate(exact_model, texts), evaluate(reader, stored)
    assert 0 < (logits - exact).abs().max() < 0.02 * exact.abs().max()
    once = FrozenPart(model).logits_of(texts)  # in other batches: what is rounded is not the same
    torch.testing.assert_close(once, logits, rtol=0, atol=0.005 * exact.abs().max().item())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_what_is_stored_is_opened_again_without_reading_a_text(base):
    model, texts = classifier(base, {"train_last": 1}), some_texts()
    first, read = precompute(model, texts, base), []
    for block in model.transformer.h:  # the copy that reads has the hooks, too
        block.register_forward_hook(lambda *_: read.append(1))
    again = precompute(model, texts, base)
    assert not read and np.array_equal(first.states, again.states)
    precompute(model, some_texts(seed=1), base)
    assert read


CHANGES = {
    "another text": lambda model, texts, base: (model, some_texts(seed=1), base),
    "another order": lambda model, texts, base: (
        model,
        Tokens(texts.ids[::-1], texts.labels.flip(0)),
        base,
    ),
    "another pooling": lambda model, texts, base: (classifier(base, FROZEN, "mean"), texts, base),
    "another boundary": lambda model, texts, base: (
        model,
        Tokens(
            [np.concatenate(texts.ids[:2])[:1], np.concatenate(texts.ids[:2])[1:], *texts.ids[2:]],
            texts.labels,
        ),
        base,
    ),
    "another part": lambda model, texts, base: (classifier(base, {"train_last": 1}), texts, base),
    "another dtype": lambda model, texts, base: (
        classifier(base, FROZEN, dtype=torch.bfloat16),
        texts,
        base,
    ),
}


def test_what_tuning_adds_counts_where_it_is_read_with(base, own_cache):
    """A prompt that is frozen while the head is fitted; but not LoRA above what is stored."""
    texts, arrays = some_texts(), []
    for seed, flags in [(s, f) for f in ({"prompt": 2}, LORA | {"in_last": 1}) for s in (0, 1)]:
        trunk = load_trunk(base.folder)
        torch.manual_seed(seed)
        added = put_on(trunk, flags)
        model = PartialClassifier(trunk, 2)
        freeze(model, set() if "prompt" in flags else added)
        precompute(model, texts, base)
        arrays.append(len(list((own_cache / "states").iterdir())))
    assert arrays == [1, 2, 3, 3]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_stored_is_not_taken_for_anything_else(change, base, own_cache):
    model, texts = classifier(base, FROZEN), some_texts()
    precompute(model, texts, base)
    precompute(*change(model, texts, base))
    assert len(list((own_cache / "states").iterdir())) == 2


def test_states_before_another_block_or_of_another_format_are_not_taken_for_these(
    base, own_cache, monkeypatch
):
    texts = some_texts()
    one, two = (precompute(classifier(base, {"train_last": n}), texts, base) for n in (1, 2))
    assert one.states.shape == two.states.shape
    assert not np.array_equal(one.states, two.states)
    monkeypatch.setattr(frozen, "FORMAT", 99)
    precompute(classifier(base, {"train_last": 1}), texts, base)
    assert len(list((own_cache / "states").iterdir())) == 3


def test_vectors_of_other_weights_or_another_epsilon_are_not_taken_for_these(base, own_cache):
    texts = some_texts()
    precompute(classifier(base, FROZEN), texts, base)
    other = base.folder.parent / "other"
    for seed, changes in ((1, {}), (0, {"layer_norm_epsilon": 0.1})):
        shutil.copytree(base.folder, other)
        save_trunk(random_trunk(seed, **changes), other)
        another = describe("x", other)
        model = classifier(another, FROZEN)
        logits = evaluate(model.score, precompute(model, texts, another))
        torch.testing.assert_close(logits, evaluate(model, texts), rtol=0, atol=1e-5)
        shutil.rmtree(other)
    assert len(list((own_cache / "states").iterdir())) == 3


def test_a_damaged_array_is_computed_again(base, own_cache):
    model, texts = classifier(base, {"train_last": 1}), some_texts()
    expected = np.array(precompute(model, texts, base).states)
    (folder,) = (own_cache / "states").iterdir()
    array, description = folder / "states.npy", folder / "about.json"
    good, said = array.read_bytes(), description.read_text()
    flipped = bytearray(good)
    flipped[-5] ^= 1
    for path, content in (
        (array, bytes(flipped)),
        (array, good[:-4]),
        (array, b""),
        (description, b"{}"),
        (description, b"\xff"),
        (description, said.replace('"sha256": "', '"sha256": "0').encode()),
    ):
        path.write_bytes(content)
        assert np.array_equal(precompute(model, texts, base).states, expected)
        assert (array.read_bytes(), description.read_text()) == (good, said)


def test_a_cache_that_cannot_be_written_is_told_in_one_line(base, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIGPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written .*MINIGPT_CACHE") as error:
        precompute(classifier(base, FROZEN), some_texts(), base)
    assert "\n" not in str(error.value)


def test_int8_is_refused_where_it_cannot_be_had_or_nothing_is_frozen(monkeypatch, base):
    model = classifier(base, {}, dtype=torch.int8)
    with pytest.raises(InputError, match="training starts at the first block"):
        check_frozen_part(model)
    freeze(model, set())
    check_frozen_part(model)
    with pytest.raises(InputError, match="this is cuda; choose the device cpu"):
        int8.check_int8("cuda")
    monkeypatch.setattr(int8, "has_int8", lambda: False)
    with pytest.raises(InputError, match="needs a CPU with"):
        FrozenPart(model)
