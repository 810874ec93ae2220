"""TemplateRenderer: messages to ids through a Hugging Face tokenizer's own chat template, and ids to turns.

    messages --template--> text --split where the template wrote control tokens--> ids
    seen ids --spelt out--> the beginning of the longer conversation's text? then the rest is encoded alone; else a fork

The template is the authority and is never second-guessed: whatever it makes of a longer conversation (it strips, drops old
reasoning, merges, repeats, adds a date), the text decides whether the conversation grew or must fork. For conversations
whose data spells no control tokens the ids of a prompt are those of `apply_chat_template`.

With byte-level tokenizers text and ids say the same. One that adds or drops blanks (old SentencePiece ones) is rendered as it
wants it, but each of its turns may fork.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..messages import Message, ToolCall, ToolSchema, Turn
from .pieces import Piece, Pieces
from .toolcalls import HERMES, NEMOTRON, CallStyle, legible
from .turns import Effort, Kind, Mark, MarkedText, marked_text, read_turn

_ASK = Message("user", "asked")
_PROBE = Turn("answered", reasoning="reasoned")
_PROBED_TOOL = ToolSchema("probed", "A tool.", {"type": "object", "properties": {"key": {"type": "string"}}})


class TemplateRenderer:
    """Renders for one tokenizer of the transformers library, by its chat template.

    Reasoning is read where the template knows <think>, calls where it writes them in the way of Hermes or of Nemotron. For a
    turn that `completion` rendered, `parse` gives that turn and `completion` those ids again, with two exceptions: where
    <think> or <tool_call> is no single token of the vocabulary, an answer that spells it is read as structure; and what no
    template can say (reasoning of None where the prompt opens it) is rendered as the nearest. For ids that the policy sampled
    the same text has many encodings: nothing depends on it, since sampled ids are kept as they are.
    """

    def __init__(self, tokenizer: Any, *, variables: Mapping[str, Any] | None = None) -> None:
        """`variables` are handed to the template, such as a fixed `date_string` for one that would tell today's date."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json; convert it to a fast tokenizer first")
        source = getattr(tokenizer, "chat_template", None)
        if not source:
            raise ValueError(
                "this tokenizer has no chat template: it belongs to a base model. Put a chat_template.jinja into its folder"
            )
        source = source if isinstance(source, str) else "\n".join(map(str, source.values()))
        self.tokenizer, self.source, self.variables = tokenizer, source, dict(variables or {})
        self.pieces = Pieces(backend)
        self.style: CallStyle | None = None
        if Kind.CALL.value in source:
            self.style = NEMOTRON if "<function=" in source else HERMES
        knows = [Kind.THINK, Kind.THINK_END] if Kind.THINK_END.value in source else []
        knows += [Kind.CALL, Kind.CALL_END] if self.style else []
        control = self.pieces.control
        self._kinds = {control[kind.value]: kind for kind in knows if kind.value in control}
        self._spelt = [kind for kind in knows if kind.value not in control]
        """Structure that this vocabulary can only say in letters."""
        self.thinks = Kind.THINK_END in knows
        self.think_end_id = control.get(Kind.THINK_END.value) if self.thinks else None
        self.call_id = control.get(Kind.CALL.value) if self.style else None
        self._learn_the_format()

    @staticmethod
    def load(folder: Path | str, **options: Any) -> TemplateRenderer:
        """The renderer of a folder that holds a tokenizer and its template."""
        from transformers import AutoTokenizer

        return TemplateRenderer(AutoTokenizer.from_pretrained(folder), **options)

    # Conversations to ids.

    def open(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema] = (),
        *,
        reasoning: bool = True,
        effort: Effort = "full",
    ) -> list[int]:
        """The ids of a conversation from its beginning, and the generation prompt. ValueError where the template refuses it."""
        pieces = self._prompt(messages, tools, reasoning, effort)
        return self.pieces.encode(pieces, cuts=self._cuts(pieces, messages, 0, tools, reasoning, effort))

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
        """What follows `seen`, which ends with a completion, now that `num_new` messages came. None where the text of the longer
        conversation does not begin with what was seen: the caller forks."""
        pieces = self._prompt(transcript, tools, reasoning, effort)
        seen_text = self.pieces.spell(seen)
        if not self.pieces.flat(pieces).startswith(seen_text):
            return None
        cuts = self._cuts(pieces, transcript, len(transcript) - num_new, tools, reasoning, effort)
        return self.pieces.encode(pieces, len(seen_text), cuts)

    def completion(self, turn: Turn, *, reasoning: bool = True) -> list[int]:
        """The ids that a policy would have sampled to take this turn: as the template writes it, or where the template would not
        give the turn back (it strips answers, say), put together in the same format."""
        if turn.tool_calls and self.style is None:
            raise ValueError(
                f"this template writes no tool calls that can be read back; it cannot say {turn.tool_calls[0]}"
            )
        said = turn if reasoning and self.thinks else dataclasses.replace(turn, reasoning=None)
        written = self._as_written(said, reasoning)
        if written is not None:
            ids = self.pieces.encode(written)
            if self.parse(ids, reasoning=reasoning) == said:
                return ids
        ids = self.pieces.encode(self._put_together(said, reasoning))
        read = self.parse(ids, reasoning=reasoning)
        if read.malformed or len(read.tool_calls) != len(said.tool_calls):
            raise ValueError(f"this turn cannot be said in the template's format: {read.malformed or 'a call is lost'}")
        return ids

    def closing_ids(self) -> list[int]:
        """What an engine forces to end reasoning."""
        return self.pieces.encode(self.pieces.split(f"\n{Kind.THINK_END.value}{self._gap}"))

    # Ids to turns.

    def parse(self, ids: Sequence[int], *, reasoning: bool = True) -> Turn:
        """The turn of a completion's ids; `reasoning` as in the prompt. Never raises, linear in the ids."""
        cut = not len(ids) or ids[-1] not in self.stop_ids
        kept = (token for index, token in enumerate(ids) if cut or index < len(ids) - 1)
        said = self._with_spelt(marked_text(kept, self._kinds, self.pieces.spell))
        inside, lead = reasoning and self._opened, self._lead
        if reasoning and not inside and said.marks and said.marks[0].kind is Kind.THINK:
            opening = said.text[: said.marks[0].end]
            if opening.lstrip() == Kind.THINK.value:  # the policy opens its reasoning itself
                inside, said = True, MarkedText(said.text, said.marks[1:])
                lead = lead if said.text.startswith(lead) else opening
        return read_turn(said, self.style, reasoning=inside, cut=cut, lead=lead, gap=self._gap)

    # What an engine must know to keep a reasoning budget.

    def line_end_ids(self) -> list[int]:
        """The tokens that end a line."""
        return self._ending(("\n",), strip="")

    def sentence_end_ids(self) -> list[int]:
        """The tokens that end with a full stop, a question mark or an exclamation mark, blanks and quotes aside."""
        return self._ending((".", "!", "?"), strip=" \n\"')")

    def _ending(self, ends: tuple[str, ...], strip: str) -> list[int]:
        size = self.pieces.backend.get_vocab_size()
        spelt = ((i, self.pieces.decode([i]).rstrip(strip)) for i in range(size) if i not in self.pieces.spelling)
        return [i for i, text in spelt if text.endswith(ends)]

    # The template.

    def _prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema], reasoning: bool, effort: Effort
    ) -> list[Piece]:
        """A conversation with the generation prompt, once it is sure that the template says all of it."""
        for role in {message.role for message in messages} & self._ignored:
            raise ValueError(
                f"this template leaves out {role} messages: put their text into the user's, or take another template"
            )
        if tools and self.style is None:
            raise ValueError(
                "this template has no tool calls that can be read (<tool_call> with JSON, or with <function=...>): choose an "
                "environment without tools, or another template"
            )
        pieces = self._render(messages, tools, True, reasoning, effort)
        text = self.pieces.flat(pieces)
        if unsaid := [tool.name for tool in tools if tool.name not in text]:
            raise ValueError(
                f"this template does not tell the policy its tools ({unsaid[0]!r} is nowhere in the prompt)"
            )
        if self.thinks and not reasoning and text.rstrip().endswith(Kind.THINK.value):
            raise ValueError("this template always opens the reasoning: it cannot be switched off")
        return pieces

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        prompt: bool,
        reasoning: bool,
        effort: Effort = "full",
    ) -> list[Piece]:
        """The template's text in pieces. Data is guarded by marks; where the template does something else with guarded data, its
        text of the bare data is split, which is refused if that data spells control tokens."""
        options = self._options(prompt, reasoning, effort)
        chat = [self._dict(message, reasoning) for message in messages]
        declared = [_declared(tool) for tool in tools] or None
        bare = self._apply(chat, declared, options)
        mark = self.pieces.mark_for([*_texts([chat, declared]), self.source])
        guarded = [_guarded(entry, mark, self.pieces) | {"role": entry["role"]} for entry in chat]
        guarded_tools = _guarded(declared, mark, self.pieces)
        if (guarded, guarded_tools) == (chat, declared):
            return self.pieces.split(bare)
        marked = self._apply(guarded, guarded_tools, options)
        pieces = self.pieces.split(marked, mark)
        if marked.replace(mark, "") == bare:
            return pieces
        spelt = next(filter(None, map(self.pieces.spells_control, _texts([chat, declared]))), None)
        found = self.pieces.split(bare)
        if spelt is None and [p for p in found if isinstance(p, int)] == [p for p in pieces if isinstance(p, int)]:
            return found
        raise ValueError(
            f"this template changes its messages, and one of them spells {spelt or 'a part of a control token'!r}: it could not "
            "be told from the template's own. Take it out of the message"
        )

    def _apply(self, chat: list[dict[str, Any]], tools: Any, options: dict[str, Any]) -> str:
        try:
            text = self.tokenizer.apply_chat_template(chat, tools=tools, tokenize=False, **options)
        except Exception as error:  # a template is foreign code and may raise anything
            roles = ", ".join(message["role"] for message in chat)
            raise ValueError(
                f"the chat template refuses this conversation ({roles}): {error}. Change the order or the roles of its messages "
                "(a system prompt can be put into the first user message), or take another template"
            ) from error
        assert isinstance(text, str)
        return text

    def _options(self, prompt: bool, reasoning: bool, effort: Effort) -> dict[str, Any]:
        options: dict[str, Any] = {"add_generation_prompt": prompt, **self.variables}
        if "enable_thinking" in self.source:
            options["enable_thinking"] = reasoning
        if effort != "full":
            switch = "low_effort" if effort == "low" else "medium_effort"
            if switch in self.source:
                options[switch] = True
            elif "reasoning_effort" in self.source:
                options["reasoning_effort"] = "low" if effort == "low" else "medium"
            else:
                raise ValueError(f"this template knows no effort {effort!r} and would reason in full; leave effort out")
        return options

    def _dict(self, message: Message, reasoning: bool) -> dict[str, Any]:
        """A message as templates know it. Where reasoning is off there is none to tell of."""
        entry: dict[str, Any] = {"role": message.role, "content": legible(message.text)}
        if message.role == "assistant":
            if message.reasoning is not None and reasoning and self.thinks:
                entry["reasoning_content"] = legible(message.reasoning)
            if message.tool_calls:
                entry["tool_calls"] = [
                    {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
                    for call in message.tool_calls
                ]
        return entry

    def _cuts(
        self,
        pieces: list[Piece],
        messages: Sequence[Message],
        first: int,
        tools: Sequence[ToolSchema],
        reasoning: bool,
        effort: Effort,
    ) -> list[int]:
        """Where completions began: a policy samples its first token apart from the prompt's last."""
        text = self.pieces.flat(pieces)
        cuts = []
        for index in range(max(first, 1), len(messages)):
            if messages[index].role == "assistant":
                try:
                    head = self.pieces.flat(self._render(messages[:index], tools, True, reasoning, effort))
                except ValueError:  # the template would not have asked for a turn here
                    continue
                if text.startswith(head):
                    cuts.append(len(head))
        return cuts

    # Completions, and what their format is.

    def _as_written(self, turn: Turn, reasoning: bool) -> list[Piece] | None:
        """A turn as the template writes it after its prompt, up to the end of the turn. None where it says it otherwise."""
        try:
            prompt = self.pieces.flat(self._render([_ASK], (), True, reasoning))
            whole = self._render([_ASK, turn.message], (), False, reasoning)
        except ValueError:
            return None
        if not self.pieces.flat(whole).startswith(prompt):
            return None
        pieces, at = [], 0
        for piece in whole:
            length = len(self.pieces.flat([piece]))
            if at >= len(prompt):
                pieces.append(piece)
            elif at + length > len(prompt):
                if isinstance(piece, int):
                    return None
                pieces.append(piece[len(prompt) - at :])
            at += length
        if self.stop_ids[0] not in pieces:
            return None
        return pieces[: pieces.index(self.stop_ids[0]) + 1]

    def _put_together(self, turn: Turn, reasoning: bool) -> list[Piece]:
        structure = self.pieces.split
        pieces: list[Piece] = []
        if reasoning and self.thinks and (self._opened or turn.reasoning is not None):
            pieces += structure(self._lead)
            pieces += [legible(turn.reasoning or ""), *structure(f"\n{Kind.THINK_END.value}{self._gap}")]
        pieces.append(legible(turn.answer))
        for number, call in enumerate(turn.tool_calls):
            assert self.style is not None
            lead = "\n" if number or turn.answer else ""
            body = legible(self.style.write(call))
            pieces += [*structure(f"{lead}{Kind.CALL.value}"), body, *structure(Kind.CALL_END.value)]
        return [*pieces, self.stop_ids[0]]

    def _learn_the_format(self) -> None:
        """Try the template out: which tokens end a turn, how reasoning stands in it, which roles it leaves out."""
        prompt = self.pieces.flat(self._render([_ASK], (), True, True))
        self._opened = self.thinks and prompt.rstrip().endswith(Kind.THINK.value)
        whole = self._render([_ASK, Message("assistant", _PROBE.answer)], (), False, True)
        said = [i for i, piece in enumerate(whole) if isinstance(piece, str) and _PROBE.answer in piece]
        after = whole[said[-1] + 1 : said[-1] + 2] if said else []
        ends = [*(piece for piece in after if isinstance(piece, int)), self.tokenizer.eos_token_id]
        self.stop_ids = tuple(dict.fromkeys(end for end in ends if end is not None))
        if not self.stop_ids:
            raise ValueError("neither the chat template nor the tokenizer (eos_token) says which token ends a turn")
        self._lead, self._gap = "" if self._opened else f"{Kind.THINK.value}\n", "\n\n"
        written = self.pieces.flat(self._as_written(_PROBE, True) or []) if self.thinks else ""
        lead, thought, rest = written.partition(_PROBE.reasoning or "")
        between, answer, _ = rest.partition(_PROBE.answer)
        closing, closed, gap = between.partition(Kind.THINK_END.value)
        if thought and answer and closed and not (closing + gap).strip():
            self._lead, self._gap = lead, gap
        self._ignored: set[str] = set()
        call = Message("assistant", tool_calls=(ToolCall(_PROBED_TOOL.name, {"key": "value"}),) if self.style else ())
        tools = [_PROBED_TOOL] if self.style else []
        for chat in ([Message("system", "instructed"), _ASK], [_ASK, call, Message("tool", "instructed")]):
            try:
                text = self.pieces.flat(self._render(chat, tools, True, True))
            except ValueError:  # it says so when it is used
                continue
            if "instructed" not in text:
                self._ignored |= {message.role for message in chat if message.text == "instructed"}

    def _with_spelt(self, said: MarkedText) -> MarkedText:
        """With the structure that this vocabulary says in letters."""
        if not self._spelt:
            return said
        kinds = {kind.value: kind for kind in self._spelt}
        pattern = re.compile("|".join(map(re.escape, kinds)))
        spelt = [Mark(found.start(), found.end(), kinds[found[0]]) for found in pattern.finditer(said.text)]
        return MarkedText(said.text, sorted([*said.marks, *spelt]))


def _declared(tool: ToolSchema) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _guarded(value: Any, mark: str, pieces: Pieces) -> Any:
    """The same value with its texts guarded. Of keys only those that spell a control token: templates look the others up."""
    if isinstance(value, str):
        return pieces.guard(value, mark)
    if isinstance(value, Mapping):
        keys = {key: pieces.guard(key, mark) if pieces.spells_control(key) else key for key in value}
        return {keys[key]: _guarded(item, mark, pieces) for key, item in value.items()}
    return [_guarded(item, mark, pieces) for item in value] if isinstance(value, (list, tuple)) else value
