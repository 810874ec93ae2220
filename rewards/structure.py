"""Structured documents: five formats, each read by its own parser and never trusted, then compared value by value.

    text --reader--> value or Unreadable --types of the schema (XML, CSV)--> value == expected, and valid

Types are exact: true is not "true", 1 is not 1.0. What a lenient reader would pass over makes a text unreadable: a key twice,
NaN, a second document, words around it, a code fence, YAML anchors and tags, an XML document type. No text makes a reader
raise, recurse without end, or take long: length and depth are bounded.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from xml.etree import ElementTree

MAX_CHARS = 20_000
MAX_DEPTH = 32
FORMATS = ("json", "yaml", "toml", "xml", "csv")

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?")
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")


@dataclass(frozen=True)
class Unreadable:
    """What a reader gives for text that is no such document."""

    reason: str


class _Refused(Exception):
    """Inside a reader: well-formed, but not what we take."""


def read_json(text: str) -> Any:
    """JSON (RFC 8259), with every key once."""
    return _read("JSON", text, lambda: json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant))


def read_yaml(text: str) -> Any:
    """One YAML document of plain values, as PyYAML's safe loader types them: no anchors, aliases, tags or merge keys."""
    return _read("YAML", text, lambda: _load_yaml(text))


def read_toml(text: str) -> Any:
    """TOML 1.0."""
    return _read("TOML", text, lambda: tomllib.loads(text))


def read_xml(text: str) -> Any:
    """An XML document as `{root: value}`: children by tag, `<item>` children as a list, attributes as `@name`, else text."""
    return _read("XML", text, lambda: _load_xml(text))


def read_csv(text: str) -> Any:
    """A CSV table with a header, as a list of rows; cells are text."""
    return _read("CSV", text, lambda: _load_csv(text))


READERS: dict[str, Callable[[str], Any]] = {
    "json": read_json,
    "yaml": read_yaml,
    "toml": read_toml,
    "xml": read_xml,
    "csv": read_csv,
}


def same_document(format: str, text: str, expected: Any, schema: Mapping[str, Any] | None = None) -> bool:
    """Whether the text is the expected document and valid under the schema."""
    return mistake(format, text, expected, schema) is None


def mistake(format: str, text: str, expected: Any, schema: Mapping[str, Any] | None = None) -> str | None:
    """The first thing that is wrong with a document; None where it is right."""
    if format not in READERS:
        raise ValueError(f"no format {format!r}; known: {', '.join(FORMATS)}")
    given = READERS[format](text)
    if isinstance(given, Unreadable):
        return given.reason
    if schema is not None and format in ("xml", "csv"):  # the two formats that know no types
        given = typed(given, schema)
    found = _difference(expected, given, "$", ordered=format == "csv")
    return found or (_invalid(schema, given) if schema else "") or None


def typed(value: Any, schema: Mapping[str, Any]) -> Any:
    """Text leaves as the schema types them. What does not fit stays text, and so differs from what is expected."""
    kind = schema.get("type")
    if isinstance(value, dict):
        properties, required = schema.get("properties", {}), schema.get("required", ())
        return {
            key: typed(found, properties.get(key, {}))
            for key, found in value.items()
            if found != "" or key in required or key not in properties  # an empty cell is a value left out
        }
    if isinstance(value, list):
        return [typed(found, schema.get("items", {})) for found in value]
    if kind == "boolean":
        return {"true": True, "false": False}.get(value, value)
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if kind == "number" and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return [] if kind == "array" and value == "" else value


def _read(format: str, text: str, load: Callable[[], Any]) -> Any:
    if len(text) > MAX_CHARS:
        return Unreadable(f"over {MAX_CHARS} characters")
    if text.lstrip().startswith(("```", "~~~")):
        return Unreadable("a code fence")
    try:
        value = load()
        _plain(value, MAX_DEPTH)
        return value
    except _Refused as refusal:
        return Unreadable(str(refusal))
    except RecursionError:
        return Unreadable("nested too deeply")
    except ImportError:
        raise
    except Exception as error:  # parsers raise more kinds than they document, and no text may stop a grader
        return Unreadable(f"no {format}: {str(error)[:200]}")


