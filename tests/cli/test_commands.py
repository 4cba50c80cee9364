"""The commands of python -m minigpt from the outside, but for predict, which has its own file."""

import os

import pytest
import torch
from safetensors.torch import load_file, save_file


def test_generate_goes_on_from_the_prompt(run, checkpoint):
    how = ["--weights", checkpoint, "--tokens", 12]
    status, out, err = run("generate", "the good", *how, "--temperature", 0)
    assert status == 0, err
    assert out.startswith("the good") and len(out) > len("the good\n")
    assert run("generate", "the good", *how, "--temperature", 0)[1] == out
    seeds = [run("generate", "", *how, "--seed", s)[1] for s in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_generate_with_damaged_weights_says_so_in_one_line(run, checkpoint):
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["h.1.ln_1.bias"][3] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors")
    for temperature in (0, 1):
        how = ["--weights", checkpoint, "--temperature", temperature]
        status, out, err = run("generate", "the good", *how)
        assert (status, out) == (2, "") and err.count("\n") == 1 and "damaged weights" in err


def test_the_cache_is_shown_and_cleared_and_a_second_run_starts_from_it(
    run, checkpoint, texts, own_cache, monkeypatch
):
    flags = ["train", "--train-last", 1, "--weights", checkpoint, "--data", texts, "--epochs", 1]
    first = run(*flags)
    assert first[0] == 0, first
    lines = run("cache")[1].splitlines()
    assert len(lines) == 4 and str(own_cache) in lines[-1]  # train, dev, test; the sum
    for n in (160, 20, 20):
        assert any(f"states after block 2 of {n} texts, {checkpoint}, float32" in s for s in lines)

    monkeypatch.setattr("minigpt.fast.frozen.frozen_pass", None)  # would fail if it were called
    assert run(*flags)[0] == 0
    learned = [load_file(f"runs/{n}/learned.safetensors") for n in sorted(os.listdir("runs"))]
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])

    young = own_cache / "states" / ".new-young"  # what a killed process left, or one at work
    young.mkdir()
    young.joinpath("states.npy").write_bytes(bytes(10**6))
    lines = run("cache", "--clear")[1].splitlines()
    assert "not cleared; a process may still write it" in lines[-2] and young.exists()
    assert len(run("cache")[1].splitlines()) == 2  # that one, and the sum


@pytest.mark.parametrize(
    "argv, message",
    [
        (["generate", "x", "--weights", "nowhere"], "no such folder"),
        (["generate", "x", "--tokens", "0"], "0 is not 1 or more"),
        (["translate", "x"], "invalid choice"),
        ([""], "invalid choice"),
    ],
)
def test_bad_commands_get_one_line_and_status_2(argv, message, run):
    status, _, err = run(*argv)
    assert status == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
