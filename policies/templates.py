"""TemplateRenderer: messages to ids through a Hugging Face tokenizer's own chat template, and ids to turns.

    messages --template--> text --split where the template wrote control tokens--> ids
    seen ids --spelt out--> the beginning of the longer conversation's text? then the rest is encoded alone; else a fork

Whatever the template makes of a longer conversation (it strips, drops old reasoning, merges, repeats, adds a date), its text
decides whether the conversation grew or must fork. The ids of a first prompt are those of `apply_chat_template`, but that data
which spells control tokens stays data.

With byte-level tokenizers text and ids say the same. One that adds or drops blanks (old SentencePiece ones) is rendered as it
wants it, but each of its turns may fork.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..messages import Message, ToolCall, ToolSchema, Turn, legible
from .chat_template import ASKED, ChatTemplate
from .pieces import Piece, Pieces
from .turns import Effort, Kind, Mark, MarkedText, marked_text, read_turn

_THOUGHT, _ANSWER = "reasoned", "answered"


class TemplateRenderer:
    """Renders for one tokenizer of the transformers library.

    Reasoning is read where the template knows <think>, calls where it writes them in the way of Hermes or of Nemotron. For a
    turn that `completion` rendered, `parse` gives that turn and `completion` those ids again, with two exceptions: where
    <think> or <tool_call> is no single token of the vocabulary, an answer that spells it is read as structure; and what the
    format cannot say (no reasoning where the prompt opens it, values other than text in Nemotron's calls) comes back as the
    nearest that it can. For ids that the policy sampled the same text has many encodings: nothing depends on it, since sampled
    ids are kept as they are.
    """

    def __init__(self, tokenizer: Any, *, variables: Mapping[str, Any] | None = None) -> None:
        """`variables` are handed to the template, such as a fixed `date_string` for one that would tell today's date."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json; convert it to a fast tokenizer first")
        self.pieces = Pieces(backend)
        self.template = ChatTemplate(tokenizer, self.pieces, variables or {})
        self.style = self.template.style
        knows = [Kind.THINK, Kind.THINK_END] if self.template.thinks else []
        knows += [Kind.CALL, Kind.CALL_END] if self.style else []
        control = self.pieces.control
        self._kinds = {control[kind.value]: kind for kind in knows if kind.value in control}
        self._in_letters = {kind.value: kind for kind in knows if kind.value not in control}
        self.think_end_id = control.get(Kind.THINK_END.value) if self.template.thinks else None
        self.call_id = control.get(Kind.CALL.value) if self.style else None
        self.stop_ids = self._find_stop_ids(tokenizer.eos_token_id)
        self._opened, self._lead, self._gap = self._find_reasoning()
        begins = self.think_end_id is not None and not self._opened
        self.think_begin_id = control.get(Kind.THINK.value) if begins else None

    @staticmethod
    def load(folder: Path | str, **options: Any) -> TemplateRenderer:
        """The renderer of a folder that holds a tokenizer and its template."""
        from transformers import AutoTokenizer

        return TemplateRenderer(AutoTokenizer.from_pretrained(folder, local_files_only=True), **options)

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
        pieces = self.template.prompt(messages, tools, reasoning, effort)
        mode: Any = {"reasoning": reasoning, "effort": effort}
        return self.pieces.encode(pieces, cuts=self._cuts(pieces, messages, 1, tools, mode))

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
        pieces = self.template.prompt(transcript, tools, reasoning, effort)
        text, seen_text = self.pieces.flat(pieces), self.pieces.spell(seen)
        rest = self.pieces.after(pieces, len(seen_text))
        if seen_text + self.pieces.flat(rest) != text:
            return None
        mode: Any = {"reasoning": reasoning, "effort": effort}
        cuts = self._cuts(pieces, transcript, len(transcript) - num_new, tools, mode)
        return self.pieces.encode(pieces, len(seen_text), cuts)

    def completion(self, turn: Turn, *, reasoning: bool = True) -> list[int]:
        """The ids that a policy would have sampled to take this turn: as the template writes it, or where the template would not
        give the turn back (it strips answers, say), put together in the same format."""
        if turn.tool_calls and self.style is None:
            raise ValueError(
                f"this template has no tool calls that can be read: {turn.tool_calls[0].name!r} cannot be said"
            )
        reasoned = reasoning and self.template.thinks
        thought = turn.reasoning or ("" if self._opened else turn.reasoning)  # what the prompt opened must be closed
        thought = legible(thought) if reasoned and thought is not None else None
        said = dataclasses.replace(turn, answer=legible(turn.answer), reasoning=thought)
        written = self._as_written(said, reasoning)
        if written is not None:
            ids = self.pieces.encode(written)
            if self.parse(ids, reasoning=reasoning) == said:
                return ids
        ids = self.pieces.encode(self._put_together(said))
        read = self.parse(ids, reasoning=reasoning)
        if read.malformed or _words(read.tool_calls) != _words(said.tool_calls):
            raise ValueError(
                f"this turn cannot be said in the template's format: {read.malformed or 'a call is changed'}"
            )
        return ids

    def closing_ids(self) -> list[int]:
        """What an engine forces to end reasoning."""
        return self.pieces.encode(self.pieces.split(f"\n{Kind.THINK_END.value}{self._gap}"))

    # Ids to turns.

    def parse(self, ids: Sequence[int], *, reasoning: bool = True) -> Turn:
        """The turn of a completion's ids; `reasoning` as in the prompt. Never raises, linear in the ids."""
        cut = not len(ids) or ids[-1] not in self.stop_ids
        kept = (token for index, token in enumerate(ids) if cut or index < len(ids) - 1)
        text, marks = self._with_letters(marked_text(kept, self._kinds, self.pieces.spell))
        inside, lead = reasoning and self._opened, self._lead
        if reasoning and not inside and marks and marks[0].kind is Kind.THINK:
            opening = text[: marks[0].end]
            if opening.lstrip() == Kind.THINK.value:  # the policy opens its reasoning itself
                inside, marks = True, marks[1:]
                lead = lead if text.startswith(lead) else opening
        return read_turn(MarkedText(text, marks), self.style, reasoning=inside, cut=cut, lead=lead, gap=self._gap)

    # What an engine must know to keep a reasoning budget.

    def line_end_ids(self) -> list[int]:
        """The tokens that end a line."""
        return self._ending("\n", blanks="")

    def sentence_end_ids(self) -> list[int]:
        """The tokens that end with a full stop, a question mark or an exclamation mark, blanks and quotes aside."""
        return self._ending(".", "!", "?", blanks=" \n\"')")

    def _ending(self, *ends: str, blanks: str) -> list[int]:
        plain = (i for i in range(self.pieces.backend.get_vocab_size()) if i not in self.pieces.spelling)
        return [i for i in plain if self.pieces.decode([i]).rstrip(blanks).endswith(ends)]

    # Pieces.

    def _cuts(
        self, pieces: list[Piece], messages: Sequence[Message], first: int, tools: Sequence[ToolSchema], mode: Any
    ) -> list[int]:
        """Where completions began, from the message `first` on: a policy samples its first token apart from the prompt's last."""
        text, cuts = self.pieces.flat(pieces), []
        for index in range(max(first, 1), len(messages)):
            if messages[index].role == "assistant":
                try:
                    head = self.pieces.flat(self.template.render(messages[:index], tools, **mode))
                except ValueError:  # the template would not have asked for a turn here
                    continue
                if text.startswith(head):
                    cuts.append(len(head))
        return cuts

    def _as_written(self, turn: Turn, reasoning: bool) -> list[Piece] | None:
        """A turn as the template writes it after its prompt, up to the end of the turn. None where it says it otherwise."""
        try:
            prompt = self.pieces.flat(self.template.render([ASKED], reasoning=reasoning))
            whole = self.template.render([ASKED, turn.message], prompt=False, reasoning=reasoning)
        except ValueError:
            return None
        if not self.pieces.flat(whole).startswith(prompt):
            return None
        pieces = self.pieces.after(whole, len(prompt))
        ends = [index for index, piece in enumerate(pieces) if piece == self.stop_ids[0]]
        return pieces[: ends[0] + 1] if ends else None

    def _put_together(self, turn: Turn) -> list[Piece]:
        structure = self.pieces.split
        pieces: list[Piece] = []
        if turn.reasoning is not None:
            closing = structure(f"\n{Kind.THINK_END.value}{self._gap}")
            pieces += [*structure(self._lead), turn.reasoning, *closing]
        pieces.append(turn.answer)
        for number, call in enumerate(turn.tool_calls):
            assert self.style is not None
            lead = "\n" if number or turn.answer else ""
            body = legible(self.style.write(call))
            pieces += [*structure(f"{lead}{Kind.CALL.value}"), body, *structure(Kind.CALL_END.value)]
        return [*pieces, self.stop_ids[0]]

    # The format, found by trying the template out.

    def _find_stop_ids(self, eos_id: int | None) -> tuple[int, ...]:
        """What the template writes after an answer, and the tokenizer's end."""
        whole = self.template.render([ASKED, Message("assistant", _ANSWER)], prompt=False)
        said = [index for index, piece in enumerate(whole) if isinstance(piece, str) and _ANSWER in piece]
        ends = [piece for piece in whole[said[-1] + 1 : said[-1] + 2] if isinstance(piece, int)] if said else []
        if not ends and eos_id is None:
            raise ValueError("neither the chat template nor the tokenizer (eos_token) says which token ends a turn")
        return tuple(dict.fromkeys([*ends, *([] if eos_id is None else [eos_id])]))

    def _find_reasoning(self) -> tuple[bool, str, str]:
        """Whether the prompt opens the reasoning, what a completion begins with, and what follows </think>."""
        prompt = self.pieces.flat(self.template.render([ASKED]))
        opened = self.template.thinks and prompt.rstrip().endswith(Kind.THINK.value)
        written = self._as_written(Turn(_ANSWER, reasoning=_THOUGHT), True) if self.template.thinks else None
        lead, thought, rest = self.pieces.flat(written or []).partition(_THOUGHT)
        between, answer, _ = rest.partition(_ANSWER)
        closing, closed, gap = between.partition(Kind.THINK_END.value)
        if thought and answer and closed and not (closing + gap).strip():
            return opened, lead, gap
        return opened, "" if opened else f"{Kind.THINK.value}\n", "\n\n"

    def _with_letters(self, said: MarkedText) -> MarkedText:
        """With the structure that this vocabulary has no tokens for and says in letters."""
        if not self._in_letters:
            return said
        pattern = re.compile("|".join(map(re.escape, self._in_letters)))
        found = [Mark(*match.span(), self._in_letters[match[0]]) for match in pattern.finditer(said.text)]
        return MarkedText(said.text, sorted([*said.marks, *found], key=lambda mark: mark.start))


def _words(calls: Sequence[ToolCall]) -> list[tuple[str, list[str]]]:
    """What the calls are named, and their arguments."""
    return [(call.name, list(call.arguments)) for call in calls]
