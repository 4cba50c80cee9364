"""`import minigpt`: the examples in its docstrings run, and it does what the commands do."""

import doctest
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

import minigpt
from minigpt.classifier import POOLINGS
from minigpt.cli import flag_types
from minigpt.python import classifier, training, trunk

TEXTS = [f"{word} number {i}" for i in range(20) for word in ("the good tin", "a bad tin")]
LABELS = ["yes", "no"] * 20
FLAGS = {"freeze_trunk": True, "epochs": 3}


class Frame:
    """What a data frame has in common with others: columns, by their names."""

    def __init__(self, **columns):
        self.data, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return np.array(self.data[name], dtype=object)


def test_the_examples_in_docstrings_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finder, run = doctest.DocTestFinder(exclude_empty=False), {}
    examples = [test for module in (classifier, training, trunk) for test in finder.find(module)]
    examples.sort(key=lambda test: not test.name.endswith(".TextClassifier"))
    for test in examples:
        test.globs |= run
        results = doctest.DocTestRunner().run(test, clear_globs=False)
        assert results.failed == 0, test.name
        run = run or {"run": test.globs["run"]}  # the first makes it, the others use it
    public = (minigpt.load, minigpt.train, minigpt.trunk, *vars(classifier.TextClassifier).values())
    for name in public:
        if getattr(name, "__doc__", None) and not getattr(name, "__name__", "_").startswith("_"):
            assert ">>> " in name.__doc__, name


def test_the_python_of_the_page_has_the_answers_that_stand_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = str(ROOT / "docs" / "python.md")
    assert doctest.testfile(page, module_relative=False).failed == 0


def test_training_from_python_is_training_from_the_command_line(run, checkpoint, texts, capsys):
    status, out, err = run(
        *("train", "--freeze-trunk", "--epochs", 3, "--weights", checkpoint, "--data", texts)
    )
    assert status == 0, err
    state = torch.random.get_rng_state()
    made = minigpt.train(texts, weights=checkpoint, **FLAGS)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert capsys.readouterr() == ("", "")
    (folder,) = (path for path in Path("runs").iterdir() if path != made.folder)
    one, two = (load_file(path / "learned.safetensors") for path in (folder, made.folder))
    assert torch.equal(one["score.weight"], two["score.weight"])
    assert made.metrics["test"] == json.loads((folder / "metrics.json").read_text())["test"]

    words = ["good", "a bad tin", ""]
    status, out, err = run("predict", folder, "--json", *words)
    assert status == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    assert made.predict(words) == [answer["label"] for answer in answers]
    expected = [[answer["probabilities"][label] for label in made.labels] for answer in answers]
    np.testing.assert_allclose(made.probabilities(words), expected, atol=1e-6)
    logits = made.vectors(words) @ one["score.weight"].numpy().T
    exponential = np.exp(logits - logits.max(1, keepdims=True))
    softmax = exponential / exponential.sum(1, keepdims=True)
    np.testing.assert_allclose(made.probabilities(words), softmax, atol=1e-5)


def test_the_table_is_printed_if_it_is_asked_for(run, checkpoint, texts, capsys):
    minigpt.train(texts, weights=checkpoint, quiet=False, **FLAGS)
    assert "\ntest accuracy " in capsys.readouterr().out


@pytest.mark.parametrize("dtype, flags", [("float32", {"lora": 2}), ("bfloat16", {"lora": 2})])
def test_vectors_are_those_that_the_head_is_given(run, checkpoint, texts, dtype, flags):
    made = minigpt.train(texts, weights=checkpoint, epochs=1, dtype=dtype, **flags)
    score = load_file(made.folder / "learned.safetensors")["score.weight"]
    logits = torch.from_numpy(made.vectors(TEXTS)) @ score.T
    atol = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(made.probabilities(TEXTS), logits.softmax(1), atol=atol)


def test_data_in_memory_is_data_in_a_file(run, checkpoint):
    """(texts, labels) and a frame give the run that a file of the same gives."""
    lines = "\n".join(f"{text}\t{label}" for text, label in zip(TEXTS, LABELS, strict=True))
    Path("data.tsv").write_text(f"text\tlabel\n{lines}\n")
    given = [
        "data.tsv",
        Path("data.tsv"),
        (TEXTS, LABELS),
        (np.array(TEXTS), np.array(LABELS)),
        Frame(text=TEXTS, label=LABELS, note=[None] * 40),
        Frame(review=TEXTS, sentiment=LABELS),  # a guess, as in a file
    ]
    made = [minigpt.train(data, weights=checkpoint, **FLAGS) for data in given]
    learned = {(run.folder / "learned.safetensors").read_bytes() for run in made}
    assert len(learned) == 1
    assert made[2].metrics["data"]["name"] == "in memory"


def test_a_frame_of_pandas_with_splits_and_whole_numbers(run, checkpoint):
    pandas = pytest.importorskip("pandas")
    splits = ["train"] * 24 + ["dev"] * 8 + ["test"] * 8
    frame = pandas.DataFrame({"text": TEXTS, "label": [1, 0] * 20, "split": splits})
    made = minigpt.train(frame, weights=checkpoint, **FLAGS)
    data = made.metrics["data"]
    assert (data["train"], data["dev"], data["test"]) == (24, 8, 8) and made.labels == ["0", "1"]


