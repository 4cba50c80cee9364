"""A trained run on other files: `evaluate` measures as training does, `predict` reads by column."""

import csv
import json
import tracemalloc
from pathlib import Path

import pytest

from minigpt.cli.predict import Skipped, chunks_of
from minigpt.datasets import load_dataset


@pytest.fixture
def trained(run, checkpoint, texts) -> str:
    how = ["--freeze-trunk", "--epochs", 2, "--weights", checkpoint, "--data", texts]
    assert run("train", *how, "--out", "trained", "--max-length", 6, "--keep", "end")[0] == 0
    return "trained"


def write_test(texts) -> None:
    """Write the texts that training tested on, as a file of its own."""
    with open("test.csv", "w", newline="", encoding="utf-8") as file:
        rows = [(e.label, e.text) for e in load_dataset(str(texts), seed=0).test]
        csv.writer(file).writerows([("sentiment", "review"), *rows])


def test_on_the_test_texts_it_prints_and_writes_what_training_did(run, trained, texts):
    write_test(texts)
    before = Path("trained/metrics.json").read_bytes()
    status, out, err = run("evaluate", trained, "--data", "test.csv", "--json")
    assert status == 0, err
    there, now = json.loads(before), json.loads(out)
    assert now["test"].pop("loss") == pytest.approx(there["test"].pop("loss"), abs=1e-5)
    assert now["test"] == there["test"]
    assert now["data"]["truncated"] == there["data"]["truncated_by_split"]["test"] > 0
    assert Path("trained/metrics.json").read_bytes() == before

    status, out, err = run("evaluate", trained, "--data", "test.csv")
    assert status == 0 and "text is the column review, label is the column sentiment" in err
    low, high = there["test"]["interval"]
    accuracy = f"{there['test']['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%})"
    assert out.startswith(f"test accuracy   {accuracy}\nbaseline        50.0% by always answering")
    assert "20 of test.csv" in out and "longer than 6 tokens: their end was read" in out


def test_of_the_file_it_was_trained_on_it_says_so(run, checkpoint):
    Path("own.csv").write_text("".join(f"{w} {i},{w}\n" for i in range(20) for w in ("yes", "no")))
    how = ["--freeze-trunk", "--epochs", 1, "--weights", checkpoint, "--data", "own.csv"]
    assert run("train", *how, "--out", "r")[0] == 0
    status, _, err = run("evaluate", "r", "--data", "own.csv")
    assert status == 0 and "own.csv: r was trained on most of these texts" in err


def test_of_the_folder_it_was_trained_on_only_the_texts_for_testing_are_read(run, checkpoint):
    Path("own").mkdir()
    for split in ("train", "test"):
        rows = [f"{word} {split} {i}\t{word}\n" for i in range(20) for word in ("yes", "no")]
        Path("own", f"{split}.tsv").write_text("text\tlabel\n" + "".join(rows))
    how = ["--freeze-trunk", "--epochs", 1, "--weights", checkpoint, "--data", "own"]
    assert run("train", *how, "--out", "r")[0] == 0
    assert run("evaluate", "r", "--data", "own")[::2] == (0, "")


def test_of_a_file_with_splits_and_of_a_folder_the_texts_for_testing_are_measured(run, trained):
    rows = [f"good {i}\tyes\t{['train', 'test'][i % 2]}" for i in range(10)]
    Path("data.tsv").write_text("\n".join(["text\tlabel\tsplit", *rows]))
    status, out, err = run("evaluate", trained, "--data", "data.tsv", "--json")
    assert status == 0 and json.loads(out)["test"]["n"] == 5 and "for testing" in err
    Path("folder").mkdir()
    for split, n in (("train", 4), ("test", 3)):
        lines = [f"good {i}\t{['yes', 'no'][i % 2]}\n" for i in range(n)]
        Path("folder", f"{split}.tsv").write_text("text\tlabel\n" + "".join(lines))
    status, out, err = run("evaluate", trained, "--data", "folder", "--json")
    assert status == 0 and json.loads(out)["test"]["n"] == 3 and err == ""


@pytest.mark.parametrize(
    "content, says",
    [
        (
            "text\tlabel\na\tyes\nb\tmaybe\n",
            "has the label maybe, which trained does not know (its",
        ),
        ("text\tlabel\n", "holds no examples"),
        ("text\tlabel\tsplit\na\tyes\ttrain\n", "no texts for testing"),
    ],
)
def test_what_cannot_be_measured_gets_one_line(content, says, run, trained):
    Path("data.tsv").write_text(content)
    status, out, err = run("evaluate", trained, "--data", "data.tsv")
    assert (status, out) == (2, "") and says in err.splitlines()[-1]


