"""Kept = computed anew: same logits, same training, wherever learning starts."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from common import some_texts
from conftest import LORA, random_trunk, without_key_bias
from test_freeze import POLICIES

from minigpt.checkpoints import describe
from minigpt.classifier import POOLINGS, Classifier
from minigpt.data import Tokens
from minigpt.edge.errors import InputError
from minigpt.fast import frozen
from minigpt.fast.frozen import FrozenPart, first_to_learn, keep
from minigpt.fit import Recipe, evaluate, fit
from minigpt.freeze import freeze, names_to_learn
from minigpt.head import HEAD, fit_head
from minigpt.peft.methods import put_on
from minigpt.weights import load_trunk, save_trunk

RECIPE = Recipe(2, 8, 1e-2, 0.1, 0.1, 1.0, 1, seed=0)
FIRST = [4, 2, 0, 0, 0, 0]  # what the policies of test_freeze leave to be computed once, in order


@pytest.fixture
def found(checkpoint):
    return describe("x", checkpoint)


def classifier(found, policy, pooling="last", dtype=torch.float32, dropout=0.1) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(load_trunk(found.folder, dropout), 2, pooling, dtype).eval()
    freeze(model, names_to_learn(model.transformer, **policy))
    return model


@pytest.mark.parametrize("policy, first", [*zip([p for p, _ in POLICIES], FIRST, strict=True)])
def test_reading_starts_at_the_first_block_in_which_something_learns(policy, first, found):
    model = classifier(found, policy)
    assert first_to_learn(model.transformer) == first
    assert isinstance(keep(model, some_texts(), found), Tokens) == (first == 0)


CUTS = [
    {"freeze_trunk": True},
    {"train_only": "ln_f.*"},
    {"train_only": "h.2.*"},
    {"train_last": 2},
    {"train_only": "h.1.ln_?.bias"},
]


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("policy", CUTS, ids=str)
@torch.no_grad()
def test_logits_from_what_is_kept_are_those_from_the_ids(policy, how, found):
    model, texts = classifier(found, policy, how), some_texts()
    kept = keep(model, texts, found)
    for rows in (np.arange(24), np.array([7]), np.array([20, 3, 11])):
        (inputs, labels), (states, same) = texts.batch(rows), kept.batch(rows)
        torch.testing.assert_close(model(*states), model(*inputs), rtol=0, atol=1e-5)
        assert torch.equal(labels, same)
    assert len(kept.states) == (24 if policy == {"freeze_trunk": True} else texts.lengths.sum())
    torch.testing.assert_close(evaluate(model, kept), evaluate(model, texts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", POOLINGS)
@pytest.mark.parametrize("policy", CUTS, ids=str)
def test_training_from_what_is_kept_gives_the_weights_of_training_from_the_ids(policy, how, found):
    """Dropout included: below where learning starts there is none."""
    texts, learned = some_texts(), []
    for serve in (keep, lambda model, texts, found: texts):
        model = classifier(found, policy, how)
        served = serve(model, texts, found)
        torch.manual_seed(1)
        fit(model, served, served, RECIPE)
        learning = [(n, p.detach()) for n, p in model.named_parameters() if p.requires_grad]
        learned.append([without_key_bias(*named) for named in learning])
    for ours, oracle in zip(*learned, strict=True):
        assert (ours - oracle).norm() <= 1e-4 * oracle.norm()


def test_a_head_fitted_on_kept_vectors_is_the_one_fitted_on_vectors_computed_in_each_epoch(found):
    model, texts = classifier(found, {"freeze_trunk": True}), some_texts()
    heads = []
    for served in (keep(model, texts, found), FrozenPart(model).of(texts)):
        fit_head(model, served, served, dataclasses.replace(HEAD, epochs=3))
        heads.append(model.score.weight.detach().clone())
    assert (heads[0] - heads[1]).norm() <= 1e-4 * heads[1].norm() > 0


@pytest.mark.parametrize("policy", [{"freeze_trunk": True}, {"train_last": 1}], ids=str)
@torch.no_grad()
def test_in_bfloat16_the_trunk_is_rounded_and_the_rest_is_not(policy, found):
    fine = classifier(found, policy)
    model, texts = classifier(found, policy, dtype=torch.bfloat16), some_texts()
    kept = keep(model, texts, found)
    pooled = policy == {"freeze_trunk": True}
    assert kept.states.dtype == (np.float32 if pooled else np.int16)
    (states, *rest), _ = kept.batch(np.arange(24))
    assert states.dtype == (torch.float32 if pooled else torch.bfloat16)
    assert model(states, *rest).dtype == torch.float32
    exact = evaluate(fine, texts)
    logits = evaluate(model, kept)
    assert 0 < (logits - exact).abs().max() < 0.02 * exact.abs().max()
    torch.testing.assert_close(
        evaluate(model, FrozenPart(model).of(texts)), logits, rtol=0, atol=1e-5
    )
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_what_is_kept_is_found_again_without_reading_a_text(found, monkeypatch):
    model, texts = classifier(found, {"train_last": 1}), some_texts()
    first = keep(model, texts, found)
    monkeypatch.setattr(frozen, "frozen_pass", None)  # would fail if it were called
    again = keep(model, texts, found)
    assert np.array_equal(first.states, again.states)


CHANGES = {
    "another text": lambda model, texts, found: (model, some_texts(seed=1), found),
    "another order": lambda model, texts, found: (
        model,
        Tokens(texts.ids[::-1], texts.labels.flip(0)),
        found,
    ),
    "another pooling": lambda model, texts, found: (
        classifier(found, {"freeze_trunk": True}, "mean"),
        texts,
        found,
    ),
    "another boundary": lambda model, texts, found: (
        model,
        Tokens(
            [np.concatenate(texts.ids[:2])[:1], np.concatenate(texts.ids[:2])[1:], *texts.ids[2:]],
            texts.labels,
        ),
        found,
    ),
    "another part": lambda model, texts, found: (
        classifier(found, {"train_last": 1}),
        texts,
        found,
    ),
    "another dtype": lambda model, texts, found: (
        classifier(found, {"freeze_trunk": True}, dtype=torch.bfloat16),
        texts,
        found,
    ),
}


def test_what_is_put_on_is_part_of_what_is_kept_where_it_is_read_with(found, own_cache):
    """A prompt that is frozen while the head is fitted; but not LoRA above what is kept."""
    texts, arrays = some_texts(), []
    for seed, flags in [(s, f) for f in ({"prompt": 2}, LORA | {"in_last": 1}) for s in (0, 1)]:
        trunk = load_trunk(found.folder)
        torch.manual_seed(seed)
        added = put_on(trunk, flags)
        model = Classifier(trunk, 2)
        freeze(model, set() if "prompt" in flags else added)
        keep(model, texts, found)
        arrays.append(len(list((own_cache / "states").iterdir())))
    assert arrays == [1, 2, 3, 3]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_kept_is_not_taken_for_anything_else(change, found, own_cache):
    model, texts = classifier(found, {"freeze_trunk": True}), some_texts()
    keep(model, texts, found)
    keep(*change(model, texts, found))
    assert len(list((own_cache / "states").iterdir())) == 2


def test_states_before_another_block_or_of_another_format_are_not_taken_for_these(
    found, own_cache, monkeypatch
):
    texts = some_texts()
    kept = [keep(classifier(found, {"train_last": n}), texts, found) for n in (1, 2)]
    assert kept[0].states.shape == kept[1].states.shape
    assert not np.array_equal(kept[0].states, kept[1].states)
    monkeypatch.setattr(frozen, "FORMAT", 99)
    keep(classifier(found, {"train_last": 1}), texts, found)
    assert len(list((own_cache / "states").iterdir())) == 3


def test_vectors_of_other_weights_or_another_epsilon_are_not_taken_for_these(found, own_cache):
    texts = some_texts()
    keep(classifier(found, {"freeze_trunk": True}), texts, found)
    other = found.folder.parent / "other"
    for seed, changes in ((1, {}), (0, {"layer_norm_epsilon": 0.1})):
        shutil.copytree(found.folder, other)
        save_trunk(random_trunk(seed, **changes), other)
        another = describe("x", other)
        model = classifier(another, {"freeze_trunk": True})
        kept = keep(model, texts, another)
        torch.testing.assert_close(evaluate(model, kept), evaluate(model, texts), rtol=0, atol=1e-5)
        shutil.rmtree(other)
    assert len(list((own_cache / "states").iterdir())) == 3


def test_a_damaged_array_is_computed_again(found, own_cache):
    model, texts = classifier(found, {"train_last": 1}), some_texts()
    expected = np.array(keep(model, texts, found).states)
    (folder,) = (own_cache / "states").iterdir()
    file, about = folder / "states.npy", folder / "about.json"
    good, said = file.read_bytes(), about.read_text()
    flipped = bytearray(good)
    flipped[-5] ^= 1
    for path, content in (
        (file, bytes(flipped)),
        (file, good[:-4]),
        (file, b""),
        (about, b"{}"),
        (about, b"\xff"),
        (about, said.replace('"sha256": "', '"sha256": "0').encode()),
    ):
        path.write_bytes(content)
        assert np.array_equal(keep(model, texts, found).states, expected)
        assert (file.read_bytes(), about.read_text()) == (good, said)


def test_a_cache_that_cannot_be_written_is_told_in_one_line(found, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MINIGPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot be written .*MINIGPT_CACHE") as error:
        keep(classifier(found, {"freeze_trunk": True}), some_texts(), found)
    assert "\n" not in str(error.value)