def test_columns_of_a_frame_are_understood(run, checkpoint):
    splits = ["train"] * 24 + ["dev"] * 8 + ["test"] * 8
    columns = {"said": TEXTS, "class": np.array([1, 0] * 20), "split": splits}
    made = minigpt.train(Frame(**columns), weights=checkpoint, text_column="said", **FLAGS)
    data = made.metrics["data"]
    assert (data["train"], data["dev"], data["test"]) == (24, 8, 8) and made.labels == ["0", "1"]


@pytest.mark.parametrize(
    "data, flags, message",
    [
        ((TEXTS, LABELS[1:]), {}, "data has 40 texts and 39 labels"),
        ((TEXTS, [*LABELS[1:], float("nan")]), {}, "data, text 39: the label is None"),
        (([None, *TEXTS[1:]], LABELS), {}, "data, text 0: no text"),
        ((TEXTS, ["yes"] * 40), {}, "all of train has the label yes"),
        ((TEXTS, [0.5, 1.0] * 20), {}, "the label is 0.5, a fraction"),
        (([], []), {}, "data holds no examples"),
        ((TEXTS, LABELS), {"text_column": "said"}, "it has no column 'said'"),
        ((TEXTS, None), {}, "texts and labels are lists"),
        ({"text": TEXTS}, {}, "data is a dict, not a name that --data takes, (texts, labels)"),
        (Frame(a=TEXTS, b=LABELS), {}, "say --text-column NAME"),
        ("nowhere.tsv", {}, "no such file"),
        ((TEXTS, LABELS), {"frezze_trunk": True}, "did you mean --freeze-trunk?"),
        ((TEXTS, LABELS), {"help": True}, "unrecognized arguments: --help"),
        ((TEXTS, LABELS), {"lr": -1}, "-1 is not above 0"),
        ((TEXTS, LABELS), {"lora": 2, "freeze_trunk": True}, "not allowed with"),
    ],
)
def test_what_a_user_can_mend_is_an_input_error(data, flags, message, run, checkpoint):
    with pytest.raises(minigpt.InputError) as error:
        minigpt.train(data, weights=checkpoint, **flags)
    assert message in str(error.value)


def test_bad_texts_and_names_are_input_errors(run, checkpoint, texts):
    made = minigpt.train(texts, weights=checkpoint, **FLAGS)
    for given, message in (("good", "say [text]"), (["good", None], "text 1 is None")):
        for answer in (made.predict, made.probabilities, made.vectors):
            with pytest.raises(minigpt.InputError, match=message.replace("[", r"\[")):
                answer(given)
    assert made.predict([]) == []
    assert (made.probabilities([]).shape, made.vectors([]).shape) == ((0, 2), (0, 24))
    with pytest.raises(minigpt.InputError, match="cuda:0: it can be auto, cpu"):
        minigpt.load(made.folder, device="cuda:0")
    for call in (minigpt.load, minigpt.trunk):
        with pytest.raises(minigpt.InputError):
            call("nowhere")
    with pytest.raises(minigpt.InputError, match=r"minigpt\.load"):
        minigpt.trunk(str(made.folder))


def test_a_run_on_data_in_memory_is_resumed_with_the_same_data(run, checkpoint, monkeypatch):
    """Stopped before its last files, and then by train.py, which cannot have the texts."""
    real = minigpt.python.training.runs.save_run
    monkeypatch.setattr("minigpt.runs.save_run", lambda *_: 1 / 0)
    flags = {"weights": checkpoint, "out": "r", **FLAGS}
    with pytest.raises(ZeroDivisionError):
        minigpt.train((TEXTS, LABELS), **flags)
    monkeypatch.setattr("minigpt.runs.save_run", real)
    status, _, err = run("train", "--resume", "r")
    assert status == 2 and "minigpt.train(data, resume=" in err
    with pytest.raises(minigpt.InputError, match="other texts"):
        minigpt.train((TEXTS[::-1], LABELS), resume="r")
    made = minigpt.train((TEXTS, LABELS), resume="r")
    assert made.folder.name == "r" and made.predict(["good"])[0] in LABELS


def test_import_loads_nothing_slow():
    code = (
        "import sys, minigpt; assert not {'torch', 'numpy'} & {*sys.modules}; "
        "assert {'load', 'train', 'trunk', 'InputError'} <= {*dir(minigpt)}; "
        "import minigpt.cli.train_flags as f; f.parse('', ['--lora=3']); "
        "assert not {'torch', 'numpy'} & {*sys.modules}; minigpt.nothing"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.endswith("AttributeError: module 'minigpt' has no attribute 'nothing'\n")


def test_what_the_flags_repeat_in_order_not_to_load_torch_is_right():
    assert flag_types.POOLINGS == POOLINGS


def test_it_trains_in_another_thread_and_where_no_gradients_are_wanted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, how = (["A joy.", "A bore."] * 20, ["good", "bad"] * 20), {"freeze_trunk": True}
    with ThreadPoolExecutor(1) as pool:  # a web server's, say: no other thread has signals
        run = pool.submit(lambda: minigpt.train(data, weights="tiny", epochs=2, **how)).result()
    with torch.inference_mode():
        same = minigpt.train(data, weights="tiny", epochs=2, **how)
    assert np.array_equal(run.probabilities(["A joy."]), same.probabilities(["A joy."]))
