"""Chat rendering: messages to ids and ids to turns. The renderers, and what they have in common.

    open(messages) -> prompt --engine--> completion --parse--> turn --environment--> messages
                        ^                                                                |
                        +-------- seen + extend(seen, transcript), or a fork <-----------+

ChatRenderer speaks the Nemotron 3 format with our own tokenizers; TemplateRenderer speaks whatever a Hugging Face tokenizer's
own chat template says. A conversation grows by appending: what was sampled is kept as it was sampled, and only what is new
is encoded. Control tokens in *data* are plain text: only a renderer can place a control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..messages import Message, ToolSchema, Turn
from .nemotron import ChatRenderer
from .templates import TemplateRenderer
from .turns import Effort

__all__ = ["ChatRenderer", "Effort", "Renderer", "TemplateRenderer"]


class Renderer(Protocol):
    """Between messages and ids. A conversation keeps its tools, its reasoning (on or off) and its effort."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a completion, the usual one first."""
        ...

    @property
    def think_begin_id(self) -> int | None:
        """The id by which the policy begins to reason. None where the prompt does it, or where there is no such token."""
        ...

    @property
    def think_end_id(self) -> int | None:
        """The id that ends reasoning. None where the format has no such token: then no budget can be kept."""
        ...

    @property
    def call_id(self) -> int | None:
        """The id that begins a tool call, which ends reasoning too."""
        ...

    def open(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[int]:
        """The ids of a conversation from its beginning, and the generation prompt."""
        ...

    def extend(
        self,
        seen: Sequence[int],
        transcript: Sequence[Message],
        num_new: int,
        tools: Sequence[ToolSchema] = (),
        *,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[int] | None:
        """The ids to append to `seen`, the prompt and the completion so far, for the last `num_new` messages of the transcript
        and the next generation prompt. None where they change what was already said: the caller forks with `open`."""
        ...

    def completion(self, turn: Turn, *, reasoning: bool = True) -> list[int]:
        """The ids that a policy would have sampled to take this turn, after the generation prompt."""
        ...

    def closing_ids(self) -> list[int]:
        """What an engine forces to end reasoning."""
        ...

    def parse(self, ids: Sequence[int], *, reasoning: bool = True) -> Turn:
        """The turn of a completion's ids. Never raises; linear in the ids."""
        ...

    def line_end_ids(self) -> list[int]:
        """The tokens that end a line: where a budget may close reasoning."""
        ...

    def sentence_end_ids(self) -> list[int]:
        """The tokens that end a sentence."""
        ...
