"""The recipe of the bundled checkpoint: it resumes without a trace, and shows no text twice."""

import importlib.util
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, random_trunk

pytest.importorskip("tokenizers")
spec = importlib.util.spec_from_file_location("pretrain", ROOT / "weights/tiny/pretrain.py")
pretrain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pretrain)


def test_an_epoch_reads_every_token_once_and_the_next_one_cuts_elsewhere():
    ids = np.arange(pretrain.T * pretrain.BATCH * 3 + 700)
    per_epoch = (len(ids) - 2 * pretrain.T) // pretrain.T // pretrain.BATCH
    rows = torch.cat([pretrain.windows(ids, step) for step in range(per_epoch)])
    assert len(rows[:, :-1].unique()) == rows[:, :-1].numel() == per_epoch * 32 * pretrain.T
    assert (rows.diff(dim=1) == 1).all()  # what follows each token is what is to be predicted
    other = pretrain.windows(ids, per_epoch)
    assert not set(other[:, 0].tolist()) & set(rows[:, 0].tolist())
    assert torch.equal(pretrain.windows(ids, 1), pretrain.windows(ids, 1))


def test_the_learning_rate_does_not_depend_on_the_total_before_it_falls():
    warm = round(pretrain.WARM_UP * 2000)
    rates = [[pretrain.learning_rate(step, n) for step in range(warm, 1000)] for n in (1700, 2000)]
    assert rates[0] == rates[1] and set(rates[0]) == {pretrain.PEAK}
    assert 0 < pretrain.learning_rate(1999, 2000) < 0.01 * pretrain.PEAK


def test_training_goes_on_from_a_saved_state_bit_for_bit(tmp_path):
    def step(model, optimizing, seed):
        ids = torch.randint(200, (4, 17), generator=torch.Generator().manual_seed(seed))
        logits = model.next_token_logits(model(ids[:, :-1]))
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        for optimizer in optimizing:
            optimizer.step()
        model.zero_grad()

    first = random_trunk()
    optimizing = pretrain.optimizers(first)
    for seed in range(3):
        step(first, optimizing, seed)
    pretrain.save_state(tmp_path / "last.safetensors", first, optimizing, {"step": 3})

    second = random_trunk(seed=9)
    resumed = pretrain.optimizers(second)
    progress = pretrain.load_state(tmp_path / "last.safetensors", second, resumed)
    assert progress == {"step": 3}
    for seed in (3, 4):
        step(first, optimizing, seed)
        step(second, resumed, seed)
    for ours, theirs in itertools.zip_longest(first.parameters(), second.parameters()):
        assert torch.equal(ours, theirs)


def test_reviews_come_in_four_forms_and_one_in_a_hundred_is_held_out(tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text("".join(f"It's #{i}, so-so. \"Isn't\" it?\n" for i in range(200)), "utf-8")
    texts, held_out = pretrain.read_reviews([path])
    assert held_out[:2] == ["it 's #0 , so so", '" is n\'t " it ?']
    assert held_out[2:] == ["it 's #100 , so so", '" is n\'t " it ?']
    assert texts[:6] == [
        *("It's #1, so-so.", '"Isn\'t" it?'),
        "it 's #2 , so so . \" is n't \" it ?",
        "It's #3, so-so. \"Isn't\" it?",
        *("it 's #4 , so so", '" is n\'t " it ?'),
    ]
    assert len({text for text in texts if "#" in text}) == 198
