"""Simulated users: a finite-state one that never errs, and one that a language model plays.

    user = ScriptedUser({"start": [Rule("order number", say="It is {order}.", go="waits")], "waits": [...]})
    user = RespondingUser("You bought {item} and want your money back.")         over the Responder given to make()

Both may hold tools of their own (`@tool(by="user")`). What a user does wrong is told apart from what the policy does wrong:
a scripted user who was never understood has `failed`, and a crash behind a Responder is the fault `user_crash`.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..messages import EnvironmentFault, Message, Responder, ToolCall, Turn
from .calling import call_tool

if TYPE_CHECKING:
    from .env import Env

END = "<end>"
"""The state in which the user has left."""


class User(Protocol):
    """Whoever answers a turn that calls no tool. An episode has its own copy."""

    awaits: bool

    def fresh(self) -> User: ...
    def branch(self) -> User: ...
    async def reply(self, env: Env, turn: Turn) -> str | None: ...


@dataclass(frozen=True)
class Rule:
    """One thing a user does. `when` is searched in the turn's answer (case ignored) or asked `(env, turn) -> bool`."""

    when: str | Callable[[Any, Turn], bool] = ""
    say: str = ""
    """A template over the task's metadata, and `{result}` of the call."""
    go: str = ""
    """The next state: "" stays, END ends the episode."""
    call: ToolCall | None = None
    """A tool of the user's own, carried out first. Text arguments are templates too."""

    def matches(self, env: Env, turn: Turn) -> bool:
        if callable(self.when):
            return bool(self.when(env, turn))
        return re.search(self.when, turn.answer, re.IGNORECASE) is not None


@dataclass
class ScriptedUser:
    """A finite-state user. The first rule of the present state that matches is what the user does.

    Where none matches the user says `otherwise`, and leaves after `patience` such turns: `failed` then says so, for an
    evaluation that tells user-caused from agent-caused failures.
    """

    states: Mapping[str, Sequence[Rule]]
    start: str = "start"
    otherwise: str = "Sorry, I do not follow."
    patience: int = 3
    state: str = field(default="", init=False)
    misses: int = field(default=0, init=False)
    failed: bool = field(default=False, init=False)
    awaits = False

    def __post_init__(self) -> None:
        known = {*self.states, END}
        wanted = {self.start, *(rule.go for rules in self.states.values() for rule in rules if rule.go)}
        if missing := sorted(wanted - known):
            raise ValueError(f"ScriptedUser: no state {missing[0]!r}; known: {', '.join(self.states)} and END")
        self.state = self.start

    def fresh(self) -> ScriptedUser:
        user = copy.copy(self)
        user.state, user.misses, user.failed = self.start, 0, False
        return user

    def branch(self) -> ScriptedUser:
        return copy.copy(self)

    async def reply(self, env: Env, turn: Turn) -> str | None:
        """What the user says to a turn; None when the user leaves."""
        for rule in self.states.get(self.state, ()):
            if rule.matches(env, turn):
                return await self._do(env, rule)
        self.misses += 1
        if self.misses >= self.patience:
            self.state, self.failed = END, True
            return None
        return self.otherwise

    async def _do(self, env: Env, rule: Rule) -> str | None:
        words = dict(env.task.metadata)
        if rule.call is not None:
            record = await call_tool(env, _filled(rule.call, words), by="user", threads=env.in_loop)
            env.calls.append(record)
            words["result"] = record.result
        self.state = rule.go or self.state
        return None if rule.go == END else rule.say.format_map(words)


def _filled(call: ToolCall, words: Mapping[str, Any]) -> ToolCall:
    """The call with its templates filled; an argument that is nothing but `{name}` keeps that value's type."""
    values = {}
    for key, value in call.arguments.items():
        if isinstance(value, str):
            whole = re.fullmatch(r"\{(\w+)\}", value)
            value = words[whole[1]] if whole else value.format_map(words)
        values[key] = value
    return dataclasses.replace(call, arguments=values)


_STYLE = (
    "You are the customer in this conversation, not the assistant. Stay in your role, answer in one or two sentences, "
    "tell only what you are asked for, and write {end} alone once you have what you wanted or give up."
)


@dataclass
class RespondingUser:
    """A user played by a language model: a drop-in for a scripted one.

    `persona` is a template over the task's metadata. The Responder comes from `make(id, responder=...)`.
    """

    persona: str
    end: str = "[end]"
    max_calls: int = 4
    """Calls of the user's own tools before each answer."""
    awaits = True

    def fresh(self) -> RespondingUser:
        return self

    def branch(self) -> RespondingUser:
        return self

    async def reply(self, env: Env, turn: Turn) -> str | None:
        """What the user says to a turn; None when the user leaves."""
        tools = [tool.schema for tool in env.tools.values() if tool.by == "user"]
        heard = self._heard(env)
        answer = Message("assistant")
        for _ in range(self.max_calls + 1):
            answer = await self._ask(env, heard, tools)
            if not answer.tool_calls:
                break
            heard.append(answer)
            for call in answer.tool_calls:
                record = await call_tool(env, call, by="user", threads=env.in_loop)
                env.calls.append(record)
                heard.append(Message("tool", record.result))
        text = answer.text.strip()
        return None if self.end in text else text

    async def _ask(self, env: Env, heard: list[Message], tools: Sequence[Any]) -> Message:
        responder: Responder | None = env.responder
        if responder is None:
            raise EnvironmentFault("user_crash", "this environment's user needs a model: make(id, responder=...)")
        return await responder(heard, tools, env.limits)

    def _heard(self, env: Env) -> list[Message]:
        """The conversation from the other side: what the policy said is the user's `user`."""
        system = f"{self.persona.format_map(dict(env.task.metadata))}\n\n{_STYLE.format(end=self.end)}"
        heard = [Message("system", system)]
        for message in env.transcript:
            if message.role == "assistant" and message.text:
                heard.append(Message("user", message.text))
            elif message.role == "user":
                heard.append(Message("assistant", message.text))
        return heard