def test_most_texts_of_one_class_bring_macro_f1_and_recall_of_each(run, checkpoint):
    rows = [f"the {['good', 'bad'][i % 11 == 0]} film {i},{['good', 'bad'][i % 11 == 0]}"
            for i in range(330)]  # fmt: skip
    Path("data.csv").write_text("\n".join(["text,label", *rows]))
    how = ["--weights", checkpoint, "--data", "data.csv", "--freeze-trunk", "--epochs", 1]
    tables = {}
    for weights in ([], ["--class-weights", "balanced"]):
        status, out, err = run("train", *how, *weights, "--quiet", "--out", f"run{len(weights)}")
        assert (status, err) == (0, "")
        lines = [line for line in out.splitlines() if line[0] != " "]
        tables[len(weights)] = {line[:16].strip(): line[16:] for line in lines}
        test = json.loads(Path(f"run{len(weights)}/metrics.json").read_text())["test"]
        (bad, _), (_, good) = test["confusion"]
        assert (
            test["recall"] == pytest.approx([bad / 3, good / 30]) and test["commonest"] == 30 / 33
        )
        assert f"recall          {bad / 3:.1%} of 3: bad\n" in out
        assert f"                {good / 30:.1%} of 30: good\n" in out
    assert tables[0]["baseline"] == "90.9% by always answering 'good'"
    assert {"macro-F1", "recall"} <= tables[0].keys()
    recalls = [
        json.loads(Path(f"run{n}/metrics.json").read_text())["test"]["recall"] for n in (0, 2)
    ]
    assert recalls[1][0] >= recalls[0][0]  # the rare class is found more often


# --- predict --file


OBJECTS = [{"id": i, "text": f"the good {i}", "label": "gold", "stars": 5} for i in range(70)]


def answers(run, *flags) -> list[dict]:
    status, out, err = run("predict", "trained", "--json", *flags)
    assert status == 0, err
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def plain(run, trained) -> list[dict]:
    """Give the answers to the same texts, as plain lines."""
    Path("lines.txt").write_text("".join(f"{o['text']}\n" for o in OBJECTS))
    return answers(run, "--file", "lines.txt")


