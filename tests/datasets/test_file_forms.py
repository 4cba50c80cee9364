"""Files as people have them: every row of the tables in docs/data.md, on a file made for it."""

import csv
import gzip
import io
import json
import re

import pytest
from conftest import ROOT

from minigpt.data import Example
from minigpt.datasets import Reading, load_dataset, read_examples, records
from minigpt.datasets.formats import ENDINGS
from minigpt.edge.errors import InputError, one_line

GOODS = [("A warm, witty film", "pos"), ("Dull; do not go", "neg")]
MANY = [(f"The {['warm', 'dull'][i % 2]} film, no. {i}", ["pos", "neg"][i % 2]) for i in range(12)]


def table(rows, header=(), **how) -> str:
    """Return rows as Python's csv module writes them."""
    file = io.StringIO()
    csv.writer(file, **how).writerows([header, *rows] if header else rows)
    return file.getvalue()


def other(*header, order=slice(None), name="data.csv"):
    """Return the form of a file with such a header: text, then label, or the other way round."""
    rows = [row[order] for row in GOODS]
    return name, table(rows, header), {}, GOODS, "text is the column"


BACKWARDS = slice(None, None, -1)
# The first cell of the row in docs/data.md: [(name of the file, content, how it is read, the
# (text, label) of each example, what is said)]
FORMS = {
    "columns `text` and `label`": [
        ("data.csv", table(GOODS, ("text", "label")), {}, GOODS, ""),
        ("data.csv", table(GOODS, ("content", "Label ")), {}, GOODS, ""),
        ("data.tsv", "id\tsentence\tlabel\n7\tso good\t1\n", {}, [("so good", "1")], ""),
    ],
    "columns with usual names": [
        other("review", "sentiment"),
        (*other("category", "text", order=BACKWARDS)[:4], "label is the column category"),
        other("message", "class"),
        other("Tweet", "target"),
        other("body", "rating"),
        other("review", "stars"),
        other("reviewText", "overall"),
        other("comment_text", "score"),
        other("Phrase", "Class Index"),
        other("Review Text", "class_index"),
        ("data.csv", table(GOODS, ("text", "topic")), {}, GOODS, "label is the column topic"),
        ("data.csv", ",review,stars\n0,so good,5\n", {}, [("so good", "5")], "text is the column"),
    ],
    "`v1,v2,,,`": [
        ("spam.csv", "v1,v2,,,\nham,see you,,,\nspam,win,,,\nham,\"a, b\",,,\n", {},
         [("see you", "ham"), ("win", "spam"), ("a, b", "ham")], "without a name are ignored"),
    ],
    "`title` and `description`": [
        ("news.csv", "class,title,description\n3,Oil up,It rose.\n1,Vote,\n", {},
         [("Oil up It rose.", "3"), ("Vote ", "1")], "text is the column title and description"),
    ],
    "columns with other names": [
        ("data.csv", table(GOODS, ("Essay", "grade")),
         {"text": ("essay",), "label": "grade"}, GOODS, ""),
        ("data.jsonl", '{"essay": "so good", "grade": 1}', {"text": ("essay",), "label": "grade"},
         [("so good", "1")], ""),
        ("data.csv", "text,label,mood\nso good,7,glad\n", {"label": "mood"},
         [("so good", "glad")], ""),
    ],
    "a text in several columns": [
        ("data.csv", "subject,mail,label\nHi,how are you?,ham\n", {"text": ("subject", "mail")},
         [("Hi how are you?", "ham")], ""),
    ],
    "no header": [
        ("data.csv", table(MANY), {}, MANY, "no header; column 1 is the text"),
        ("data.tsv", table([m[::-1] for m in MANY], delimiter="\t"), {}, MANY,
         "no header; column 1 is the label, column 2 is the text"),
        ("data.csv", table([(*m, "") for m in MANY]), {}, MANY, "no header; column 1 is the text"),
        ("data.csv", table(GOODS), {"text": ("1",), "label": "2"}, GOODS,
         "there is no header; column 1 is the text, column 2 is the label"),
        ("data.csv", "7,x,y\n8,z,w\n", {"text": ("3", "2"), "label": "1"},
         [("y x", "7"), ("w z", "8")], "column 1 is the label, column 2 is the text"),
    ],
    "other separators in `.csv`": [
        ("data.csv", table(GOODS, ("text", "label"), delimiter=";"), {}, GOODS, "separated by ;"),
        ("data.csv", table(GOODS, ("text", "label"), delimiter="|"), {}, GOODS, "separated by |"),
        ("data.csv", table(GOODS, ("text", "label"), delimiter="\t"), {}, GOODS, "by tabs"),
        ("data.csv", table([*MANY, ("no", "neg")], delimiter=";"), {}, [*MANY, ("no", "neg")],
         "separated by ;; there is no header"),
    ],
    "`.tsv`": [
        ("data.tsv", 'text\tlabel\n"so" good\t1\n5" disk\t0\n', {},
         [('"so" good', "1"), ('5" disk', "0")], ""),
        ("data.tab", 'text\tlabel\n"so good\t1\n"bad"\t0\n', {},
         [('"so good', "1"), ('"bad"', "0")], ""),
    ],
    "`.tsv` with quoted cells": [
        ("data.tsv", table([('a "b"\tc\nd', "1"), ("e", "0")], ("text", "label"), delimiter="\t"),
         {}, [('a "b"\tc\nd', "1"), ("e", "0")], "read as quoted"),
    ],
    "`.jsonl`": [
        ("data.jsonl", '{"text": "so good", "label": 1}\n', {}, [("so good", "1")], ""),
        ("data.jsonl", '{"text": "so good", "stars": 4.0}\n', {}, [("so good", "4")], "stars"),
        ("data.ndjson", '{"Review": "so good", "stars": 5}\n', {}, [("so good", "5")], "Review"),
    ],
    "`.json`": [
        ("data.json", '[{"text": "so good", "label": 1},\n {"label": "b", "text": ""}]', {},
         [("so good", "1"), ("", "b")], ""),
        ("data.json", '{"text": "so good", "label": 1}\n{"text": "x", "label": 2}\n', {},
         [("so good", "1"), ("x", "2")], ""),
        ("data.json", '{"text": "so good", "label": 1}', {}, [("so good", "1")], ""),
    ],
    "`.txt` with tabs": [
        ("data.txt", "".join(f"{t}\t{k}\n" for t, k in MANY), {}, MANY, "no header"),
        ("data.txt", "label\ttext\n1\tso good\n", {}, [("so good", "1")], ""),
    ],
    "`.txt`, a label before the first space": [
        ("data.txt", "".join(f"{k} {t}\n" for t, k in MANY), {}, MANY, "by the first space"),
    ],
    "endings in capitals": [("DATA.CSV", table(GOODS, ("text", "label")), {}, GOODS, "")],
    "UTF-8, and UTF-16 with its mark": [
        ("data.csv", "\ufefftext,label\nsüß,1\n".encode(), {}, [("süß", "1")], ""),
        ("data.csv", "text,label\nsüß,1\n".encode("utf-16"), {}, [("süß", "1")], ""),
        ("data.tsv", "\ufefftext\tlabel\r\nsüß\t1\r\n".encode("utf-16-be"), {}, [("süß", "1")], ""),
        ("data.jsonl", '{"text": "süß", "label": 1}'.encode("utf-16"), {}, [("süß", "1")], ""),
    ],
    "other encodings": [
        ("data.csv", "text,label\nsüß,1\n".encode("latin-1"), {"encoding": "latin-1"},
         [("süß", "1")], ""),
        ("data.csv", "text,label\nsüß,1\n".encode("utf-16-le"), {"encoding": "utf-16-le"},
         [("süß", "1")], ""),
        ("data.json", '[{"text": "süß", "label": 1}]'.encode("cp437"), {"encoding": "cp437"},
         [("süß", "1")], ""),
    ],
}  # fmt: skip
CASES = [(name, i) for name, forms in FORMS.items() for i in range(len(forms))]


