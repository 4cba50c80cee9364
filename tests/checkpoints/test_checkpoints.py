"""Checkpoints from disk and from the Hub: what opens, what equals transformers, what is refused."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from conftest import ROOT, SMALL, random_trunk, write_vocabulary
from hub_server import find_in_a_new_process, hub_of
from safetensors.torch import load_file, save_file

from minigpt.checkpoints import Checkpoint, find, find_checkpoint, open_tokenizer
from minigpt.checkpoints.hub import NoNetwork, reachable
from minigpt.checkpoints.verify import FILES
from minigpt.edge.errors import InputError
from minigpt.weights import load_trunk, save_trunk

transformers = pytest.importorskip("transformers")
SIZES = {n: v for n, v in dataclasses.asdict(SMALL).items() if n != "n_inner"}
IDS = torch.arange(60).view(2, 30) * 4  # a batch for any of the models here


def random_model(kind=transformers.GPT2LMHeadModel, **sizes):
    """Return transformers' model with random values, also where it would begin with 0 and 1."""
    torch.manual_seed(0)
    model = kind(transformers.GPT2Config(pad_token_id=0, **sizes)).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter += 0.1 * torch.randn(parameter.shape)
    return model


def write_official(model, folder, dtype=torch.float32, prefix="", masks=torch.float32, old=False):
    """Write what transformers computes with as openai-community and others wrote their files."""
    folder.mkdir(exist_ok=True)
    tensors = {prefix + n: p.to(dtype) for n, p in model.transformer.named_parameters()}
    T = model.config.n_positions
    for i in range(model.config.n_layer):
        if masks:
            tensors[f"{prefix}h.{i}.attn.bias"] = torch.ones(1, 1, T, T).tril().to(masks)
        if old:  # versions of 2020 wrote these two as well
            tensors[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
            tensors["lm_head.weight"] = tensors[f"{prefix}wte.weight"].clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(folder)
    write_vocabulary(folder)
    return tensors


@torch.no_grad()
def logits(folder):
    trunk = load_trunk(find_checkpoint(str(folder)).folder)
    return trunk.next_token_logits(trunk(IDS))


def complaint(name) -> str:
    """Return the one line in which a checkpoint is refused."""
    with pytest.raises(InputError) as error:
        load_trunk(find_checkpoint(str(name)).folder)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- The official file ----


@pytest.fixture(scope="session")
def official(tmp_path_factory):
    """Give a folder in the layout of the official 124M file, and the model that has its values."""
    model, folder = random_model(), tmp_path_factory.mktemp("official")
    tensors = write_official(model, folder)
    assert len(tensors) == 160 and {t.dtype for t in tensors.values()} == {torch.float32}
    yield folder, model
    shutil.rmtree(folder)  # pytest itself would keep these 548 MB


def test_the_official_layout_gives_the_logits_of_transformers(official):
    folder, model = official
    assert (logits(folder) - model(IDS).logits).abs().max() <= 1e-4


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
def test_the_official_file_is_mapped_and_not_copied(official):
    folder, _ = official
    trunk = load_trunk(find_checkpoint(str(folder)).folder)
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    path = os.path.realpath(folder / "model.safetensors")
    places = [line[0].split("-") for line in lines if line[5:] == [path]]
    for parameter in trunk.parameters():
        at = parameter.data_ptr()
        assert any(int(start, 16) <= at < int(end, 16) for start, end in places)


# ---- Other files that are good ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("masks, old", [(None, False), (torch.float32, False), (torch.bool, True)])
@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_any_way_to_write_a_gpt2_gives_the_same_logits(tmp_path, prefix, masks, old, dtype):
    model = random_model(**SIZES).to(dtype).float()  # the values that the file can hold
    write_official(model, tmp_path, dtype, prefix, masks, old)
    torch.testing.assert_close(logits(tmp_path), model(IDS).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["GPT2Model", "GPT2LMHeadModel", "GPT2ForSequenceClassification"])
@torch.no_grad()
def test_what_transformers_saves_opens_here(tmp_path, kind):
    model = random_model(getattr(transformers, kind), **SIZES)
    model.save_pretrained(tmp_path)
    write_vocabulary(tmp_path)
    ours = load_trunk(find_checkpoint(str(tmp_path)).folder)(IDS)
    torch.testing.assert_close(ours, model.base_model(IDS).last_hidden_state, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("n_inner", [None, 40])
@torch.no_grad()
def test_what_is_saved_here_opens_in_transformers(tmp_path, n_inner, dtype):
    trunk = random_trunk(n_inner=n_inner)
    save_trunk(trunk, tmp_path, dtype)
    theirs, report = transformers.GPT2Model.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = trunk.to(dtype).float()(IDS)
    torch.testing.assert_close(theirs(IDS).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    assert {t.dtype for t in load_file(tmp_path / "model.safetensors").values()} == {dtype}


def test_a_mapped_file_changes_only_when_the_model_is_saved_over_it(checkpoint):
    before = find_checkpoint(str(checkpoint))
    trunk = load_trunk(before.folder)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += 1
    assert find_checkpoint(str(checkpoint)) == before
    expected = {name: p.clone() for name, p in trunk.state_dict().items()}
    save_trunk(trunk, checkpoint)
    found = load_trunk(find_checkpoint(str(checkpoint)).folder).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert sorted(p.name for p in checkpoint.iterdir()) == sorted(FILES)  # nothing left beside


def test_dropout_replaces_the_rates_of_the_config_and_nothing_else(checkpoint):
    found = find_checkpoint(str(checkpoint))
    config = load_trunk(found.folder, dropout=0.5).config
    rates = {"embd_pdrop": 0.5, "attn_pdrop": 0.5, "resid_pdrop": 0.5}
    assert dataclasses.asdict(config) == dataclasses.asdict(found.config) | rates


# ---- Bad files: one line that says which and what ----


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(checkpoint, file):
    (checkpoint / file).unlink()
    assert f"{checkpoint / file} is missing" in complaint(checkpoint)


@pytest.mark.parametrize("length", [0, 7, 8, 500, -1000, -1])
def test_a_cut_file_is_refused(checkpoint, length):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert f"{path} cannot be read" in complaint(checkpoint)


CONFIGS = [
    ("{", "Expecting property name"),
    ("\xff", "decode"),
    ('{"a": "\xed\xa0\x80"}', "decode"),  # half a surrogate pair, which json would take
    ("[" * 100_000, "recursion"),
    ("[1]", "[1] is not an object"),
    ("{}", "model_type is missing: 'gpt2'"),
    ({"model_type": "bert"}, "model_type is 'bert'"),
    ({"activation_function": "relu"}, "activation_function is 'relu', not 'gelu_new' or"),
    (
        {"scale_attn_by_inverse_layer_idx": True},
        "scale_attn_by_inverse_layer_idx is True, not False",
    ),
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False, not True"),
    ({"n_head": 5}, "n_embd 24 is not a multiple of n_head 5"),
    ({"n_layer": -3}, "n_layer is -3"),
    ({"n_embd": "24"}, "n_embd is '24'"),
    ({"n_layer": 3.0}, "n_layer is 3.0"),
    ({"vocab_size": None}, "vocab_size is None"),
    ({"n_positions": 2**63}, "n_positions is 9223372036854775808"),
    ({"n_embd": 2**31 - 2}, "n_embd is 2147483646"),  # n_embd² overflows
    ({"n_layer": 2000}, "n_layer is 2000"),  # building blocks takes time, 2**31 of them for ever
    ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is nan"),
    ({"embd_pdrop": 1.5}, "embd_pdrop is 1.5"),
]


@pytest.mark.parametrize("change, says", CONFIGS, ids=[says for _, says in CONFIGS])
def test_a_config_that_is_no_gpt2s_is_refused(checkpoint, change, says):
    path = checkpoint / "config.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_bytes()) | change)
    path.write_bytes(change.encode("latin-1"))
    assert re.search(f"{re.escape(str(path))}: .*{re.escape(says)}", complaint(checkpoint))


TENSORS = [
    ({"h.1.ln_1.bias": None}, "lacks h.1.ln_1.bias"),
    ({"h.0.attn.c_attn.bias": None}, "lacks h.0.attn.c_attn.bias"),  # no mask, though it ends so
    ({"wpe.weight": None, "wte.weight": None}, "lacks wpe.weight, wte.weight"),
    ({"h.3.ln_1.bias": torch.zeros(24)}, "has h.3.ln_1.bias"),
    ({"h.0.attn.bias_2": torch.zeros(1)}, "has h.0.attn.bias_2"),
    ({"h.0.mlp.c_fc.weight": torch.zeros(96, 24)}, "h.0.mlp.c_fc.weight has shape [96, 24]"),
    ({"wte.weight": torch.zeros(268 * 24)}, "wte.weight has shape [6432]"),
    ({"ln_f.bias": torch.zeros(24, dtype=torch.int64)}, "ln_f.bias is I64"),
]


@pytest.mark.parametrize("change, says", TENSORS, ids=[says for _, says in TENSORS])
def test_tensors_other_than_the_config_asks_for_are_refused(checkpoint, change, says):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path) | change
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    assert re.match(f"{re.escape(str(path))}:? {re.escape(says)}", complaint(checkpoint))


@pytest.mark.parametrize("rows", [-1, 128])
def test_a_vocabulary_of_another_size_is_refused(checkpoint, rows):
    config = dataclasses.replace(SMALL, vocab_size=SMALL.vocab_size + rows)
    with pytest.raises(InputError, match=f"{checkpoint / 'vocab.json'} has 268 tokens") as error:
        open_tokenizer(Checkpoint("x", checkpoint, "", config))
    assert "\n" not in str(error.value)


# ---- What a name finds ----


def no_network(*_):
    raise NoNetwork("no network")


@pytest.fixture
def bundled(checkpoint, monkeypatch):
    """Give a place for bundled checkpoints that has tiny only, where there is no network."""
    folder = checkpoint.parent / "bundled"
    shutil.copytree(checkpoint, folder / "tiny")
    monkeypatch.setattr(find, "BUNDLED", folder)
    monkeypatch.setattr(find, "from_hub", no_network)
    return folder


def test_an_official_name_finds_the_bundled_folder_if_its_hash_is_right(bundled, monkeypatch):
    path = shutil.copytree(bundled / "tiny", bundled / "gpt2") / "model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(find.OFFICIAL, "gpt2", ("revision", digest))
    found = find_checkpoint("gpt2")
    assert (found.name, found.folder, found.sha256) == ("gpt2", bundled / "gpt2", digest)
    assert find_checkpoint(None) == found

    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # one bit
    assert f"{path} is not the official file" in complaint("gpt2") and digest in complaint("gpt2")
    with pytest.raises(InputError, match="not the official file"):  # no reason to take tiny
        find_checkpoint(None)


def test_no_name_finds_tiny_where_gpt2_cannot_be_had_and_says_so_in_one_line(bundled, capsys):
    assert find_checkpoint(None) == find_checkpoint("tiny")
    assert find_checkpoint("tiny").folder == bundled / "tiny"
    assert re.fullmatch(r".*gpt2.*tiny\n", capsys.readouterr().err)
    with pytest.raises(NoNetwork):  # who names gpt2 does not get something else
        find_checkpoint("gpt2")


def test_a_folder_is_found_again_by_the_name_it_was_given(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    found = find_checkpoint("checkpoint")
    monkeypatch.chdir(ROOT)
    again = find_checkpoint(found.name)
    assert (again.sha256, again.config, again.name) == (found.sha256, found.config, found.name)


@pytest.mark.parametrize("name", ["nonsense", "./org/small", "a/b/c", "org/-small", "org/a--b"])
def test_a_name_of_nothing_is_refused(name):
    assert name in complaint(name)


# ---- The Hub, played by a server on this machine ----


@pytest.fixture
def hub(checkpoint):
    """Serve the checkpoint as two repositories; give the address and the list of what is asked."""
    with hub_of(dict.fromkeys(("org/small", "openai-community/gpt2"), checkpoint)) as hub:
        yield hub


def test_a_repository_is_downloaded_once_and_then_needs_no_network(hub, checkpoint, tmp_path):
    (address, asked), cache = hub, tmp_path / "cache"
    cache.mkdir()
    names = ["org/small", "org/small", "org/absent", "gpt2"]
    say, folder, again, *rest = find_in_a_new_process(cache, address, *names)
    assert say.startswith("downloading org/small") and folder == again
    for file in FILES:
        assert Path(folder, file).read_bytes() == (checkpoint / file).read_bytes()
        of_file = [path for how, path in asked if how == "GET" and path.endswith(f"/{file}")]
        assert [path.startswith("/org/small/") for path in of_file].count(True) == 1

    assert rest[1].startswith("InputError org/absent: ")  # a network, but no such repository
    assert "network" not in rest[1]
    assert rest[3].startswith("InputError ") and "not the official file" in rest[3]
    assert len(rest) == 4
    revision, _ = find.OFFICIAL["gpt2"]
    path = f"/openai-community/gpt2/resolve/{revision}/model.safetensors"
    assert [p for _, p in asked if "gpt2" in p and "model" in p] == [path, path]  # HEAD and GET

    found, refused = find_in_a_new_process(cache, "http://127.0.0.1:9", "org/small", "org/absent")
    assert found == folder
    assert refused.startswith("NoNetwork org/absent is not in the Hub cache")


@pytest.mark.parametrize("reason", ["peer closed connection\n(0 bytes)", ""])
def test_a_download_that_breaks_off_is_reported_in_one_line(monkeypatch, reason):
    def download(*_, **__):
        raise Exception(reason)  # the HTTP libraries have no other class in common

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("minigpt.checkpoints.hub.reachable", lambda _: True)
    assert complaint("org/small").startswith("org/small: ")


def test_no_answer_is_an_answer_in_bounded_time_where_name_lookup_hangs(monkeypatch):
    asked, over = threading.Event(), threading.Event()

    def hang(*_, **__):
        asked.set()
        over.wait(10)
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    start = time.monotonic()
    assert not reachable("http://hub.invalid/", seconds=0.5)
    assert asked.is_set() and time.monotonic() - start < 5
    over.set()
