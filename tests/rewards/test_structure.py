"""Structured documents: exact types, one document and nothing else, and no text that a reader cannot bear."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.rewards.structure import (
    FORMATS,
    MAX_CHARS,
    MAX_DEPTH,
    READERS,
    Unreadable,
    mistake,
    read_csv,
    read_json,
    read_toml,
    read_xml,
    read_yaml,
    same_document,
)  # fmt: skip

ORDER = {"number": "A-17", "count": 3, "weight": 1.5, "paid": True, "tags": ["red", "small"], "to": {"code": "04107"}}
SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "count": {"type": "integer"},
        "weight": {"type": "number"},
        "paid": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "to": {"type": "object", "properties": {"code": {"type": "string"}}},
    },
    "required": ["number", "count", "weight", "paid", "tags", "to"],
    "additionalProperties": False,
}
WRITTEN = {
    "json": '{"number": "A-17", "count": 3, "weight": 1.50, "paid": true, "tags": ["red", "small"], "to": {"code": "04107"}}',
    "yaml": 'number: A-17\ncount: 3\nweight: 1.5  # kg\npaid: true\ntags: [red, small]\nto:\n  code: "04107"\n',
    "toml": 'number = "A-17"\ncount = 3\nweight = 1.5\npaid = true\ntags = ["red", "small"]\n[to]\ncode = "04107"',
    "xml": "<order><number>A-17</number><count>3</count><weight>1.5</weight><paid>true</paid>"
    "<tags><item>red</item><item>small</item></tags><to><code>04107</code></to></order>",
}


def right(format: str, text: str) -> bool:
    wrapped = format == "xml"
    expected = {"order": ORDER} if wrapped else ORDER
    schema = {"type": "object", "properties": {"order": SCHEMA}} if wrapped else SCHEMA
    return same_document(format, text, expected, schema)


@pytest.mark.parametrize("format", WRITTEN)
def test_the_same_document_in_each_format(format: str) -> None:
    assert right(format, WRITTEN[format]) and right(format, f"\n {WRITTEN[format]} \n".replace("\n n", "\nn"))


@pytest.mark.parametrize(
    ("format", "old", "new"),
    [
        (format, old, new)
        for format, pairs in {
            "json": [
                ("3", "3.0"),
                ("3", '"3"'),
                ("true", '"true"'),
                ("true", "1"),
                ('"04107"', "4107"),
                ("1.50", "NaN"),
                ("1.50", "1.51"),
                ('"count": 3', '"count": 3, "count": 3'),
                ('"count": 3, ', ""),
                ('"count"', '"Count"'),
                ('"small"]', '"small"], "more": null'),
                ('"red", "small"', '"small", "red"'),
                ('"small"]', '"small",]'),
            ],
            "yaml": [
                ("3", "3.0"),
                ("3", '"3"'),
                ("true", '"true"'),
                ('"04107"', "04107"),
                ("3", "!!int 3"),
                ("count: 3", "count: 3\ncount: 3"),
                ("count: 3", "count: &a 3"),
                ("number", "<<: {x: 1}\nnumber"),
                ("1.5", ".nan"),
                ("number", "---\nx: 1\n---\nnumber"),
            ],
            "toml": [
                ("3", "3.0"),
                ("3", '"3"'),
                ("true", '"true"'),
                ("count = 3", "count = 3\ncount = 3"),
                ("1.5", "nan"),
                ('"A-17"', "2026-01-01"),
                ("[to]", "[to.x]"),
            ],
            "xml": [
                (">3<", ">3.0<"),
                (">3<", ">+3<"),
                ("true", "True"),
                ("04107", "4107"),
                ("<count>3</count>", "<count>3</count><count>3</count>"),
                ("<order>", "<!DOCTYPE order><order>"),
                ("<order>", '<order id="1">'),
                ("order>", "Order>"),
                ("</count>", "</count>so"),
                ("<item>red</item>", "<tag>red</tag>"),
            ],
        }.items()
        for old, new in pairs
    ],
)
def test_near_misses_are_another_document(format: str, old: str, new: str) -> None:
    assert old in WRITTEN[format] and not right(format, WRITTEN[format].replace(old, new))


@pytest.mark.parametrize("format", WRITTEN)
def test_a_document_stands_alone(format: str) -> None:
    text = WRITTEN[format]
    for wrapped in (
        f"```{format}\n{text}\n```",
        f"Here:\n{text}",
        f"{text}\nDone!",
        f"{text}\n{text}",
        f"~~~\n{text}\n~~~",
    ):
        assert not right(format, wrapped)
    assert not any(right(other, text) for other in WRITTEN if other != format and (other, format) != ("yaml", "json"))
    assert right("yaml", WRITTEN["json"])  # JSON is YAML


ROWS = [{"name": "lamp, red", "count": 2}, {"name": 'say "hi"', "count": 11, "note": "new"}]
TABLE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "count": {"type": "integer"}, "note": {"type": "string"}},
        "required": ["name", "count"],
    },
}
CSV = 'name,count,note\n"lamp, red",2,\n"say ""hi""",11,new\n'


