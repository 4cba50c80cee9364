"""JSON that came from outside: what a table of fields takes, and in which words it refuses."""

import json
import math

import pytest

from minigpt.edge import fields
from minigpt.edge.errors import InputError, one_line

TABLE = {
    "name": fields.text,
    "sizes.layers": fields.whole(1, 12),
    "sizes.rate": fields.number(0, 1),
    "sizes.alpha": fields.positive,
    "sizes.width": fields.optional(fields.whole()),
    "kind": fields.one_of("a", 1, False),
    "labels": fields.texts(2),
    "lines": fields.array,
    "lines.*.loss": fields.number(),
    "flags": fields.table,
}
GOOD = {
    "name": "x",
    "sizes": {"layers": 12, "rate": 0, "alpha": 1e-9, "width": None},
    "kind": False,
    "labels": ["no", "yes"],
    "lines": [{"loss": 1}, {"loss": -2.5, "more": math.nan}],
    "flags": {},
    "more": [[[]]],
}


def test_what_the_table_asks_for_is_taken_and_the_rest_left_alone():
    assert fields.check("file", GOOD, TABLE) is GOOD
    less = {name: value for name, value in GOOD["sizes"].items() if name != "width"}
    assert fields.check("file", GOOD | {"sizes": less, "lines": [], "kind": 1}, TABLE)


BAD = [
    ("name", 5, "name is 5, not a text"),
    ("name", ..., "name is missing: a text"),
    ("name", None, "name is None, not a text"),
    ("sizes", [], "sizes.layers is missing: a whole number from 1 to 12"),
    ("sizes", ..., "sizes.layers is missing"),
    ("sizes.layers", True, "sizes.layers is True, not a whole number from 1 to 12"),
    ("sizes.layers", 3.0, "sizes.layers is 3.0, not a whole number"),
    ("sizes.layers", 13, "sizes.layers is 13, not a whole number from 1 to 12"),
    ("sizes.layers", 10**4000, "sizes.layers is 10000"),
    ("sizes.rate", 1, "sizes.rate is 1, not a number from 0 up to 1"),
    ("sizes.rate", math.nan, "sizes.rate is nan, not a number"),
    ("sizes.alpha", 0, "sizes.alpha is 0, not a number above 0"),
    ("sizes.alpha", math.inf, "sizes.alpha is inf, not a number above 0"),
    ("sizes.width", "7", "sizes.width is '7', not a whole number of 0 or more, or null"),
    ("kind", 0, "kind is 0, not 'a' or 1 or False"),
    ("kind", True, "kind is True, not"),
    ("kind", [], "kind is [], not"),
    ("labels", ["no"], "labels is ['no'], not a list of 2 or more different texts"),
    ("labels", ["no", "no"], "labels is ['no', 'no'], not"),
    ("labels", ["no", 1], "labels is ['no', 1], not"),
    ("labels", {"no": 1, "yes": 2}, "labels is {'no': 1, 'yes': 2}, not a list"),
    ("lines", {}, "lines is {}, not a list"),
    ("lines", [{"loss": 1}, 7], "lines.1.loss is missing: a finite number"),
    ("lines", [{"loss": -math.inf}], "lines.0.loss is -inf, not a finite number"),
    ("lines", [{"loss": 10**400}], "lines.0.loss is 1000"),
    ("flags", [], "flags is [], not an object"),
]


@pytest.mark.parametrize("name, value, says", BAD, ids=[says[:30] for *_, says in BAD])
def test_what_it_does_not_ask_for_is_refused_by_file_field_and_value(name, value, says):
    broken = json.loads(json.dumps(GOOD))
    *path, last = name.split(".")
    place = broken
    for step in path:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(InputError) as error:
        fields.check("a/file.json", broken, TABLE, "train again")
    message = one_line(error.value)
    assert message.startswith(f"a/file.json: {says}") and message.endswith("; train again")
    assert len(message) < 200


@pytest.mark.parametrize("value", [[1], None, 7, "x"])
def test_what_is_not_an_object_has_no_fields(value):
    with pytest.raises(InputError, match=r"a/file\.json: .* is not an object with fields"):
        fields.check("a/file.json", value, TABLE)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1}}', b"9" * 5000])
def test_what_is_not_json_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not JSON") as error:
        fields.read_json(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