def write(path, content: str | bytes):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name, i", CASES)
def test_a_form_gives_the_texts_and_labels_and_says_what_it_guessed(name, i, tmp_path):
    file, content, how, expected, says = FORMS[name][i]
    said = []
    examples = read_examples(write(tmp_path / file, content), Reading(**how), said.append)
    assert [(e.text, e.label) for e in examples] == expected
    assert len(said) == bool(says) and all(says in line and file in line for line in said)
    assert not any("\n" in line for line in said)


# The first cell of the row in docs/data.md: [(name of the file, content, what the error says)]
ROWS = "".join(f"{i % 3} films\t{i % 2}\n" for i in range(40))
REFUSED = {
    "columns that are not understood": [
        ("data.csv", "essay,grade\nso good,1\nbad,0\nfine,1\n", "The first line: essay | grade"),
        ("data.csv", "title,grade\nso good,1\n", "line 1: neither a header"),
        ("data.csv", "title,label\nso good,1\n", "label is the column label, but no column is "
         "known to be the text; say --text-column NAME"),
        ("data.csv", "text,grade,id\nso good,1,7\n", "text is the column text, but no "
         "column is known to be the label; say --label-column NAME"),
        ("data.csv", "review,stars,rating\nso good,1,2\n", "is the label stars or rating?"),
        ("data.csv", "review,body,label\nso good,a,2\n", "is the text review or body?"),
        ("data.tsv", "1\t2\t3\n1\t2\t3\n1\t2\t3\n", "say --text-column and --label-column"),
        ("data.json", '[{"essay": "so good", "label": 1}]', "say --text-column"),
        ("data.json", '[{"text": "so good", "grade": 1}]', "item 1: the label is None"),
        ("data.jsonl", '{"text": "so good", "label": NaN}', "line 1: the label is nan, neither"),
        ("data.txt", "So good a film.\nSo bad.\nA film I liked.\n" * 9, "say --text-column"),
        ("data.csv", "review,grade\nso good,1\n", "The first line: review | grade"),
    ],
    "two columns of which either may be the label": [
        ("data.tsv", ROWS, "tell themselves apart"),
        ("data.tsv", "".join(f"film {i}\tlabel {i}\n" for i in range(40)), "apart"),
        ("data.csv", table(MANY, delimiter=";"), "columns by , or by ;? put a first line, text,l"),
    ],
    "a column, or a key, that is there twice": [
        ("data.csv", "text,label,Text\na,1,b\n", "line 1: the column 'Text' is there twice"),
        ("data.jsonl", '{"text": "a", "label": 1, "label": 2}', "the key 'label' is there twice"),
        ("data.json", '[{"text": "a", "Text": "b", "label": 2}]', "'Text' is there twice"),
    ],
    "a column at the end without a name that is not empty": [
        ("data.csv", "label,text,\npos,fine,\nneg,The plot was stupid, and long\n",
         "line 3: ' and long' is in a column without a name; a text with commas must be quoted"),
        ("data.tsv", "label\ttext\t\npos\ta\tb\n", "a text with tabs must be quoted"),
    ],
    "labels that are fractions": [
        ("data.csv", "text,label\na,0.5\nb,1\nc,1.5\n", "the label is 0.5, 1.5, a fraction"),
        ("data.jsonl", '{"text": "a", "label": 0.5}', "line 1: the label is 0.5, a fraction"),
        ("data.csv", 'text;label\na;"0,5"\nb;1\n', "the label is 0,5, a fraction"),
    ],
    "another encoding": [
        ("data.csv", "text,label\nsüß,1\n".encode("latin-1"), "line 2: not UTF-8; say what it is"),
        ("data.tsv", "text\tlabel\na\t1\n".encode("utf-16-le"), "say --encoding utf-16-le"),
        ("data.tsv", b"\xff\xfet\0e", "line 1 or soon after: not utf-16"),
    ],
    "Excel, Parquet": [
        ("data.xlsx", b"PK\3\4...", "pandas.read_excel("),
        ("data.xls", b"\xd0\xcf\x11\xe0...", "pandas.read_excel("),
        ("data.parquet", b"PAR1...", "pandas.read_parquet("),
        ("data.csv", b"PAR1...", "pandas.read_parquet("),
    ],
    "compressed files": [
        ("data.csv.gz", gzip.compress(b"text,label\na,1\n"), "import gzip; open("),
        ("data.csv.zip", b"PK\3\4...", "import zipfile; "),
        ("data.csv", gzip.compress(b"text,label\na,1\n"), "import gzip; open("),
    ],
    "fastText": [("data.txt", "__label__pos so good\n__label__neg bad\n", "fastText's format")],
    "anything else": [("data.docx", "a\t1\n", f"ends in {', '.join(ENDINGS)}")],
}  # fmt: skip


