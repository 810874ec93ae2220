"""Documents written out, as a careful person would: what the oracle answers. Reading them back is `rewards.structure`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

_PLAIN = re.compile(r"[A-Za-z][A-Za-z ]*[A-Za-z]")
_RESERVED = ("true", "false", "yes", "no", "on", "off", "null")


def write(format: str, value: Any, schema: dict[str, Any]) -> str:
    """The value as a document. For XML it is `{root: value}`, for CSV a list of rows, whose columns the schema names."""
    if format == "json":
        return json.dumps(value, ensure_ascii=False, indent=2)
    if format == "yaml":
        return "\n".join(_yaml(value, ""))
    if format == "toml":
        return "\n".join(_toml(value, "")).strip()
    if format == "xml":
        ((root, content),) = value.items()
        return "\n".join(_xml(root, content, ""))
    return _csv(schema["items"]["properties"], value)


def _leaf(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _yaml(value: Any, indent: str) -> Iterator[str]:
    for key, found in value.items():
        if isinstance(found, dict):
            yield f"{indent}{key}:"
            yield from _yaml(found, indent + "  ")
        elif isinstance(found, list):
            yield f"{indent}{key}:" + ("" if found else " []")
            for entry in found:
                lines = list(_yaml(entry, "")) if isinstance(entry, dict) else [_yaml_leaf(entry)]
                yield f"{indent}  - {lines[0]}"
                yield from (f"{indent}    {line}" for line in lines[1:])
        else:
            yield f"{indent}{key}: {_yaml_leaf(found)}"


def _yaml_leaf(value: Any) -> str:
    if not isinstance(value, str):
        return _leaf(value)
    plain = _PLAIN.fullmatch(value) and value.lower() not in _RESERVED
    return value if plain else json.dumps(value, ensure_ascii=False)


def _toml(value: dict[str, Any], path: str) -> Iterator[str]:
    """Plain values first: what follows a table's header belongs to it."""
    tables = {key: found for key, found in value.items() if _holds_tables(found)}
    for key, found in value.items():
        if key not in tables:
            yield f"{key} = {_toml_leaf(found)}"
    for key, found in tables.items():
        name = f"{path}{key}"
        for entry in found if isinstance(found, list) else [found]:
            yield f"\n[[{name}]]" if isinstance(found, list) else f"\n[{name}]"
            yield from _toml(entry, f"{name}.")


def _holds_tables(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _toml_leaf(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_leaf, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _leaf(value)


def _xml(tag: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, list):
        pairs, head = [("item", entry) for entry in value], ""
    elif isinstance(value, dict):
        pairs = [(key, found) for key, found in value.items() if not key.startswith("@")]
        head = "".join(f" {key[1:]}={quoteattr(_leaf(found))}" for key, found in value.items() if key.startswith("@"))
    else:
        yield f"{indent}<{tag}>{escape(_leaf(value))}</{tag}>"
        return
    yield f"{indent}<{tag}{head}>"
    for key, found in pairs:
        yield from _xml(key, found, indent + "  ")
    yield f"{indent}</{tag}>"


def _csv(columns: Iterable[str], rows: list[dict[str, Any]]) -> str:
    """Rows under a header; what a row lacks is an empty cell."""
    out, columns = io.StringIO(), list(columns)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_leaf(row[name]) if name in row else "" for name in columns] for row in rows)
    return out.getvalue().strip("\n")
