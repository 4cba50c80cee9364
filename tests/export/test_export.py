"""What others open gives the logits that we give: transformers, its pipeline, the peft library."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import MERGES, files_of, random_trunk
from safetensors.torch import load_file, save_file

from minigpt.checkpoints import describe, read_vocabulary
from minigpt.runs import load_run
from minigpt.weights import save_trunk

transformers = pytest.importorskip("transformers")

WORDS = ["good", " bad the", "the tin is good, and so on and on", "héllo 😀", "bad", "in the end"]
FIT = ["--epochs", "2", "--lr", "0.01"]
WHOLE = [  # for transformers
    ["--freeze-trunk"],
    ["--freeze-trunk", "--append-end"],
    ["--train-last", "1"],
    ["--train-only", "bitfit"],
    ["--lora", "2", "--lora-on", "c_*", "--append-end"],
    ["--max-length", "9"],
]
PARTS = [  # for peft
    ["--lora", "2", "--lora-on", "c_attn,mlp.c_fc", "--in-last", "2", "--lora-alpha", "3"],
    ["--prompt", "3"],
    ["--prefix", "3"],
]


def ours(folder, words=WORDS) -> torch.Tensor:
    opened = load_run(str(folder))
    return opened.part.logits_of(opened.tokenize(words)).softmax(1)


@torch.no_grad()
def theirs(model, tokenizer, words, side="right", **more) -> torch.Tensor:
    """Return probabilities of a batch padded on one side, positions counted from each text's start:
    transformers' own default counts them from the padding's."""
    tokenizer.padding_side = side
    batch = tokenizer(words, return_tensors="pt", padding=True, truncation=True, **more)
    places = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return model.eval()(**batch, position_ids=places).logits.softmax(1)


@pytest.fixture
def trained(run, checkpoint, texts):
    """Train with flags, export the run; return the run's folder and the exported one."""

    def make(flags, *more):
        given = ("--weights", checkpoint, "--data", texts, "--out", "r", *FIT, *flags)
        status, _, err = run("train", *given)
        assert status == 0, err
        status, out, err = run("export", "r", "--to", "to/it", *more)
        assert status == 0, err
        return Path("r"), Path("to/it"), out

    return make


@pytest.mark.parametrize("flags", WHOLE, ids=" ".join)
def test_a_run_opens_in_transformers_with_the_same_answers(flags, trained, run):
    folder, exported, _ = trained(flags)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(exported)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer.pad_token_id == model.config.pad_token_id
    expected = ours(folder)
    for side in ("right", "left"):
        answers = theirs(model, tokenizer, WORDS, side)
        torch.testing.assert_close(answers, expected, rtol=0, atol=1e-4)

    labels = load_run(str(folder)).labels
    pipe = transformers.pipeline("text-classification", str(exported))
    for answer, row in zip(pipe(WORDS, truncation=True, batch_size=4), expected, strict=True):
        assert answer["label"] == labels[row.argmax()]
        assert abs(answer["score"] - row.max().item()) < 1e-4


@pytest.mark.parametrize("flags", WHOLE[1:3], ids=" ".join)
def test_predict_reads_an_exported_folder_as_the_run(flags, trained, run):
    folder, exported, _ = trained(flags)
    torch.testing.assert_close(ours(exported), ours(folder), rtol=0, atol=1e-6)
    status, out, err = run("predict", exported, *WORDS)
    assert (status, out) == run("predict", folder, *WORDS)[:2] and err == ""


@pytest.mark.parametrize("flags", PARTS, ids=" ".join)
def test_a_run_opens_in_the_peft_library_with_the_same_answers(flags, trained):
    """Text by text, since behind a prompt the library's model reads at the last place of a padded
    batch, padding or not; a batch of LoRA's is tried below."""
    peft = pytest.importorskip("peft")
    folder, exported, _ = trained(flags, "--as", "peft")
    opened = load_run(str(folder))
    base = transformers.GPT2ForSequenceClassification.from_pretrained(
        opened.checkpoint.folder, num_labels=2, pad_token_id=opened.tokenizer.eot_token
    )
    model = peft.PeftModel.from_pretrained(base, exported).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    for word, expected in zip(WORDS, ours(folder), strict=True):
        with torch.no_grad():
            answers = model(**tokenizer(word, return_tensors="pt")).logits.softmax(1)
        torch.testing.assert_close(answers[0], expected, rtol=0, atol=1e-4)
    if "--lora" in flags:
        answers = theirs(model, tokenizer, WORDS)
        torch.testing.assert_close(answers, ours(folder), rtol=0, atol=1e-4)
    size = sum(file.stat().st_size for file in exported.glob("adapter*"))
    assert size < 30_000  # what was trained, and nothing of the base