def refused(path, **how) -> str:
    with pytest.raises(InputError) as error:
        read_examples(path, Reading(**how))
    assert str(path) in str(error.value)
    return one_line(error.value)


@pytest.mark.parametrize(
    "name, i", [(n, i) for n, rows in REFUSED.items() for i in range(len(rows))]
)
def test_what_is_not_sure_is_refused_in_one_line(name, i, tmp_path):
    file, content, says = REFUSED[name][i]
    assert says in refused(write(tmp_path / file, content))


@pytest.mark.parametrize(
    "how, says",
    [
        ({"text": ("essay",)}, "--text-column essay: the columns are text, label"),
        ({"label": "grade"}, "--label-column grade: the columns are text, label"),
        ({"text": ("label",)}, "named as the text and as the label"),
        ({"text": ("3",), "label": "1"}, "there is no column 3: there are 2"),
        ({"encoding": "latin-9000"}, "--encoding latin-9000: Python knows no such encoding"),
        ({"encoding": "base64"}, "--encoding base64: Python knows no such encoding"),
        ({"encoding": "ascii"}, "line 2: not ascii; say another --encoding"),
    ],
)
def test_flags_that_do_not_fit_a_file_are_refused(how, says, tmp_path):
    path = write(tmp_path / "data.csv", "text,label\nsüß,1\n")
    with pytest.raises(InputError) as error:
        read_examples(path, Reading(**how))
    assert says in str(error.value)


