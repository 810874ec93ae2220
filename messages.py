"""The vocabulary that passes between rooms: messages, tool calls, turns, tasks, limits, outcomes.

    Task --reset--> Messages --policy--> Turn --step--> Messages ... --> Outcome

Everything here is plain frozen data and imports the standard library only, so an environment author needs neither torch
nor any other room. The one protocol, `Responder`, is how an environment speaks with a language model (a judge, a
simulated user) without importing policies.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True)
class Text:
    """A text part of a message; any Unicode."""

    text: str


@dataclass(frozen=True)
class Audio:
    """An audio part: mono little-endian float32 samples in [-1, 1], kept as bytes so that messages stay hashable."""

    samples: bytes = field(repr=False)
    sampling_rate: int = 16_000

    def __post_init__(self) -> None:
        if self.sampling_rate <= 0 or not self.samples or len(self.samples) % 4:
            raise ValueError(
                f"audio needs float32 samples and a positive sampling rate, got {len(self.samples)} bytes "
                f"at {self.sampling_rate} Hz"
            )

    @property
    def duration_s(self) -> float:
        return len(self.samples) / 4 / self.sampling_rate

    @property
    def content_hash(self) -> str:
        """A name for the content: media spans of a Segment point at it."""
        return hashlib.sha256(self.sampling_rate.to_bytes(4, "little") + self.samples).hexdigest()[:16]


Part = Text | Audio


@dataclass(frozen=True)
class ToolCall:
    """One call: the tool's name and its arguments. Textual arguments are typed by the tool's schema when it runs."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, repr(sorted(self.arguments.items()))))


@dataclass(frozen=True)
class ToolSchema:
    """What a policy is told about a tool. `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def __hash__(self) -> int:
        return hash((self.name, self.description))


@dataclass(frozen=True)
class Message:
    """One message of a conversation. A plain string as `content` becomes a single Text part."""

    role: Role
    content: tuple[Part, ...] | str = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant", "tool"):
            raise ValueError(f"a message's role is system, user, assistant or tool, got {self.role!r}")
        if isinstance(self.content, str):
            object.__setattr__(self, "content", (Text(self.content),) if self.content else ())

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True)
class Turn:
    """An action: what a policy said in one completion, parsed.

    `malformed` holds the parser's verdict where a tool call could not be read: the environment shows it to the policy.
    `cut` marks a completion that ran out of tokens: what it was about to say is unknown, so it earns nothing.
    """

    answer: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    malformed: str | None = None
    cut: bool = False

    @property
    def message(self) -> Message:
        return Message("assistant", self.answer, reasoning=self.reasoning, tool_calls=self.tool_calls)


@dataclass(frozen=True)
class Task:
    """One problem: the prompt (a string is one user message), the reference answer, and what graders may need."""

    prompt: str | tuple[Message, ...]
    answer: str = ""
    difficulty: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    gold: tuple[ToolCall, ...] = ()
    """The tool calls that solve the task, in an order that works: what the state afterwards is compared with."""

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message("user", self.prompt),) if isinstance(self.prompt, str) else self.prompt


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an environment allows. None means no limit of its own."""

    max_turns: int = 1
    max_tool_calls: int | None = None
    tool_timeout_s: float = 10.0
    grading_timeout_s: float = 10.0
    reply_timeout_s: float = 60.0
    """For the user's answer, which a language model may give."""
    start_timeout_s: float = 60.0
    """For drawing a task and setting an episode up."""
    max_turn_chars: int = 1_000_000
    """Longer turns are answered with an error instead of being read."""
    reasoning_budgets: tuple[int | None, ...] = (None,)
    """Reasoning budgets, in tokens a turn, that training samples from: None is unlimited, 0 is reasoning off."""

    def __post_init__(self) -> None:
        if self.max_turns < 1:
            raise ValueError(f"max_turns must be at least 1, got {self.max_turns}")
        for name in ("tool_timeout_s", "grading_timeout_s", "reply_timeout_s", "start_timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a positive number of seconds, got {getattr(self, name)!r}")
        if not self.reasoning_budgets or any(b is not None and b < 0 for b in self.reasoning_budgets):
            raise ValueError(f"reasoning_budgets needs None or token counts >= 0, got {self.reasoning_budgets}")

    def replace(self, **changes: Any) -> Limits:
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Outcome:
    """How an episode ended: exactly one of terminated, truncated(reason), fault(kind)."""

    kind: Literal["terminated", "truncated", "fault"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.kind}({self.reason})" if self.reason else self.kind


TERMINATED = Outcome("terminated")


class EnvironmentFault(Exception):
    """The infrastructure failed, not the policy: a tool or grader crashed, a reward was no number, a server died.

    A fault is never a reward. The runner retries the episode with a fresh environment, then leaves the rollout out
    and counts it by `kind`.
    """

    KINDS = (
        "tool_crash",
        "tool_timeout",
        "grader_crash",
        "grader_timeout",
        "bad_reward",
        "environment_crash",
        "environment_timeout",
        "user_crash",
        "user_timeout",
        "judge_unreadable",
        "connection_lost",
        "process_died",
        "prompt_too_long",
        "generation_timeout",
        "replay_differs",
    )
    """What can fail. Anything else is a mistake in our own code."""

    def __init__(self, kind: str, detail: str = "") -> None:
        if kind not in self.KINDS:
            raise ValueError(f"no fault kind {kind!r}; known: {', '.join(self.KINDS)}")
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.detail = detail


class Responder(Protocol):
    """Answers a conversation: how a judge or a simulated user is handed to an environment."""

    async def __call__(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema] = (), limits: Limits | None = None
    ) -> Message: ...


def is_unicode(text: str) -> bool:
    """Whether text can be written down: Python's strings may hold lone surrogates, which no encoding knows."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def legible(text: str) -> str:
    """Text with lone surrogates replaced by U+FFFD."""
    return text if is_unicode(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