@pytest.mark.parametrize("flags", PARTS, ids=" ".join)
def test_the_lines_that_export_prints_open_what_it_wrote(flags, trained):
    """Also those for transformers; and where padding is allowed, a padded batch is right."""
    pytest.importorskip("peft")
    folder, _, out = trained(flags, "--as", "peft")
    made = {}
    exec(out.split("\n\n")[1], made)
    assert [*made["base"].config.id2label.values()] == [*load_run(str(folder)).labels]
    words = WORDS[:1] if "--prompt" in flags else WORDS
    batch = made["tokenizer"](words, return_tensors="pt", padding=True)
    with torch.no_grad():
        answers = made["model"](**batch).logits.softmax(1)
    torch.testing.assert_close(answers, ours(folder, words), rtol=0, atol=1e-4)


def test_the_lines_for_transformers_open_what_it_wrote(trained):
    folder, _, out = trained(["--freeze-trunk"])
    made = {}
    exec(out.split("\n\n")[1], made)
    assert made["pipe"]("good")[0]["label"] in load_run(str(folder)).labels


def test_a_base_is_named_so_that_others_find_it(checkpoint):
    """On the Hub where it is from there: a folder of this machine opens on no other."""
    here = describe(str(checkpoint), checkpoint)
    assert here.repository is None
    for name, repository in (("gpt2", "openai-community/gpt2"), ("some/one", "some/one")):
        assert dataclasses.replace(here, name=name).repository == repository


@pytest.fixture
def foreign(tmp_path, checkpoint):
    """Give a folder as transformers writes it: tokenizer.json and no vocab.json, own labels."""
    folder = tmp_path / "foreign"
    config = transformers.GPT2Config(
        **random_trunk().config.to_json(),
        id2label={0: "yes", 1: "no"},  # not in the order of the data's
        label2id={"yes": 0, "no": 1},
        pad_token_id=0,
    )
    torch.manual_seed(3)
    model = transformers.GPT2ForSequenceClassification(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    assert "vocab.json" not in files_of(folder)
    return folder, model


def test_a_folder_of_transformers_predicts_directly(foreign):
    folder, model = foreign
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for word, answer in zip(WORDS, ours(folder), strict=True):
        with torch.no_grad():
            expected = model.eval()(**tokenizer(word, return_tensors="pt")).logits.softmax(1)[0]
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-4)
    assert load_run(str(folder)).labels == ("yes", "no")


def test_training_goes_on_from_the_head_of_such_a_folder(foreign, run, texts, tmp_path):
    """Its rows in the order of the labels of the data; and not if the labels are others."""
    folder, model = foreign
    given = ("--weights", folder, "--data", texts, "--epochs", "1", "--lr", "1e-30")
    status, out, err = run("train", *given, "--out", "r", "--train-last", "1")
    assert status == 0, err
    opened, expected = load_run("r"), dict(zip(("yes", "no"), model.score.weight, strict=True))
    for label, row in zip(opened.labels, opened.model.score.weight, strict=True):
        torch.testing.assert_close(row, expected[label], rtol=0, atol=1e-6)
    assert "its head is trained further" in out
    for flags in (["--pool", "mean"], ["--append-end"]):
        status, out, err = run("train", *given, "--train-last", "1", *flags)
        assert status == 0 and "its head reads at the last token: a new one is put on" in out
    status, out, err = run("train", *given, "--freeze-trunk")
    assert status == 0 and "fitted anew" in out

    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "dog", "1": "cat"}
    (folder / "config.json").write_text(json.dumps(config))
    status, out, err = run("train", *given, "--out", "r2", "--train-last", "1")
    assert status == 0 and "its head is for dog, cat: a new one is put on" in out


@pytest.mark.parametrize(
    "flags, more, said",
    [
        (["--freeze-trunk", "--pool", "mean"], [], "pools 'mean'"),
        (["--adapter", "2"], ["--as", "peft"], "has adapters"),
        (["--prompt", "2"], [], "say --as peft"),
        (["--freeze-trunk"], ["--as", "peft"], "no LoRA, prompt or prefix for peft"),
        (["--lora", "2", "--append-end"], ["--as", "peft"], "take for padding"),
    ],
    ids=str,
)
def test_what_has_no_counterpart_is_refused(flags, more, said, run, checkpoint, texts):
    given = ("--weights", checkpoint, "--data", texts, "--out", "r", "--epochs", "1")
    assert run("train", *given, *flags)[0] == 0
    status, out, err = run("export", "r", "--to", "to", *more)
    assert (status, out) == (2, "") and said in err and err.count("\n") == 1
    assert not Path("to").exists()


def test_a_folder_that_is_not_empty_is_left_alone(run, checkpoint, texts):
    given = ("--weights", checkpoint, "--data", texts, "--out", "r", "--freeze-trunk")
    assert run("train", *given)[0] == 0
    before = {name: Path("r", name).read_bytes() for name in files_of(Path("r"))}
    status, _, err = run("export", "r", "--to", "r")
    assert status == 2 and "--to r exists and is not empty" in err
    assert {name: Path("r", name).read_bytes() for name in files_of(Path("r"))} == before


def test_a_folder_of_peft_is_not_taken_for_a_run(trained, run):
    _, exported, _ = trained(PARTS[0], "--as", "peft")
    for command in (("predict", exported, "good"), ("train", "--weights", exported)):
        status, _, err = run(*command)
        assert status == 2 and "peft library" in err and err.count("\n") == 1