def read(path, **how):
    """Return the (text, label) of each example, and what was said."""
    said = []
    examples = read_examples(path, Reading(**how), said.append)
    return [(e.text, e.label) for e in examples], " ".join(said)


def test_numbers_are_names_only_in_a_header_of_numbers(tmp_path):
    rows = "2,a lovely film\n1,a dull film\n"
    path = write(tmp_path / "data.csv", rows)
    expected = [("a lovely film", "2"), ("a dull film", "1")]
    assert read(path, text=("2",), label="1")[0] == expected
    texts = [r["2"] for _, r, _ in records(path, Reading(("2",)), labelled=False)]
    assert texts == ["a lovely film", "a dull film"]
    path = write(tmp_path / "pandas.csv", f",1,2\n0,{rows.splitlines()[0]}\n")
    assert read(path, text=("2",), label="1")[0] == expected[:1]


def test_columns_by_number_do_not_make_an_example_of_the_header(tmp_path):
    by_number = {"text": ("1",), "label": "2"}
    for header in (("text", "label"), ("review", "stars")):
        path = write(tmp_path / "data.csv", table(GOODS, header))
        examples, said = read(path, **by_number)
        assert examples == GOODS and said.endswith(": line 1 is the header")
    path = write(tmp_path / "data.csv", table(MANY, ("essay", "grade")))
    message = refused(path, **by_number)
    assert "line 1: is line 1 a header? then say the names of its columns" in message
    path = write(tmp_path / "data.csv", table([("fine", "3"), *[(t, "1") for t, _ in MANY]]))
    assert len(read(path, **by_number)[0]) == 13


def texts_and_errors(path):
    """Return what predict gets of a file: the texts, and where and what is bad."""
    rows = [(where, row) for where, row, _ in records(path, labelled=False)]
    bad = [(w, str(row)) for w, row in rows if isinstance(row, InputError)]
    return [row["text"] for _, row in rows if not isinstance(row, InputError)], bad