def test_each_form_is_answered_by_its_text_column_and_gives_the_object_back(run, plain):
    Path("d.jsonl").write_text("\n".join(map(json.dumps, OBJECTS)))
    Path("d.json").write_text(json.dumps(OBJECTS))
    columns = ("id", "text", "label", "stars")
    for name, delimiter in (("d.csv", ","), ("e.csv", ";"), ("d.TSV", "\t")):
        with open(name, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(OBJECTS)
    for name in ("d.jsonl", "d.json", "d.csv", "e.csv", "d.TSV"):
        text = name not in ("d.jsonl", "d.json")
        for answer, given, same in zip(answers(run, "--file", name), OBJECTS, plain, strict=True):
            given = {k: str(v) if text else v for k, v in given.items()}
            given["given_label"] = given.pop("label")
            answered = {k: answer[k] for k in ("label", "probability", "probabilities")}
            assert {k: v for k, v in answer.items() if k not in answered} == given
            assert answered["label"] == same["label"]
            assert answered["probability"] == pytest.approx(same["probability"], abs=1e-5)


def test_an_answer_to_an_answer_keeps_the_label_that_was_given(run, trained):
    Path("d.jsonl").write_text(json.dumps(OBJECTS[0]))
    first = answers(run, "--file", "d.jsonl")
    Path("answered.jsonl").write_text(json.dumps(first[0]))
    (second,) = answers(run, "--file", "answered.jsonl")
    assert second["given_label"] == "gold" and second["given_given_label"] == first[0]["label"]
    assert second["given_probability"] == first[0]["probability"]


def test_without_json_the_lines_are_those_of_plain_texts(run, trained):
    Path("d.jsonl").write_text('{"review": "the good\\n1"}\n')
    Path("d.csv").write_text("essay,n\nthe good 1,2\n")
    for flags in (["d.jsonl"], ["d.csv", "--text-column", "essay"]):
        status, out, _ = run("predict", trained, "--file", *flags)
        assert status == 0 and out.split("\t")[2] == "the good 1\n"


def test_other_encodings_are_read_by_flag_and_mark(run, trained):
    Path("latin.txt").write_bytes("süß\n".encode("latin-1"))
    Path("wide.txt").write_bytes("süß\ngood\n".encode("utf-16"))
    Path("wide.csv").write_bytes("text\nsüß\ngood\n".encode("utf-16"))
    latin = answers(run, "--file", "latin.txt", "--encoding", "latin-1")
    assert [a["text"] for a in latin] == ["süß"]
    for name in ("wide.txt", "wide.csv"):
        assert [a["text"] for a in answers(run, "--file", name)] == ["süß", "good"]


REFUSED = {
    "raw.txt": ('{"text": "the good"}\n', "a JSON object, not a text"),
    "d.csv": ("essay,grade\na,1\nb,2\nc,3\n", "say --text-column"),
    "e.csv": ("a,1\nb,2\n", "say --text-column"),
    "d.jsonl": ('{"essay": "a"}\n', "say --text-column"),
    "e.jsonl": ('"a text"\n', "not an object"),
    "f.jsonl": ('{"text": "a", "text": "b"}\n', "the key 'text' is there twice"),
    "d.xlsx": ("PK\3\4", "pandas.read_excel"),
    "d.tsv": ("", None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_never_is_anything_but_a_text_taken_for_one(name, run, trained):
    content, says = REFUSED[name]
    Path(name).write_text(content)
    status, out, err = run("predict", trained, "--file", name)
    assert out == "" and status == (2 if says else 0) and (says or "") in err


def test_bad_rows_are_named_or_passed_over(run, trained):
    rows = ['{"text": "one"}', "{", '{"text": 2}', '{"text": "three"}']
    Path("d.jsonl").write_text("\n".join(rows))
    Path("d.csv").write_text("text,n\none,1\ntwo\nx,y,z\nthree,3\n")
    for name, says in (("d.jsonl", "not JSON"), ("d.csv", "1 columns instead of 2")):
        status, out, err = run("predict", trained, "--file", name)
        line = 2 if name == "d.jsonl" else 3
        assert status == 2 and f"{name}, line {line}: {says}" in err and "--skip-bad" in err
        assert out.count("\n") == 1
        status, out, err = run("predict", trained, "--file", name, "--skip-bad")
        assert status == 0 and out.count("\n") == 2 and err.startswith("skipped 2 bad lines")


def test_cut_texts_are_counted_on_stderr(run, trained):
    status, _, err = run("predict", trained, "the good", "the " * 20, "the bad " * 9)
    assert status == 0 and err == "2 of 3 texts are longer than 6 tokens: their end was read\n"


def test_an_exported_run_keeps_the_same_end(run, trained):
    assert run("export", trained, "--to", "exported")[0] == 0
    about = json.loads(Path("exported/tokenizer_config.json").read_text())
    assert about["truncation_side"] == "left"
    long = "the bad tin " * 9 + "the good"
    theirs, ours = (run("predict", name, "--json", long) for name in ("exported", trained))
    assert theirs[0] == ours[0] == 0 and "their end was read" in theirs[2] == ours[2]
    theirs, ours = (json.loads(out)["probabilities"] for _, out, _ in (theirs, ours))
    assert theirs == pytest.approx(ours, abs=1e-5)


def test_a_large_file_is_not_held_in_memory():
    """Lines, objects and rows: what is in memory does not grow with the file."""
    import argparse

    row = "the good and the bad " * 50
    Path("d.jsonl").write_text(
        "".join(json.dumps({"text": f"{row}{i}"}) + "\n" for i in range(9000))
    )
    for name, header in (("d.txt", ""), ("d.csv", "text\n"), ("d.tsv", "text\tn\n")):
        end = "\t1\n" if name == "d.tsv" else "\n"
        Path(name).write_text(header + "".join(f"{row}{i}{end}" for i in range(9000)))
    for name in ("d.txt", "d.jsonl", "d.csv", "d.tsv"):
        how = {"skip_bad": False, "encoding": None, "text_column": None, "texts": []}
        tracemalloc.start()
        texts = sum(map(len, chunks_of(argparse.Namespace(file=name, **how), Skipped())))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert texts == 9000 and peak < 2e6 < Path(name).stat().st_size / 4, name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_tokenizer_that_begins_each_text_with_a_token_cannot_keep_the_end(run, checkpoint, texts):
    (checkpoint / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    how = ["--weights", checkpoint, "--data", texts, "--freeze-trunk", "--epochs", 1]
    status, out, err = run("train", *how, "--keep", "end")
    assert (status, out) == (2, "") and err.count("\n") == 1 and "leave out --keep end" in err
    assert run("train", *how)[0] == 0