def _plain(value: Any, depth: int) -> None:
    """Refuse what is nested too deeply, keys that are no text, and numbers that are none."""
    if depth < 0:
        raise _Refused("nested too deeply")
    if isinstance(value, dict):
        for key, found in value.items():
            if not isinstance(key, str):
                raise _Refused(f"a key that is no text: {str(key)[:80]}")
            _plain(found, depth - 1)
    elif isinstance(value, list):
        for found in value:
            _plain(found, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _Refused("a number that is not finite")
    elif isinstance(value, int) and value.bit_length() > 256:
        raise _Refused("a number beyond all measure")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {key[:80]!r} comes twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is no JSON")


def _load_yaml(text: str) -> Any:
    import yaml

    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):  # one event at a time, so depth is seen before it hurts
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused("an anchor or alias")
        if getattr(event, "tag", None) is not None:
            raise _Refused("a tag")
        if depth > MAX_DEPTH:
            raise _Refused("nested too deeply")
        if documents > 1:
            raise _Refused("a second document")
    loader = _yaml_loader()(text)  # a SafeLoader: plain values only
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


@cache
def _yaml_loader() -> Any:
    import yaml

    class Once(yaml.SafeLoader):
        """The safe loader, which minds keys that come twice."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = []
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    raise _Refused("a merge key")
                key = self.construct_object(key_node, deep=True)
                if key in keys:
                    raise _Refused(f"the key {str(key)[:80]!r} comes twice")
                keys.append(key)
            return super().construct_mapping(node, deep)

    return Once


def _load_xml(text: str) -> Any:
    if _DECLARATION.search(text):  # no document type, so no entities and nothing to fetch
        raise _Refused("a document type or entity")
    root = ElementTree.fromstring(text.strip())
    return {root.tag: _element(root, MAX_DEPTH)}


def _element(element: ElementTree.Element, depth: int) -> Any:
    if depth < 0:
        raise _Refused("nested too deeply")
    children, text = list(element), (element.text or "").strip()
    if any((child.tail or "").strip() for child in children) or (children and text):
        raise _Refused(f"text between the elements of <{element.tag[:80]}>")
    if children and not element.attrib and all(child.tag == "item" for child in children):
        return [_element(child, depth - 1) for child in children]
    if not children and not element.attrib:
        return text
    pairs: list[tuple[str, Any]] = [(f"@{name}", value) for name, value in element.attrib.items()]
    if text:
        pairs.append(("#text", text))
    return _once(pairs + [(child.tag, _element(child, depth - 1)) for child in children])


def _load_csv(text: str) -> Any:
    rows = list(csv.reader(io.StringIO(text.strip("\r\n"), newline=""), strict=True))
    if not rows or not rows[0]:
        raise _Refused("no header")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise _Refused(f"line {number} has {len(row)} cells, the header {len(rows[0])}")
    _once([(name, None) for name in rows[0]])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def _difference(expected: Any, given: Any, path: str, *, ordered: bool = False) -> str:
    """Where two values differ, types included, or ""."""
    if type(expected) is not type(given):
        return f"{path} is {_shown(given)}, not {_shown(expected)}"
    if isinstance(expected, dict):
        for key in expected:
            if key not in given:
                return f"{path}.{key} is missing"
        for key in given:
            if key not in expected:
                return f"{path}.{key[:80]} is too much"
        if ordered and list(expected) != list(given):
            return f"{path} has another order"
        found = (_difference(expected[key], given[key], f"{path}.{key}") for key in expected)
        return next(filter(None, found), "")
    if isinstance(expected, list):
        if len(expected) != len(given):
            return f"{path} has {len(given)} entries, not {len(expected)}"
        pairs = enumerate(zip(expected, given, strict=True))
        found = (_difference(a, b, f"{path}[{i}]", ordered=ordered) for i, (a, b) in pairs)
        return next(filter(None, found), "")
    return "" if expected == given else f"{path} is {_shown(given)}, not {_shown(expected)}"


def _shown(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"


def _invalid(schema: Mapping[str, Any], value: Any) -> str:
    import jsonschema

    problem = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    return "" if problem is None else f"not valid: {problem.message[:200]}"