@pytest.mark.parametrize(
    "line, says",
    [
        (b'"a "bad" row",1', "expected after"),
        (b'"never closed,1', "line 3: a quote that opens here is not closed"),
        (b"s\xfc\xdf,1", "line 3: not UTF-8"),
        (b"one,2,3", "3 columns instead of 2"),
    ],
)
def test_rows_after_a_bad_one_are_read(line, says, tmp_path):
    for end in (b"\n", b"\r\n"):
        lines = [
            b"text,label",
            b"one,1",
            line,
            b"two,2",
            b'"th',
            b'ree",1',
            b'"four",2',
            line,
            b"5,1",
        ]
        path = write(tmp_path / "data.csv", end.join([*lines, b""]))
        texts, bad = texts_and_errors(path)
        assert texts == ["one", "two", f"th{end.decode()}ree", "four", "5"]
        assert [where for where, _ in bad] == [f"{path}, line {n}" for n in (3, 8)]
        assert says in bad[0][1] and str(path) in bad[0][1]
        assert says in refused(path)


def test_a_long_file_of_quotes_that_are_not_closed_does_not_take_long(tmp_path):
    path = write(tmp_path / "data.csv", "text,label\n" + 'a","c\n' * 3000 + "fine,1\n")
    texts, bad = texts_and_errors(path)
    assert (texts[-1], len(bad)) == ("fine", 3000)


@pytest.mark.parametrize("blank", [",", ", ", " ", ",,,"])
def test_rows_without_content_are_skipped(blank, tmp_path):
    rows = table(GOODS).splitlines()
    for header in ("text,label", "pos,label"):
        lines = [",", header, blank, rows[0], blank, rows[1], blank, ""]
        path = write(tmp_path / "data.csv", "\n".join(lines))
        how = {} if header == "text,label" else {"text": ("pos",), "label": "label"}
        assert read(path, **how)[0] == GOODS
    path = write(tmp_path / "data.csv", "\n".join(["text;label", ";;;", "a;1", ";", ""]))
    assert read(path)[0] == [("a", "1")] and texts_and_errors(path) == (["a"], [])
    path = write(tmp_path / "one.csv", "text\na\n \n")
    assert texts_and_errors(path) == (["a", " "], [])  # of one column, a row is a text


def python_of(message: str) -> str:
    return message.split("convert it with Python: ")[1]


def test_the_lines_of_python_convert_what_they_are_for(tmp_path):
    for name, module in (("a.csv.gz", "gzip"), ("a.csv.bz2", "bz2"), ("a.csv.xz", "lzma")):
        packed = __import__(module).compress(b"text,label\na,1\n")
        exec(python_of(refused(write(tmp_path / name, packed))), {})
        assert read_examples(tmp_path / "a.csv") == [Example("a", "1")]
        (tmp_path / "a.csv").unlink()
    path = write(tmp_path / "b.txt", "__label__pos so good, he said\n__label__neg bad\n")
    exec(python_of(refused(path)), {})
    read = read_examples(tmp_path / "b.tsv")
    assert read == [Example("so good, he said", "pos"), Example("bad", "neg")]


def cells(page: str, heading: str) -> list[str]:
    """Return the first cells of the table under a heading."""
    part = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", part, re.MULTILINE)
    return rows[1:]


def test_the_tables_in_docs_are_these():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert cells(page, "What is read") == [*FORMS]
    assert cells(page, "What is refused") == [*REFUSED]


# --- tab-separated files with quotes: csv.reader is the oracle, where all of a file parses


@pytest.mark.parametrize("seed", range(5))
def test_a_tsv_that_csv_writes_is_read_as_csv_reads_it(seed, tmp_path):
    import random

    r = random.Random(seed)
    parts = ["a", " ", '"', "\t", "\n", "é", ",", "'", "\r\n"]
    texts = ["".join(r.choices(parts, k=r.randrange(12))) for _ in range(200)]
    rows = [(text, str(i % 2)) for i, text in enumerate(texts)]
    content = table(rows, ("text", "label"), delimiter="\t")
    path = write(tmp_path / "data.tsv", content)
    expected = list(csv.reader(io.StringIO(content, newline=""), delimiter="\t"))[1:]
    assert [[e.text, e.label] for e in read_examples(path)] == expected == [list(r) for r in rows]


def test_quotes_that_would_join_whole_rows_are_quotes(tmp_path):
    rows = '"so good\t1\nbad\t0\nthe end"\t1\nfine\t0\n'
    path = write(tmp_path / "data.tsv", "text\tlabel\n" + rows)
    assert [e.text for e in read_examples(path)] == ['"so good', "bad", 'the end"', "fine"]


