"""structured/Output-v0: facts in prose, to be written as one exact document.

The document is read by its format's own parser and must equal the expected value, types included. Nothing is forgiven that
a program on the other end would stumble over: a code fence, a word of greeting, a key twice, a number in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...messages import Task, Turn
from ...rewards.structure import FORMATS, mistake, same_document
from ..cheat import cheat
from ..env import Env
from ..guess import nearest
from ..registry import register
from ..reward import reward
from .drafts import Drafter
from .outline import asked
from .writing import write

_FORMATS = {1: ("json",), 2: ("json", "yaml"), 3: FORMATS}


@register("structured/Output-v0", reasoning_budgets=(None, 0))
class Output(Env):
    """`formats` to draw from; each `level` has its own default."""

    levels = (1, 2, 3)
    floor = 0.0
    fences, mistypes, forgets = 0.2, 0.2, 0.2

    def __init__(self, *, level: int = 1, formats: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if level not in self.levels:
            raise ValueError(f"Output: level is 1, 2 or 3, got {level!r}")
        given = _FORMATS[level] if formats is None else (formats,) if isinstance(formats, str) else tuple(formats)
        for format in given:
            if format not in FORMATS:
                raise ValueError(f"Output: no format named {format!r}. {nearest(str(format), FORMATS)}")
        if not given:
            raise ValueError(f"Output: give at least one format of {', '.join(FORMATS)}, got {formats!r}")
        self.level, self.formats = level, given

    def sample_task(self, rng: np.random.Generator) -> Task:
        format = self.formats[int(rng.integers(len(self.formats)))]
        draft = Drafter(rng, self.level).draft(table_only=format == "csv")
        value, schema = draft.value, draft.schema
        if format == "xml":
            if self.level > 1:
                value, schema = _first_as_attribute(value, schema)
            prompt = asked(format, draft.root, schema)
            value, schema = {draft.root: value}, {"type": "object", "properties": {draft.root: schema}}
        else:
            prompt = asked(format, draft.root, schema)
        return Task(
            f"{draft.prose}\n\n{prompt}",
            write(format, value, schema),
            difficulty=float(self.level),
            metadata={"format": format, "expected": value, "schema": schema},
        )

    @reward
    def exact(self, turn: Turn) -> bool:
        given = self.task.metadata
        return same_document(given["format"], turn.answer, given["expected"], given["schema"])

    def mistake(self, answer: str) -> str | None:
        """What is wrong with an answer, for those who look into a failure; None where it is right."""
        given = self.task.metadata
        return mistake(given["format"], answer, given["expected"], given["schema"])

    def oracle(self) -> Turn:
        return Turn(self.task.answer)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """The right facts; but often in a code fence, with a number as text, or with a field forgotten."""
        shares = (self.fences, self.mistypes, self.forgets)
        plan = str(rng.choice(["fences", "mistypes", "forgets", "sound"], p=(*shares, 1 - sum(shares))))
        given = self.task.metadata
        if plan == "fences":
            return Turn(f"```{given['format']}\n{self.task.answer}\n```")
        value = given["expected"]
        if plan == "mistypes" and given["format"] not in ("xml", "csv"):
            value = {key: str(found) if type(found) in (int, float) else found for key, found in value.items()}
        if plan != "sound" and value == given["expected"]:
            value = _without_last(value)
        return Turn(write(given["format"], value, given["schema"]))

    @cheat
    def echoes(self) -> Turn:
        """The structure that was asked for, given back."""
        lines = self.task.messages[-1].text.split("\n\n", 1)[1].splitlines()
        return Turn("\n".join(lines[1:-1]))

    @cheat
    def fills_in(self) -> Turn:
        """A document that is valid under the schema, and says nothing."""
        given = self.task.metadata
        return Turn(write(given["format"], _blank(given["schema"]), given["schema"]))

    @cheat
    def hedges(self) -> Turn:
        """Two documents, one of them right."""
        return Turn(f"{self.task.answer}\n{self.task.answer}")

    @cheat
    def chats(self) -> Turn:
        """The right document among words, for graders that go looking for it."""
        return Turn(f"Here you are:\n```{self.task.metadata['format']}\n{self.task.answer}\n```\nAnything else?")

    @cheat
    def copies(self) -> Turn:
        """Every value that the prose holds under every key, for graders that look for what they expect."""
        given = self.task.metadata
        found = " ".join(re.findall(r"[A-Z0-9][\w.-]*", self.task.messages[-1].text))
        return Turn(write(given["format"], _blank(given["schema"], found), given["schema"]))


def _first_as_attribute(value: dict[str, Any], schema: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document with its first field as an XML attribute."""
    first = next(iter(schema["properties"]))

    def renamed(fields: dict[str, Any]) -> dict[str, Any]:
        return {f"@{name}" if name == first else name: found for name, found in fields.items()}

    required = [f"@{name}" if name == first else name for name in schema["required"]]
    return renamed(value), {**schema, "properties": renamed(schema["properties"]), "required": required}


def _without_last(value: Any) -> Any:
    """A document that lacks its last field, entry, or, under a single root, the root's."""
    if isinstance(value, list):
        return value[:-1]
    if len(value) == 1:
        ((root, content),) = value.items()
        return {root: _without_last(content)} if isinstance(content, dict) else {}
    return dict(list(value.items())[:-1])


def _blank(schema: dict[str, Any], text: str = "?") -> Any:
    """The least that a schema takes, with one text everywhere."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "object":
        return {name: _blank(found, text) for name, found in schema["properties"].items()}
    if kind == "array":
        return [_blank(schema["items"], text)]
    return {"integer": 0, "number": 0.5, "boolean": False, "string": text}[kind]
