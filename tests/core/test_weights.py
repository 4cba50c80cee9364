"""Files that transformers wrote open here with the same values, and the other way round."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from conftest import SMALL, random_trunk
from safetensors.torch import load_file, save_file

from minigpt.config import GPT2Config
from minigpt.weights import load_trunk, open_tensors, parameters_in, save_trunk

transformers = pytest.importorskip("transformers")
KINDS = ["GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification"]
IDS = torch.arange(60).view(2, 30) * 4


def model_of_transformers(kind="GPT2LMHeadModel"):
    """Return a small model with random values, also where it would begin with 0 and 1."""
    sizes = {name: v for name, v in dataclasses.asdict(SMALL).items() if name != "n_inner"}
    config = transformers.GPT2Config(pad_token_id=0, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_transformers_saves_opens_here(tmp_path, kind):
    """With the prefix `transformer.` or without, and whatever head is beside the trunk."""
    model = model_of_transformers(kind)
    model.save_pretrained(tmp_path)
    expected = model.base_model(IDS).last_hidden_state
    torch.testing.assert_close(load_trunk(tmp_path)(IDS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@torch.no_grad()
def test_what_is_saved_here_opens_in_transformers(tmp_path, dtype):
    trunk = random_trunk(n_inner=40)
    save_trunk(trunk, tmp_path, dtype)
    theirs, report = transformers.GPT2Model.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = trunk.to(dtype).float()(IDS)
    torch.testing.assert_close(theirs(IDS).last_hidden_state, expected, rtol=1e-5, atol=1e-5)


def test_names_are_matched_whole_so_that_a_bias_is_not_taken_for_a_mask():
    """The official files have both: h.0.attn.bias, a causal mask, and h.0.attn.c_attn.bias."""
    names = {f"transformer.{name}" for name, _ in random_trunk().named_parameters()}
    masks = {"transformer.h.0.attn.bias", "transformer.h.11.attn.masked_bias"}
    found = parameters_in([*names, *masks, "lm_head.weight", "score.weight"])
    assert set(found.values()) == names and "h.0.attn.c_attn.bias" in found
    assert all(file_name == f"transformer.{name}" for name, file_name in found.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_values_are_those_of_the_file_whatever_its_type(checkpoint, dtype):
    path = checkpoint / "model.safetensors"
    stored = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(stored, path, {"format": "pt"})
    for name, parameter in load_trunk(checkpoint).named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, stored[name].float()), name
    assert open_tensors(path, only=["ln_f.bias"]).keys() == {"ln_f.bias"}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
def test_parameters_are_the_mapped_file_and_no_copy_of_it(checkpoint):
    trunk = load_trunk(checkpoint)
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    path = os.path.realpath(checkpoint / "model.safetensors")
    places = [line[0].split("-") for line in lines if line[5:] == [path]]
    for name, parameter in trunk.named_parameters():
        at = parameter.data_ptr()
        assert any(int(start, 16) <= at < int(end, 16) for start, end in places), name


def test_a_mapped_file_changes_only_when_the_model_is_saved_over_it(checkpoint):
    trunk, before = load_trunk(checkpoint), (checkpoint / "model.safetensors").read_bytes()
    with torch.no_grad():
        trunk.wte.weight += 1
    assert (checkpoint / "model.safetensors").read_bytes() == before
    save_trunk(trunk, checkpoint)
    assert torch.equal(load_trunk(checkpoint).wte.weight, trunk.wte.weight)


def test_dropout_replaces_the_three_rates_of_the_config_and_nothing_else(checkpoint):
    config = load_trunk(checkpoint).config
    changed = load_trunk(checkpoint, dropout=0.25)
    rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.25)
    assert changed.config == dataclasses.replace(config, **rates)
    assert changed.drop.p == changed.h[2].mlp.dropout.p == changed.h[2].attn.attn_pdrop == 0.25
    assert not any(module.training for module in changed.modules())


def test_sizes_are_those_that_transformers_knows_by_the_same_names(tmp_path):
    """Also the defaults, which are the 124M model; and a field that is not a size is left alone."""
    ours, theirs = dataclasses.asdict(GPT2Config()), transformers.GPT2Config().to_dict()
    assert ours == {name: theirs[name] for name in ours}
    assert GPT2Config.from_json(theirs) == GPT2Config()
    assert GPT2Config.from_json(SMALL.to_json()) == SMALL
    assert [GPT2Config(n_inner=n).mlp_width for n in (None, 40)] == [3072, 40]
