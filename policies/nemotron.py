"""The Nemotron 3 chat format: messages to ids and ids to turns, for our own tokenizers.

    <|im_start|>system\\n[prompt][tools]<|im_end|>\\n
    <|im_start|>user\\n...<|im_end|>\\n
    <|im_start|>assistant\\n<think>\\n[reasoning]\\n</think>\\n[answer or calls]<|im_end|>\\n

Source: tinker-cookbook's public renderer of the format. Pieces of text are encoded apart, so a rendered piece has the same
ids wherever it stands, and a conversation grows by appending. Two things change what was already said, and then `extend`
returns None and the caller forks: old reasoning is dropped at a new user turn (`drop_past_reasoning`), and the hint of a
lower effort moves to the newest user message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..messages import Message, ToolSchema, Turn, legible
from .pieces import encode_data
from .tokenizer import CONTROL_TOKENS, TextRecorder, Tokenizer
from .toolcalls import NEMOTRON, parse_call, write_call
from .turns import Effort, Kind, marked_text, read_turn

_SPELT = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))


ROLES = ("system", "user", "assistant")


class ChatRenderer:
    """Renders for one tokenizer. `stop_ids` end a completion; `think_end_id` and `call_id` end reasoning.

    For a turn that the format can say, `parse(completion(turn))` is that turn, its values as text and its reasoning never None
    where reasoning is on. For ids that the policy sampled, `completion(parse(ids))` need not be those ids: the same text has
    many encodings, and blanks around calls or reasoning are not kept. Nothing depends on it, since sampled ids are kept as
    they are and only what follows is encoded.
    """

    def __init__(self, tokenizer: Tokenizer | TextRecorder, *, drop_past_reasoning: bool = False) -> None:
        self.tokenizer = tokenizer
        self.drop_past_reasoning = drop_past_reasoning
        control = tokenizer.control
        self.start_id, self.end_id = control["<|im_start|>"], control["<|im_end|>"]
        self.think_id, self.think_end_id = control["<think>"], control["</think>"]
        self.think_begin_id = None  # the prompt opens reasoning
        self.call_id, self.call_end_id = control["<tool_call>"], control["</tool_call>"]
        self.stop_ids = (self.end_id,)
        self._control = set(control.values())
        self._kinds = {control[kind.value]: kind for kind in Kind}
        self._newline = tokenizer.encode("\n")
        self._roles = {role: tokenizer.encode(f"{role}\n") for role in ROLES}

    # Conversations to ids.

    def open(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[int]:
        """The ids of a conversation from its beginning, and the generation prompt. A system block is always there."""
        system, rest = _apart(messages)
        ids = self._block("system", self._text(system) + self._tools(tools, after_text=bool(system)))
        return ids + self._blocks(rest, 0, effort) + self._generation_prompt(reasoning)

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
        """What follows `seen`, which ends with a completion: its closing, the last `num_new` messages of the transcript and the
        next generation prompt. None where they change what was already said: render anew with `open` and fork."""
        _, rest = _apart(transcript)
        first_new = len(rest) - num_new
        assert 0 < first_new <= len(rest), "seen ends with a completion, so an assistant's message is not new"
        users = [index for index, message in enumerate(rest) if message.role == "user"]
        past_users = [index for index in users if index < first_new]
        if len(users) > len(past_users):
            since = past_users[-1] if past_users else 0
            if effort != "full" and past_users:
                return None
            if self.drop_past_reasoning and any(m.reasoning is not None for m in rest[since:first_new]):
                return None
        said = rest[first_new - 1]
        return self._closing(seen, said) + self._blocks(rest, first_new, effort) + self._generation_prompt(reasoning)

    def completion(self, turn: Turn, *, reasoning: bool = True) -> list[int]:
        """The ids that a policy would have sampled to take this turn, after the generation prompt. ValueError for a call that
        could not be read back."""
        for call in turn.tool_calls:
            read = parse_call(write_call(call))
            if isinstance(read, str) or (read.name, list(read.arguments)) != (call.name, list(call.arguments)):
                why = read if isinstance(read, str) else "a value holds a line </parameter>"
                raise ValueError(f"the call of {call.name!r} cannot be said in this chat format: {why}")
        return [*self._turn(turn, reasoning), self.end_id]

    def closing_ids(self) -> list[int]:
        """What the engine forces to end reasoning: a newline (left out after one), the end token, a newline."""
        return [*self._newline, self.think_end_id, *self._newline]

    # Ids to turns.

    def parse(self, ids: Sequence[int], *, reasoning: bool = True) -> Turn:
        """The turn of a completion's ids; `reasoning` says whether the prompt opened it. Never raises, linear in the ids.

        What cannot be read is kept as text, with the verdict in `malformed`; a completion that does not end with the end token
        is `cut`.
        """
        cut = not len(ids) or ids[-1] not in self.stop_ids
        kept = (token for index, token in enumerate(ids) if cut or index < len(ids) - 1)
        return read_turn(marked_text(kept, self._kinds, self.tokenizer.decode), NEMOTRON, reasoning=reasoning, cut=cut)

    # What an engine must know to keep a reasoning budget.

    def line_end_ids(self) -> list[int]:
        """The tokens that end a line."""
        return self.tokenizer.newline_ids() if isinstance(self.tokenizer, Tokenizer) else []

    def sentence_end_ids(self) -> list[int]:
        """The tokens that end a sentence."""
        return self.tokenizer.sentence_end_ids() if isinstance(self.tokenizer, Tokenizer) else []

    # Pieces.

    def _text(self, text: str) -> list[int]:
        return [*encode_data(legible(text), self.tokenizer.encode, self._control, _SPELT)] if text else []

    def _block(self, role: str, content: list[int]) -> list[int]:
        return [self.start_id, *self._roles[role], *content, self.end_id, *self._newline]

    def _blocks(self, rest: Sequence[Message], start: int, effort: Effort) -> list[int]:
        """The blocks of a conversation's messages from `start` on. Results of parallel calls share one."""
        ids: list[int] = []
        last_user = max((i for i, m in enumerate(rest) if m.role == "user"), default=-1)
        results: list[Message] = []
        for index in range(start, len(rest)):
            message = rest[index]
            if message.role == "tool":
                results.append(message)
                if index + 1 == len(rest) or rest[index + 1].role != "tool":
                    ids += self._block("user", self._results(results))
                    results = []
            elif message.role == "assistant":
                ids += self._block("assistant", self._assistant(message, index < last_user))
            else:
                hint = f"\n\n{{reasoning effort: {effort}}}" if effort != "full" and index == last_user else ""
                ids += self._block(message.role, self._text(message.text + hint))
        return ids

    def _closing(self, seen: Sequence[int], said: Message) -> list[int]:
        """What ends the block of the completion that was just said. One that was cut is first made whole, as `_turn` would."""
        if seen[-1] in self.stop_ids:
            return list(self._newline)
        ids: list[int] = []
        reasoned = said.reasoning is not None
        structure = next((token for token in reversed(seen) if token in self._kinds), None)
        if reasoned and structure == self.think_id and not said.text and not said.tool_calls:
            ends_line = self.tokenizer.decode([seen[-1]]).endswith("\n")
            ids += self.closing_ids()[len(self._newline) if ends_line else 0 :]
        elif seen[-1] == self.call_end_id or (reasoned and seen[-1] == self.think_end_id):
            ids += self._newline
        return [*ids, self.end_id, *self._newline]

    def _generation_prompt(self, reasoning: bool) -> list[int]:
        opened = [self.think_id, *self._newline] if reasoning else [self.think_id, self.think_end_id]
        return [self.start_id, *self._roles["assistant"], *opened]

    def _assistant(self, message: Message, past: bool) -> list[int]:
        turn = Turn(message.text, message.reasoning, message.tool_calls)
        dropped = past and self.drop_past_reasoning and turn.reasoning is not None
        if turn.reasoning is not None and not dropped:
            return [self.think_id, *self._newline, *self._turn(turn, reasoning=True)]
        after = self._newline if dropped and turn.answer and not turn.tool_calls else []
        return [self.think_id, self.think_end_id, *after, *self._turn(turn, reasoning=False, dropped=dropped)]

    def _turn(self, turn: Turn, reasoning: bool, dropped: bool = False) -> list[int]:
        ids: list[int] = []
        if reasoning:
            ids += [*self._text(f"{turn.reasoning}\n" if turn.reasoning else ""), self.think_end_id, *self._newline]
        ids += self._text(turn.answer)
        if turn.tool_calls and (turn.answer or not (reasoning or dropped)):
            ids += self._newline
        for call in turn.tool_calls:
            ids += [self.call_id, *self._text(write_call(call)), self.call_end_id, *self._newline]
        return ids

    def _results(self, messages: Sequence[Message]) -> list[int]:
        control, ids = self.tokenizer.control, []
        for message in messages:
            ids += [control["<tool_response>"], *self._text(f"\n{message.text}\n"), control["</tool_response>"]]
            ids += self._newline
        return ids

    def _tools(self, tools: Sequence[ToolSchema], after_text: bool) -> list[int]:
        if not tools:
            return []
        control = self.tokenizer.control
        body = "\n" + "".join(_declaration(tool) for tool in tools)
        lead = self._text("\n\n") if after_text else []
        return [*lead, control["<tools>"], *self._text(body), control["</tools>"]]


def _apart(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system prompt and the other messages."""
    has_system = bool(messages) and messages[0].role == "system"
    return (messages[0].text, messages[1:]) if has_system else ("", messages)


def _declaration(tool: ToolSchema) -> str:
    lines = [
        "<function>",
        f"<name>{tool.name}</name>",
        f"<description>{tool.description}</description>",
        "<parameters>",
    ]
    for key, schema in tool.parameters.get("properties", {}).items():
        lines += ["<parameter>", f"<name>{key}</name>"]
        for field, value in schema.items():
            lines.append(f"<{field}>{value if isinstance(value, str) else json.dumps(value)}</{field}>")
        lines.append("</parameter>")
    lines += [f"<required>{json.dumps(tool.parameters.get('required', []))}</required>", "</parameters>", "</function>"]
    return "\n".join(lines) + "\n"
