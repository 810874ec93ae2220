"""What is asked for: a JSON Schema as it is, or the same said in lines for the formats that have no schema of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_RULES = {
    "json": "Answer with the JSON document alone: no code fence, no words around it.",
    "yaml": "Answer with the YAML document alone: no code fence, no comment; text that YAML would read as something else is quoted.",
    "toml": "Answer with the TOML document alone: no code fence, no comment; dates are text in quotes.",
    "xml": "Answer with the XML document alone: no code fence, no document type; what is marked @ is an attribute, and each "
    "entry of a list is an <item>.",
    "csv": "Answer with the CSV table alone: no code fence; what is not told is an empty cell.",
}


def asked(format: str, root: str, schema: dict[str, Any]) -> str:
    """The second half of a prompt: the structure, and how to answer."""
    if format == "json":
        return f"Write this as JSON that is valid under the schema:\n{json.dumps(schema)}\n{_RULES[format]}"
    if format == "csv":
        columns = schema["items"]["properties"]
        head = f"Write this as CSV with the header {','.join(columns)}, rows {schema['description']}:"
        return "\n".join((head, *_fields(schema["items"], ""), _RULES[format]))
    name = {"yaml": "YAML", "toml": "TOML", "xml": "XML"}[format]
    head = f"Write this as XML with the root <{root}>:" if format == "xml" else f"Write this as {name} with these keys:"
    return "\n".join((head, *_fields(schema, ""), _RULES[format]))


def _fields(schema: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in schema["properties"].items():
        yield f"{indent}- {name}: {_said(field)}"
        inner = field.get("items", field)
        if inner.get("type") == "object":
            yield from _fields(inner, indent + "  ")


def _said(field: dict[str, Any]) -> str:
    if "enum" in field:
        return f"one of {', '.join(field['enum'])}"
    kind = field["type"]
    if kind == "object":
        return "with"
    if kind == "array":
        entry = "records with" if field["items"]["type"] == "object" else "text"
        return f"list, {field['description']}, of {entry}"
    return _TYPES[kind] + (f", {field['description']}" if "description" in field else "")
