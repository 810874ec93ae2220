"""Tools: a typed method becomes something a policy can call.

The signature is the contract: annotations and docstring give the JSON schema shown to the policy, and the same
annotations type the arguments that come back as text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from ..messages import ToolSchema
from .guess import nearest

F = TypeVar("F", bound=Callable[..., Any])


class ToolError(Exception):
    """A tool's own refusal ("no such order"): it becomes an observation, not a fault."""


@dataclass(frozen=True)
class Tool:
    """A registered tool: the method's name, its schema, and a model that types its arguments."""

    name: str
    schema: ToolSchema
    arguments: type[BaseModel]
    adapters: Mapping[str, TypeAdapter[Any]]
    is_async: bool

    def typed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the signature wants them; a ToolError says what came and what would do."""
        values = {key: self._read(key, value) for key, value in arguments.items()}
        try:
            model = self.arguments.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" + self._hint(e) for e in error.errors(include_url=False)
            )
            raise ToolError(f"bad arguments for {self.name}: {problems}") from None
        return {key: getattr(model, key) for key in self.arguments.model_fields}

    def _read(self, key: str, value: Any) -> Any:
        """Text stays text where the schema says string; elsewhere it is read as JSON if it can be."""
        if key not in self.adapters or not isinstance(value, str):
            return value
        if self.schema.parameters["properties"][key].get("type") == "string":
            return value
        try:
            return self.adapters[key].validate_json(value)
        except ValidationError:
            return value

    def _hint(self, error: Any) -> str:
        if error["type"] != "extra_forbidden":
            return ""
        return f" ({nearest(str(error['loc'][0]), self.arguments.model_fields)})"


def tool(method: F) -> F:
    """Mark a method of an Env as a tool. It needs a docstring and an annotation on each argument."""
    if not (method.__doc__ or "").strip():
        raise TypeError(f"@tool {method.__name__} needs a docstring: it is what the policy reads about the tool")
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        if parameter.annotation is inspect.Parameter.empty:
            raise TypeError(f"@tool {method.__name__}: annotate the argument {parameter.name!r}, as in x: int")
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"@tool {method.__name__}: {parameter} cannot be described to a policy; name each argument")
    method.__swannery_tool__ = True  # type: ignore[attr-defined]
    return method


def tools_of(cls: type) -> dict[str, Tool]:
    """The tools that a class declares or inherits, in order of definition."""
    found: dict[str, Tool] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if getattr(member, "__swannery_tool__", False):
                found[name] = _describe(name, member)
    return found


def _describe(name: str, method: Callable[..., Any]) -> Tool:
    hints = get_type_hints(method)
    fields: dict[str, Any] = {}
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    schema = model.model_json_schema()
    properties = {
        key: {k: v for k, v in value.items() if k != "title"} for key, value in schema.get("properties", {}).items()
    }
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": schema.get("required", [])}
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    return Tool(
        name=name,
        schema=ToolSchema(name, inspect.cleandoc(method.__doc__ or ""), parameters),
        arguments=model,
        adapters={key: TypeAdapter(hint) for key, (hint, _) in fields.items()},
        is_async=inspect.iscoroutinefunction(method),
    )