# --- folders and splits


def test_usual_names_of_dev_are_read_and_what_is_not_used_is_named(tmp_path):
    for name in ("val", "valid", "validation", "dev", "development"):
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", name, "test"):
            rows = [(f"{split} {text}", label) for text, label in MANY]
            write(folder / f"{split}.csv", table(rows, ("text", "label")))
        write(folder / "extra.csv", "text,label\na,1\n")
        write(folder / "test2.parquet", b"PAR1")
        write(folder / "README.txt", "read me")
        said = []
        data = load_dataset(str(folder), 0, note=said.append)
        assert all(e.text.startswith(f"{name} ") for e in data.dev) and len(data.dev) == 12
        assert len(data.train) == 12
        assert len(said) == 1 and "not used: extra.csv, test2.parquet (" in said[0]


def test_without_a_header_the_other_files_are_read_as_train_is(tmp_path):
    """Two rows, or a few of them, do not tell by themselves which column is the label."""
    write(tmp_path / "train.csv", table([row[::-1] for row in MANY]))
    write(tmp_path / "val.csv", "pos,one film\nneg,another film\n")
    write(tmp_path / "test.csv", "pos,one\nneg,two\nneg,three\npos,one\n")
    said = []
    data = load_dataset(str(tmp_path), 0, note=said.append)
    (line,) = said
    assert line.endswith("there is no header; column 1 is the label, column 2 is the text")
    assert [e.text for e in data.dev] == ["one film", "another film"]
    assert [e.label for e in data.test] == ["pos", "neg", "neg", "pos"]


def test_a_column_split_may_say_val_in_any_case(tmp_path):
    rows = [(t, k, ["Train", "VAL", "test"][i % 3]) for i, (t, k) in enumerate(MANY)]
    path = write(tmp_path / "data.csv", table(rows, ("text", "label", "split")))
    assert [len(s) for s in (load_dataset(str(path), 0).dev, load_dataset(str(path), 0).test)] == [
        4,
        4,
    ]


def test_too_few_pairs_are_not_blamed_on_labels(tmp_path):
    rows = [(*row, i % 2) for i, row in enumerate(MANY)]
    path = write(tmp_path / "data.csv", table(rows, ("text", "label", "pair")))
    with pytest.raises(InputError) as error:
        load_dataset(str(path), 0)
    assert "the column pair stay together, and it has only 2" in str(error.value)
    assert "label has enough" not in str(error.value)


def test_labels_written_with_decimals_are_classes_if_they_are_whole(tmp_path):
    path = write(tmp_path / "data.csv", "text,label\na,1.0\nb,2.0\nc,nan\nd,v1.5\n")
    assert [e.label for e in read_examples(path)] == ["1.0", "2.0", "nan", "v1.5"]


@pytest.mark.parametrize(
    "name", ["d.csv", "d.tsv", "d.jsonl", "d.json", "d.txt", "d.tab", "d.ndjson"]
)
def test_a_file_of_nothing_has_no_examples(name, tmp_path):
    says = "not JSON" if name == "d.json" else "holds no examples"
    assert says in refused(write(tmp_path / name, ""))


def test_an_object_in_another_order_or_with_other_keys_is_read_by_its_own(tmp_path):
    rows = [{"text": "a", "label": 1}, {"label": 2, "sentence": "b"}, {"Text": "c", "label": 3}]
    path = write(tmp_path / "d.jsonl", "\n".join(map(json.dumps, rows)))
    assert [(e.text, e.label) for e in read_examples(path)] == [("a", "1"), ("b", "2"), ("c", "3")]


def test_text_in_a_column_without_a_name_is_left_out_where_the_columns_are_named(tmp_path):
    """As in the usual file of text messages, some of which go on in columns without a name."""
    path = tmp_path / "spam.csv"
    path.write_text('v1,v2,,\nham,see you,,\nspam,"win, now"," 150 ppw",\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 3: ' 150 ppw' is in a column without a name"):
        read_examples(path)
    examples = read_examples(path, Reading(text=("v2",), label="v1"))
    assert [e.text for e in examples] == ["see you", "win, now"]