def changed(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"problem_type": "regression"}, "does not choose among classes: regression"),
        ({"problem_type": "multi_label_classification"}, "does not choose among classes: multi"),
    ],
    ids=str,
)
def test_a_head_that_does_not_choose_among_classes_is_refused(change, said, foreign, run):
    changed(foreign[0] / "config.json", **change)
    status, _, err = run("predict", foreign[0], "good")
    assert status == 2 and said in err and err.count("\n") == 1


def test_a_model_with_one_output_still_lends_its_trunk(foreign, run, texts):
    folder, model = foreign
    model.score = torch.nn.Linear(24, 1, bias=False)
    model.config.num_labels = 1
    model.save_pretrained(folder)
    status, _, err = run("predict", folder, "good")
    assert status == 2 and "does not choose among classes: one score" in err
    status, out, err = run("train", "--weights", folder, "--data", texts, "--freeze-trunk")
    assert status == 0 and "its head is for LABEL_0: a new one" in out, err


def test_a_tokenizer_that_is_not_gpt2s_is_refused(foreign, run):
    words = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}
    changed(foreign[0] / "tokenizer.json", pre_tokenizer=words)
    status, _, err = run("predict", foreign[0], "good")
    assert status == 2 and "pre_tokenizer.add_prefix_space is True, not False" in err
    model = {"vocab": {"a": 0}, "merges": [[1, 2]]}
    changed(foreign[0] / "tokenizer.json", pre_tokenizer=words | {"add_prefix_space": False})
    changed(foreign[0] / "tokenizer.json", model=model)
    status, _, err = run("predict", foreign[0], "good")
    assert status == 2 and "merges that are not pairs of tokens" in err


def test_texts_are_cut_where_the_tokenizer_says(foreign):
    changed(foreign[0] / "tokenizer_config.json", model_max_length=8)
    assert load_run(str(foreign[0])).max_length == 8


def test_a_folder_named_like_an_official_size_is_that_folder(foreign, run):
    foreign[0].rename("tiny")
    status, out, err = run("predict", "tiny", "good")
    assert status == 0 and out, err


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_weights_in_other_files_get_advice(file, foreign, run):
    (foreign[0] / "model.safetensors").rename(foreign[0] / file)
    status, _, err = run("train", "--weights", foreign[0])
    assert status == 2 and "save_pretrained" in err and err.count("\n") == 1


@pytest.mark.parametrize("spare", [0, 1, 5])
def test_the_pad_token_is_the_tokenizers_also_where_rows_are_to_spare(
    spare, run, checkpoint, texts, tmp_path
):
    """A model may have more rows than tokens: also one that was exported before."""
    if spare:
        save_trunk(random_trunk(vocab_size=268 + spare), checkpoint)
    given = ("--weights", checkpoint, "--data", texts, "--out", "r", "--append-end", *FIT)
    assert run("train", *given, "--train-last", "1")[0] == 0
    assert run("export", "r", "--to", "once")[0] == 0
    assert run("export", "once", "--to", "twice")[0] == 0
    for exported in ("once", "twice"):
        model = transformers.GPT2ForSequenceClassification.from_pretrained(exported)
        tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
        assert tokenizer.pad_token_id == model.config.pad_token_id == 268
        assert model.config.vocab_size == 268 + max(spare, 1)
        answers = theirs(model, tokenizer, WORDS)
        torch.testing.assert_close(answers, ours("r"), rtol=0, atol=1e-4)


BAD_HEADS = {
    "shape": "score.weight has shape [2, 7], not (classes, 24)",
    "labels": "id2label does not name 2 different classes",
    "nan": "score.weight has values that are not finite (NaN or inf)",
    "minigpt": "max_length is 1000000000, not from 1 to 64 tokens",
    "none": "score.weight has shape []",
}


@pytest.mark.parametrize("damage", BAD_HEADS)
def test_a_head_that_does_not_fit_is_refused(damage, foreign, run):
    folder, _ = foreign
    tensors, config = (
        load_file(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text()),
    )
    if damage == "shape":
        tensors["score.weight"] = torch.zeros(2, 7)
    elif damage == "labels":
        config["id2label"] = {"0": "only one"}
    elif damage == "none":
        del config["id2label"]
        tensors["score.weight"] = torch.tensor(1.0)
    elif damage == "nan":
        tensors["score.weight"][0, 0] = torch.nan
    else:
        config["minigpt"] = {"max_length": 10**9}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    status, _, err = run("predict", folder, "good")
    assert status == 2 and BAD_HEADS[damage] in err and err.count("\n") == 1


def test_the_vocabulary_of_tokenizer_json_is_that_of_the_two_files(foreign, checkpoint):
    theirs, ours = read_vocabulary(foreign[0]), read_vocabulary(checkpoint)
    assert (theirs.vocab, theirs.merges) == (ours.vocab, ours.merges)
    assert len(theirs.merges) == len(MERGES)
