"""Tools: a typed method becomes something a policy can call.

The signature is the contract: annotations and docstring give the JSON schema shown to the policy, and the same
annotations type the arguments that come back as text.

    @tool
    @tool(writes=True, timeout_s=5.0)      it changes state; a limit of its own
    @tool(quick=True)                      plain code that returns at once: it runs on the event loop
    @tool(isolated=True)                   in a killable process: see isolation.py
    @tool(by="user")                       the simulated user's own tool, not shown to the policy
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_type_hints, overload

from ..messages import ToolSchema
from .declaration import DeclarationError, parameters_of
from .guess import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, TypeAdapter

F = TypeVar("F", bound=Callable[..., Any])
By = Literal["policy", "user"]
_MAX_PROBLEMS = 600
"""Characters of an answer to bad arguments: a policy may send a thousand of them."""


class ToolError(Exception):
    """A tool's own refusal ("no such order"): it becomes an observation, not a fault."""


@dataclass(frozen=True)
class Tool:
    """A declared tool. Its schema and the model that types its arguments are made when first needed."""

    name: str
    method: Callable[..., Any]
    writes: bool = False
    timeout_s: float | None = None
    quick: bool | None = None
    isolated: bool = False
    by: By = "policy"

    @cached_property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.method)

    @cached_property
    def schema(self) -> ToolSchema:
        """What the policy is told. DeclarationError where an annotation cannot be described."""
        described = _argument_docs(self.method.__doc__ or "")
        parameters = _plain(self.model.model_json_schema())
        properties = parameters.setdefault("properties", {})
        for name, text in described.arguments.items():
            if name in properties:
                properties[name].setdefault("description", text)
        kept = {"type": "object", "properties": properties, "required": parameters.get("required", [])}
        if "$defs" in parameters:
            kept["$defs"] = parameters["$defs"]
        return ToolSchema(self.name, described.text, kept)

    @cached_property
    def model(self) -> type[BaseModel]:
        """The arguments as a pydantic model: no others are taken."""
        from pydantic import ConfigDict, Field, create_model
        from pydantic.errors import PydanticUserError

        try:
            hints = get_type_hints(self.method, include_extras=True)
        except (NameError, TypeError) as error:
            raise DeclarationError(
                self.method,
                f"the annotations of tool {self.name!r} cannot be read ({error})",
                "import the type, or define it at module level",
            ) from None
        fields: dict[str, Any] = {}
        for parameter in parameters_of(self.method):
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            # An alias, since pydantic keeps names such as `schema` and `model_x` for itself.
            fields[f"{parameter.name}_"] = (hints[parameter.name], Field(default, alias=parameter.name))
        try:
            return create_model(self.name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
        except (PydanticUserError, TypeError) as error:
            problem = str(error).splitlines()[0]
            raise DeclarationError(
                self.method,
                f"an annotation of tool {self.name!r} has no JSON schema ({problem})",
                "use text, numbers, bool, Literal, Optional, lists, dicts, dataclasses or pydantic models",
            ) from None

    @cached_property
    def adapters(self) -> Mapping[str, TypeAdapter[Any]]:
        """How each argument is read where it came as text."""
        from pydantic import TypeAdapter

        hints = get_type_hints(self.method, include_extras=True)
        return {parameter.name: TypeAdapter(hints[parameter.name]) for parameter in parameters_of(self.method)}

    @cached_property
    def textual(self) -> frozenset[str]:
        """The arguments that are text whatever the text says: "7" stays "7"."""
        properties = self.schema.parameters["properties"]
        kinds = {
            name: {kind.get("type", "const") for kind in found.get("anyOf", [found])}
            for name, found in properties.items()
        }
        return frozenset(
            name
            for name, found in kinds.items()
            if found == {"string"} or ("string" in found and found <= {"string", "null"})
        )

    def typed(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as the signature wants them; a ToolError says what came and what would do."""
        try:
            values = {key: self._read(key, value) for key, value in arguments.items()}
            model = self.model.model_validate(values)
        except ValueError as error:
            from pydantic import ValidationError

            if not isinstance(error, ValidationError):
                raise
            raise ToolError(f"bad arguments for {self.name}: {self._problems(error)}") from None
        except RecursionError:
            raise ToolError(f"bad arguments for {self.name}: nested too deeply") from None
        return {key[:-1]: value for key, value in model.__dict__.items()}

    def _read(self, key: str, value: Any) -> Any:
        """Text stays text where the schema says string; elsewhere it is read as JSON if it can be."""
        if not isinstance(value, str) or key not in self.adapters:
            return value
        if key in self.textual:
            return None if value == "null" and self._nullable(key) else value
        from pydantic import ValidationError

        try:
            return self.adapters[key].validate_json(value)
        except ValidationError:
            return value

    def _nullable(self, key: str) -> bool:
        kinds = self.schema.parameters["properties"][key].get("anyOf", ())
        return any(kind.get("type") == "null" for kind in kinds)

    def _problems(self, error: Any) -> str:
        told = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" + self._hint(e)
            for e in error.errors(include_url=False, include_input=False)[:8]
        )
        return told if len(told) <= _MAX_PROBLEMS else told[:_MAX_PROBLEMS] + " ..."

    def _hint(self, error: Any) -> str:
        if error["type"] != "extra_forbidden":
            return ""
        known = [parameter.name for parameter in parameters_of(self.method)]
        return f" ({nearest(str(error['loc'][0])[:60], known)})"


@overload
def tool(method: F) -> F: ...
@overload
def tool(
    *,
    writes: bool = False,
    timeout_s: float | None = None,
    quick: bool | None = None,
    isolated: bool = False,
    by: By = "policy",
) -> Callable[[F], F]: ...
def tool(method: Any = None, **options: Any) -> Any:
    """Mark a method of an Env as a tool. It needs a docstring and an annotation on each argument.

    `quick` promises that plain code returns at once; unset, the environment's `quick_tools` decides.
    """
    if method is None:
        return lambda function: _marked(function, **options)
    return _marked(method)


def _marked(method: F, **options: Any) -> F:
    found = Tool(method.__name__, method, **options)
    name = found.name
    if not (method.__doc__ or "").strip():
        raise DeclarationError(method, f"tool {name!r} needs a docstring", "say in a line what it does for the policy")
    if found.by not in ("policy", "user"):
        raise DeclarationError(method, f"tool {name!r} is by {found.by!r}", "a tool is by 'policy' or by 'user'")
    if found.timeout_s is not None and not 0 < found.timeout_s < float("inf"):
        raise DeclarationError(
            method, f"tool {name!r} has timeout_s={found.timeout_s!r}", "a timeout is a positive number of seconds"
        )
    if found.is_async and (found.isolated or found.quick):
        raise DeclarationError(
            method,
            f"tool {name!r} is async and {'isolated' if found.isolated else 'quick'}",
            "only plain functions are either",
        )
    parameters = list(inspect.signature(method).parameters.values())
    if not parameters or parameters[0].name != "self":
        raise DeclarationError(method, f"tool {name!r} has no self", "a tool is a method: write self first")
    for parameter in parameters[1:]:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise DeclarationError(
                method, f"tool {name!r} takes {parameter}, which cannot be described to a policy", "name each argument"
            )
        if parameter.annotation is inspect.Parameter.empty:
            raise DeclarationError(
                method,
                f"tool {name!r} has an unannotated argument",
                f"annotate the argument {parameter.name!r}: as in x: int",
            )
    method.__swannery_tool__ = found  # type: ignore[attr-defined]
    return method


def tools_of(cls: type) -> dict[str, Tool]:
    """The tools that a class declares or inherits, in order of definition."""
    found: dict[str, Tool] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            declared = getattr(member, "__swannery_tool__", None)
            if isinstance(declared, Tool):
                found[name] = declared
            else:
                found.pop(name, None)  # a subclass that overrides a tool without @tool takes it away
    return found


@dataclass(frozen=True)
class _Docs:
    text: str
    arguments: dict[str, str]


_ARGUMENT = re.compile(r"(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Raises|Yields|Example|Examples):\s*$")


def _argument_docs(docstring: str) -> _Docs:
    """A docstring's text, and what its `Args:` section says of each argument."""
    text: list[str] = []
    arguments: dict[str, str] = {}
    section, current, indent = "", "", 0
    for line in inspect.cleandoc(docstring).splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            match = _ARGUMENT.match(line.strip())
            if match and (not current or depth <= indent):
                current, indent = match[1], depth
                arguments[current] = match[2].strip()
            elif current:
                arguments[current] = f"{arguments[current]} {line.strip()}".strip()
        elif not section:
            text.append(line)
    return _Docs("\n".join(text).strip(), arguments)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without the titles that pydantic adds: tokens that say nothing."""
    cleaned: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            cleaned[key] = {name: _plain(found) for name, found in value.items()}
        elif key in ("default", "const", "enum", "examples"):  # the author's own values
            cleaned[key] = value
        elif isinstance(value, dict):
            cleaned[key] = _plain(value)
        elif isinstance(value, list):
            cleaned[key] = [_plain(item) if isinstance(item, dict) else item for item in value]
        elif key != "title":
            cleaned[key] = value
    return cleaned