def test_a_table_is_its_rows_in_order_with_empty_cells_left_out() -> None:
    assert same_document("csv", CSV, ROWS, TABLE) and same_document("csv", CSV.replace("\n", "\r\n"), ROWS, TABLE)
    lines = CSV.splitlines()
    for text in (
        "\n".join((lines[0], lines[2], lines[1])),
        "\n".join(lines[:2]),
        "\n".join((*lines, lines[2])),
        CSV.replace(",2,", ",2"),
        CSV.replace(",2,", ",2.0,"),
        CSV.replace("name,count,note", "name,note,count"),
        CSV.replace("count,note", "count,count"),
        CSV.replace('"lamp, red"', "lamp, red"),
        CSV.replace(",", ";"),
        "```csv\n" + CSV,
        "",
    ):
        assert not same_document("csv", text, ROWS, TABLE)


def test_columns_stand_in_their_order() -> None:
    swapped = 'count,name,note\n2,"lamp, red",\n11,"say ""hi""",new'
    assert mistake("csv", swapped, ROWS, TABLE) == "$[0] has another order"


def test_what_is_wrong_is_said() -> None:
    assert mistake("json", '{"a": 1}', {"a": 1}) is None
    assert mistake("json", '{"a": "1"}', {"a": 1}) == "$.a is '1' (str), not 1 (int)"
    assert mistake("json", '{"a": [1]}', {"a": [1, 2]}) == "$.a has 1 entries, not 2"
    assert mistake("json", '{"a": 1, "b": 2}', {"a": 1}) == "$.b is too much"
    assert mistake("json", "{}", {"a": 1}) == "$.a is missing"
    assert mistake("json", '{"a": 1, "a": 1}', {"a": 1}) == "the key 'a' comes twice"
    assert mistake("json", "```json\n{}\n```", {}) == "a code fence"
    assert mistake("json", '{"a": 1}', {"a": 1}, {"properties": {"a": {"minimum": 5}}}) == (
        "not valid: 1 is less than the minimum of 5"
    )
    assert "no JSON: " in str(mistake("json", "hello", {}))


def test_readers_give_plain_values() -> None:
    assert read_json(' [1, 1.0, "1", null] ') == [1, 1.0, "1", None]
    assert read_yaml("- 1\n- yes\n- a: [x]") == [1, True, {"a": ["x"]}]
    assert read_toml("a.b = 1") == {"a": {"b": 1}}
    assert read_xml('<a b="1"><c/><d> x </d><e><item>1</item></e></a>') == {
        "a": {"@b": "1", "c": "", "d": "x", "e": ["1"]}
    }
    assert read_csv("a,b\n1,") == [{"a": "1", "b": ""}]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("json", "[" * 9_000),
        ("json", "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)),
        ("json", "9" * 6_000),
        ("json", "1e999"),
        ("json", "-Infinity"),
        ("json", f'"{"x" * MAX_CHARS}"'),
        ("yaml", "[" * 9_000),
        ("yaml", "- " * 9_000),
        ("yaml", "a: &x [1]\nb: [*x, *x]"),
        ("yaml", "!!python/object/apply:os.system [ls]"),
        ("yaml", "? [1]\n: 2"),
        ("yaml", "1: 2"),
        ("yaml", "2026-13-45"),
        ("yaml", "1:59" + ":59" * 3_000),
        ("yaml", "a: 1\x00"),
        ("toml", "a = " + "[" * 9_000),
        ("toml", "a" + ".a" * 9_000 + " = 1"),
        ("toml", "a = inf"),
        ("xml", "<a>" * 6_000),
        ("xml", "<a>" * 100 + "</a>" * 100),
        ("xml", '<!DOCTYPE a [<!ENTITY b "boo">]><a>&b;</a>'),
        ("xml", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>'),
        ("xml", "<a>&b;</a>"),
        ("xml", "<a>\ud800</a>"),
        ("csv", 'a,b\n"1'),
        ("csv", "a,a\n1,2"),
        ("csv", "\n\n"),
    ],
)
def test_what_a_reader_refuses(format: str, text: str) -> None:
    began = time.perf_counter()
    assert isinstance(READERS[format](text), Unreadable) and time.perf_counter() - began < 2.0
    assert not same_document(format, text, {"a": 1})


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.text(max_size=300))
def test_no_text_makes_a_reader_raise(format: str, text: str) -> None:
    READERS[format](text)
    assert not same_document(format, text, {"never": "this"}, {"type": "object"})


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(WRITTEN)),
    st.lists(
        st.tuples(st.integers(0, 150), st.integers(0, 4), st.text("{}[]<>&*!:,.-\"'\n\t #|0aé", max_size=4)), min_size=1
    ),
)
def test_no_edit_of_a_document_makes_a_reader_raise(format: str, edits: list[tuple[int, int, str]]) -> None:
    text = WRITTEN[format]
    for place, removed, inserted in edits:
        text = text[:place] + inserted + text[place + removed :]
    assert right(format, text) in (True, False)


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(VALUES, VALUES)
def test_json_is_compared_value_by_value_and_type_by_type(one: Any, other: Any) -> None:
    assert same_document("json", json.dumps(one), one)
    assert same_document("json", json.dumps(other), one) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    ) or (
        one == other  # -0.0 and 0.0 are one number
    )


def test_unknown_formats_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="no format 'ini'; known: json, yaml, toml, xml, csv"):
        same_document("ini", "", {})
