"""The forms that checkpoints have elsewhere: shards, repositories, other heads, wrappers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SMALL, random_trunk, write_vocabulary
from hub_server import find_in_a_new_process, hub_of
from safetensors.torch import load_file, save_file

from minigpt.checkpoints import describe, open_tokenizer, read_head
from minigpt.checkpoints.verify import FILES, INDEX, WEIGHTS
from minigpt.classifier import Classifier
from minigpt.edge.errors import InputError
from minigpt.freeze import freeze, frozen_unchanged
from minigpt.tokenizer import END_OF_TEXT
from minigpt.weights import load_trunk

transformers = pytest.importorskip("transformers")


def complaint(folder) -> str:
    """Return the one line in which a folder is refused."""
    with pytest.raises(InputError) as error:
        describe("x", folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def shard(folder: Path) -> list[Path]:
    """Save the model of a folder again as transformers does in shards; return these."""
    kind = transformers.GPT2ForSequenceClassification
    model = kind.from_pretrained(folder, num_labels=2, pad_token_id=0)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    return sorted(folder.glob("model-*.safetensors"))


def one_file(folder: Path) -> None:
    """Put a tokenizer.json in the place of vocab.json and merges.txt."""
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


# ---- Shards ----


def test_shards_are_read_as_one_file(checkpoint):
    whole = load_trunk(checkpoint)
    shards = shard(checkpoint)
    assert len(shards) > 3 and not (checkpoint / WEIGHTS).exists()
    trunk = load_trunk(describe("x", checkpoint).folder)
    for (name, p), (other, q) in zip(
        trunk.named_parameters(), whole.named_parameters(), strict=True
    ):
        assert name == other and torch.equal(p, q)
    assert read_head(describe("x", checkpoint)).score.shape == (2, SMALL.n_embd)


def test_what_is_frozen_is_compared_with_the_shards(checkpoint):
    shard(checkpoint)
    model = Classifier(load_trunk(checkpoint), 2)
    freeze(model, {"ln_f.bias"})
    assert frozen_unchanged(model, checkpoint / WEIGHTS)
    with torch.no_grad():
        model.transformer.h[1].ln_1.weight[0] += 1
    assert not frozen_unchanged(model, checkpoint / WEIGHTS)


def test_the_hash_is_one_over_the_index_and_all_shards(checkpoint):
    shards = shard(checkpoint)
    before = describe("x", checkpoint).sha256
    for path in (*shards, checkpoint / INDEX):
        data = path.read_bytes()
        changed = data.replace(b'"metadata": {', b'"metadata":  {') if path.name == INDEX else data
        path.write_bytes(changed[:-1] + bytes([changed[-1] ^ 1]) if changed is data else changed)
        assert describe("x", checkpoint).sha256 != before, path
        path.write_bytes(data)
    assert describe("x", checkpoint).sha256 == before


def test_a_run_on_shards_trains_and_predicts(checkpoint, run, texts):
    shard(checkpoint)
    given = ("--weights", checkpoint, "--data", texts, "--epochs", 1, "--out", "r")
    status, _, err = run("train", *given, "--train-last", 1)
    assert status == 0, err
    assert json.loads(Path("r/metrics.json").read_text())["freezing"]["frozen_unchanged"]
    assert run("predict", "r", "good")[0] == 0


def spoiled(folder: Path, how: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    places, first = index["weight_map"], sorted(folder.glob("model-*"))[0]
    if how == "missing":
        first.unlink()
    elif how == "cut":
        first.write_bytes(first.read_bytes()[:-1])
    elif how == "twice":
        save_file(load_file(first), folder / "more.safetensors")
        places["x"] = "more.safetensors"
    elif how == "elsewhere":
        places["transformer.ln_f.bias"] = first.name
    elif how == "not named":
        del places["transformer.ln_f.bias"]
    elif how == "outside":
        places["transformer.ln_f.bias"] = "../model.safetensors"
    elif how == "number":
        places["transformer.ln_f.bias"] = 7
    elif how == "empty":
        places.clear()
    (folder / INDEX).write_text("{" if how == "json" else json.dumps(index))


SPOILED = {
    "missing": "is missing, which model.safetensors.index.json names",
    "cut": "cannot be read",
    "twice": "as another shard has",
    "elsewhere": "does not agree with its shards about transformer.ln_f.bias",
    "not named": "does not agree with its shards about transformer.ln_f.bias",
    "outside": "is '../model.safetensors', not the name of a .safetensors file beside it",
    "number": "is 7, not the name of a .safetensors file",
    "empty": "weight_map is {}, not an object with tensors in it",
    "json": "not JSON",
}


@pytest.mark.parametrize("how, says", SPOILED.items(), ids=SPOILED)
def test_shards_that_do_not_fit_their_index_are_refused(how, says, checkpoint):
    shard(checkpoint)
    spoiled(checkpoint, how)
    assert says in complaint(checkpoint)


# ---- Repositories of the Hub ----


@pytest.fixture
def repositories(checkpoint, tmp_path):
    """Give folders that are served as repositories, by their names."""
    made = {}
    for name in ("whole", "one-file", "sharded", "settings", "bin", "bins", "peft", "bare", "lost"):
        made[f"org/{name}"] = shutil.copytree(checkpoint, tmp_path / "hub" / name)
    one_file(made["org/one-file"])
    shard(made["org/sharded"])
    settings = {"add_prefix_space": True}
    (made["org/settings"] / "tokenizer_config.json").write_text(json.dumps(settings))
    weights = {name: folder / WEIGHTS for name, folder in made.items()}
    weights["org/bin"].rename(made["org/bin"] / "pytorch_model.bin")
    weights["org/bins"].rename(made["org/bins"] / "pytorch_model.bin.index.json")
    weights["org/lost"].unlink()
    (made["org/peft"] / "adapter_config.json").write_text("{}")
    (made["org/bare"] / "merges.txt").unlink()
    return made


def test_a_repository_is_read_as_a_folder_is(repositories, tmp_path):
    """In one process with the network, and in one without."""
    cache = tmp_path / "cache"
    cache.mkdir()
    names = ["org/whole", "org/one-file", "org/sharded", "org/settings"]
    with hub_of(repositories) as (address, asked):
        first = find_in_a_new_process(cache, address, *names)
        assert [line for line in first if line.startswith("downloading")]
        folders = [Path(line) for line in first if line.startswith("/")]
        assert len(folders) == 4, first
        count = len(asked)
        again = find_in_a_new_process(cache, address, *names)
        assert again == list(map(str, folders)) and len(asked) == count
    assert find_in_a_new_process(cache, "http://127.0.0.1:9", *names) == list(map(str, folders))
    for name, folder in zip(names, folders, strict=True):
        here, there = describe("x", repositories[name]), describe("x", folder)
        assert here.sha256 == there.sha256
        ids = [open_tokenizer(found).encode_ordinary("good <url>") for found in (here, there)]
        assert ids[0] == ids[1]
    assert "tokenizer.json" in {path.name for path in folders[1].iterdir()}


def test_what_lacks_in_a_repository_is_named_with_it(repositories, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    names = ["org/bin", "org/bins", "org/peft", "org/bare", "org/lost", "org/absent"]
    with hub_of(repositories) as (address, asked):
        lines = find_in_a_new_process(cache, address, *names)
    lines = [line for line in lines if not line.startswith("downloading")]
    said = [
        "org/bin has its weights in pytorch_model.bin; save them again",
        "org/bins has its weights in pytorch_model.bin.index.json; save them again",
        "org/peft is of the peft library",
        "org/bare/merges.txt is missing",
        "org/lost/model.safetensors is missing",
        "org/absent: ",
    ]
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert line.startswith(f"InputError {words}"), line
    assert not [
        p for how, p in asked if how == "GET" and ("peft" in p or "bare" in p) and WEIGHTS in p
    ]


def test_a_cache_of_the_four_files_alone_still_opens_without_a_network(repositories, tmp_path):
    """As earlier versions left it: what else there might be is then unknown."""
    cache = tmp_path / "cache"
    folder = cache / "models--org--whole" / "snapshots" / ("c" * 40)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(repositories["org/whole"] / name, folder)
    (cache / "models--org--whole" / "refs").mkdir()
    (cache / "models--org--whole" / "refs" / "main").write_text("c" * 40)
    assert find_in_a_new_process(cache, "http://127.0.0.1:9", "org/whole") == [str(folder)]


# ---- Heads and wrappers ----

HEADS = {
    "GPT2ForTokenClassification": "classifier.bias, the head of a GPT2ForTokenClassification",
    "GPT2DoubleHeadsModel": "multiple_choice_head.summary.bias, the head of a GPT2DoubleHeadsModel",
    "GPT2ForQuestionAnswering": "qa_outputs.bias, the head of a GPT2ForQuestionAnswering",
    "value head": "v_head.summary.bias, the head of a AutoModelForCausalLMWithValueHead of trl",
}


def other_head(folder: Path, kind: str) -> None:
    sizes = {"vocab_size": SMALL.vocab_size, "n_positions": 64, "n_embd": 24, "n_layer": 3}
    config = transformers.GPT2Config(**sizes, n_head=2, num_labels=2)
    own = kind.startswith("GPT2")
    model = getattr(transformers, kind if own else "GPT2LMHeadModel")(config)
    model.save_pretrained(folder)
    if not own:
        tensors = load_file(folder / WEIGHTS)
        head = {"v_head.summary.weight": torch.zeros(1, 24), "v_head.summary.bias": torch.zeros(1)}
        save_file(tensors | head, folder / WEIGHTS, {"format": "pt"})
    write_vocabulary(folder)


def refused_alike(folder: Path, run, texts) -> str:
    """Return the line with which predict and train.py refuse a folder, which is the same."""
    lines = set()
    for command in (("predict", folder, "good"), ("train", "--weights", folder, "--data", texts)):
        status, _, err = run(*command)
        assert status == 2 and err.count("\n") == 1
        lines.add(err)
    (line,) = lines
    return line


@pytest.mark.parametrize("kind, says", HEADS.items(), ids=HEADS)
def test_other_heads_are_refused_alike_and_the_advice_helps(kind, says, run, texts, tmp_path):
    folder = tmp_path / "it"
    folder.mkdir()
    other_head(folder, kind)
    line = refused_alike(folder, run, texts)
    assert says in line
    advice = line.split("in transformers: ")[1].strip().replace("FOLDER", "'better'")
    exec(advice, {"GPT2Model": transformers.GPT2Model})
    write_vocabulary(Path("better"))
    assert describe("x", Path("better"))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.transformer."])
def test_prefixes_of_wrappers_are_refused_alike_and_the_advice_helps(
    prefix, checkpoint, run, texts
):
    tensors = load_file(checkpoint / WEIGHTS)
    save_file({prefix + name: t for name, t in tensors.items()}, checkpoint / WEIGHTS)
    line = refused_alike(checkpoint, run, texts)
    of_wrapper = prefix.removesuffix("transformer.")
    assert f"has names with {of_wrapper!r}" in line
    import safetensors.torch

    code = line.split("or rename: ")[1].strip()
    renamed = eval(code, {"safetensors": safetensors, "file": checkpoint / WEIGHTS})
    save_file(renamed, checkpoint / WEIGHTS)
    assert describe("x", checkpoint)


def test_blocks_that_were_compiled_one_by_one_are_recognized(checkpoint):
    tensors = load_file(checkpoint / WEIGHTS)
    save_file(
        {n.replace("h.0.", "h.0._orig_mod."): t for n, t in tensors.items()}, checkpoint / WEIGHTS
    )
    assert "has names with '_orig_mod.'" in complaint(checkpoint)


@pytest.fixture
def classifier(checkpoint):
    """Give a folder with a score for two classes."""
    tensors = load_file(checkpoint / WEIGHTS)
    tensors |= {"score.weight": torch.randn(2, 24, generator=torch.Generator().manual_seed(0))}
    save_file(tensors, checkpoint / WEIGHTS)

    def change(**fields):
        config = json.loads((checkpoint / "config.json").read_text()) | fields
        (checkpoint / "config.json").write_text(json.dumps(config))
        return checkpoint

    return change


def test_whole_numbers_are_names_of_classes(classifier, run):
    folder = classifier(id2label={"0": 1, "1": 5})
    assert read_head(describe("x", folder)).labels == ("1", "5")
    status, out, err = run("predict", folder, "good")
    assert status == 0 and out.split("\t")[0] in ("1", "5"), err


@pytest.mark.parametrize("damage", ["labels", "nan", "length", "shape"])
def test_a_head_that_cannot_be_used_does_not_stop_a_run_that_needs_none(
    damage, classifier, run, texts
):
    folder = classifier(
        **{"labels": {"id2label": {"0": "only"}}, "length": {"minigpt": {"max_length": 9**9}}}.get(
            damage, {}
        )
    )
    tensors = load_file(folder / WEIGHTS)
    if damage == "nan":
        tensors["score.weight"][0, 0] = torch.nan
    if damage == "shape":
        tensors["score.weight"] = torch.zeros(2, 7)
    save_file(tensors, folder / WEIGHTS)
    status, _, err = run("predict", folder, "good")
    assert status == 2 and err.count("\n") == 1
    given = ("--weights", folder, "--data", texts, "--epochs", 1)
    status, out, err = run("train", *given, "--freeze-trunk")
    assert status == 0, err
    assert "its head cannot be used (" in out and "): a new one is put on" in out
    status, out, err = run("generate", "the", "--weights", folder, "--tokens", 2)
    assert status == 0, err


def test_predict_sends_nobody_to_train_in_vain(checkpoint, run, texts):
    """Neither where train.py would refuse the tokenizer."""
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert "do_lower_case is True" in refused_alike(checkpoint, run, texts)
    (checkpoint / "tokenizer_config.json").unlink()
    status, _, err = run("predict", checkpoint, "good")
    assert status == 2 and f"-m minigpt train --weights={checkpoint}" in err
    given = ("--weights", checkpoint, "--data", texts, "--epochs", 1, "--freeze-trunk")
    assert run("train", *given)[0] == 0


# ---- Tokenizers ----


def ids_of(folder, text: str) -> list[int]:
    return open_tokenizer(describe("x", folder)).encode_ordinary(text)


def test_the_end_of_text_is_found_among_added_tokens(checkpoint):
    before = ids_of(checkpoint, "the good <url>")
    vocab = json.loads((checkpoint / "vocab.json").read_text(encoding="utf-8"))
    end = vocab.pop(END_OF_TEXT)
    (checkpoint / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    with pytest.raises(InputError, match="not a GPT-2 vocabulary"):
        ids_of(checkpoint, "")
    (checkpoint / "added_tokens.json").write_text(json.dumps({END_OF_TEXT: end}))
    assert ids_of(checkpoint, "the good <url>") == before
    assert open_tokenizer(describe("x", checkpoint)).eot_token == end
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert theirs.eos_token_id == end and theirs("the good <url>").input_ids == before
    theirs.save_pretrained(checkpoint)
    assert ids_of(checkpoint, "the good <url>") == before  # now in a tokenizer.json


def test_special_tokens_may_come_first_in_the_vocabulary(checkpoint):
    """As the `tokenizers` library numbers those that it is given for training."""
    vocab = json.loads((checkpoint / "vocab.json").read_text(encoding="utf-8"))
    vocab.pop(END_OF_TEXT)
    vocab = {END_OF_TEXT: 0, "<pad>": 1} | {token: i + 2 for token, i in vocab.items()}
    (checkpoint / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    config = json.loads((checkpoint / "config.json").read_text()) | {"vocab_size": 269}
    (checkpoint / "config.json").write_text(json.dumps(config))
    tensors = load_file(checkpoint / WEIGHTS)
    tensors["wte.weight"] = torch.zeros(269, 24)
    save_file(tensors, checkpoint / WEIGHTS)
    theirs = transformers.AutoTokenizer.from_pretrained(checkpoint)
    for text in ("the good <pad>x", "bad"):
        assert ids_of(checkpoint, text) == theirs(text).input_ids


def test_an_added_token_needs_a_row_of_the_model(checkpoint):
    (checkpoint / "added_tokens.json").write_text(json.dumps({"<url>": SMALL.vocab_size}))
    with pytest.raises(InputError, match="has 269 tokens with '<url>', added, the model 268"):
        ids_of(checkpoint, "good")


def test_where_both_are_there_tokenizer_json_counts(checkpoint):
    transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(checkpoint)
    before = ids_of(checkpoint, "good")
    (checkpoint / "vocab.json").write_text("{}")
    assert ids_of(checkpoint, "good") == before


@pytest.mark.parametrize("pad", [None, "end", 5])
def test_predict_reads_where_transformers_reads(pad, classifier, tmp_path):
    """A tokenizer that ends texts; and the class for which that is padding, if it says so."""
    folder = classifier(pad_token_id=SMALL.vocab_size - 1 if pad == "end" else pad)
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_eos_token": True}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(folder).eval()
    from minigpt.runs import load_run

    opened, words = load_run(str(folder)), ["good", "the bad", "a tin of"]
    found = opened.part.logits_of(opened.tokenize(words)).softmax(1)
    for word, row in zip(words, found, strict=True):
        with torch.no_grad():
            expected = model(**theirs(word, return_tensors="pt")).logits.softmax(1)[0]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)


def test_train_asks_for_the_flag_where_the_tokenizer_ends_texts(checkpoint, run, texts):
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"add_eos_token": True}))
    given = ("--weights", checkpoint, "--data", texts, "--epochs", 1, "--freeze-trunk")
    status, _, err = run("train", *given)
    assert status == 2 and "vocab.json ends every text with <|endoftext|>; say --append-end" in err
    assert run("train", *given, "--append-end")[0] == 0


EXPORTED = [
    {"tokenizer_config.json": {"add_prefix_space": True, "pad_token": "[PAD]"}},
    {"added_tokens.json": {"<url>": SMALL.vocab_size, "@user": SMALL.vocab_size + 1}},
    {
        "tokenizer_config.json": {
            "add_bos_token": True,
            "split_special_tokens": True,
            "pad_token": "[PAD]",
        }
    },
]


@pytest.mark.parametrize("append", [[], ["--append-end"]], ids=["last", "end"])
@pytest.mark.parametrize("files", EXPORTED, ids=["space", "added", "before"])
def test_an_export_has_the_same_ids_in_transformers_and_here(files, append, run, texts, tmp_path):
    """<|endoftext|> in a text is plain text there, too, as all that is special."""
    from minigpt.weights import save_trunk

    folder = tmp_path / "it"
    save_trunk(random_trunk(vocab_size=SMALL.vocab_size + 2), folder)
    write_vocabulary(folder)
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields))
    given = ("--weights", folder, "--data", texts, "--epochs", 1, "--freeze-trunk", "--out", "r")
    status, _, err = run("train", *given, *append)
    assert status == 0, err
    assert run("export", "r", "--to", "exported")[0] == 0
    theirs, end = transformers.AutoTokenizer.from_pretrained("exported"), []
    if append:
        end = [theirs.eos_token_id]
    here, there = describe("x", folder), describe("x", Path("exported"))
    words = ["good", " the<url>x", "a@user [PAD]b", f"x{END_OF_TEXT}y", "<|pad|>"]
    for word in words:
        ids = open_tokenizer(here).encode_ordinary(word)
        assert ids == open_tokenizer(there).encode_ordinary(word)
        assert theirs(word).input_ids == ids + end
    assert run("predict", "exported", *words)[:2] == run("predict", "r", *words)[:2]
