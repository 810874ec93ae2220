"""Do messages and ids say the same? Random conversations through every renderer, hostile templates and tokenizers.

    python benchmarks/fuzz_rendering.py [--turns 100000] [--seed 0]

After each turn: what was seen and its extension are the ids (or where tokens were cut or sampled at random, the text) of the
whole conversation opened anew, or a fork was announced and needed; a turn comes back from its completion, and the completion
from the turn; data never gives a control id; the text is the template's, and a first prompt has the ids of
`apply_chat_template`. Prints each mismatch and one JSON line last.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import random
import sys
import time
from collections.abc import Collection, Sequence
from typing import Any

from rendering_worlds import STRUCTURE, World, text, worlds

from swannery.messages import Message, ToolCall, ToolSchema, Turn, legible
from swannery.policies import ChatRenderer, TemplateRenderer, Tokenizer
from swannery.policies.toolcalls import NEMOTRON

Counts = collections.Counter[str]
TOOLS = [
    ToolSchema("f", "Does <|im_end|> f.", {"type": "object", "properties": {"a": {"type": "string", "enum": ["<think>"]}}}),
    ToolSchema("get_weather", "Tells it.", {"type": "object", "properties": {}, "required": []}),
]  # fmt: skip


class Fuzz:
    """One world's conversations, and what went wrong in them."""

    def __init__(self, world: World, rng: random.Random, counts: Counts) -> None:
        self.world, self.rng, self.counts = world, rng, counts
        self.renderer: Any = world.renderer
        if isinstance(world.renderer, TemplateRenderer):
            pieces, template = world.renderer.pieces, world.renderer.template
            self.style, self.thinks, self.switchable = (
                template.style,
                template.thinks,
                "enable_thinking" in template.source,
            )
            self.control, self.spell, backend = set(pieces.spelling), pieces.spell, pieces.backend
        else:
            tokenizer = world.renderer.tokenizer
            assert isinstance(tokenizer, Tokenizer)
            self.style, self.thinks, self.switchable = NEMOTRON, True, True
            self.control, self.spell, backend = set(tokenizer.control.values()), tokenizer.decode, tokenizer.backend
        self.vocab_size = backend.get_vocab_size()

    def conversation(self) -> None:
        """Open, then some turns, each checked."""
        rng = self.rng
        tools = TOOLS[: rng.randrange(3)] if self.style else []
        mode: dict[str, Any] = {"reasoning": not self.switchable or rng.random() < 0.7}
        if isinstance(self.renderer, ChatRenderer):
            mode["effort"] = rng.choice(("full", "full", "low", "efficient"))
        said = [Message("system", text(rng))] if rng.random() < 0.4 else []
        said += [Message("user", text(rng)) for _ in range(rng.choice((1, 1, 1, 2)))]
        seen = self.renderer.open(said, tools, **mode)
        self.first_prompt(said, tools, seen, mode)
        same = {"ids", "text"}
        for _ in range(rng.randrange(1, 6)):
            self.counts["turns"] += 1
            ids, kind = self.completion(mode)
            same &= {"whole": {"ids", "text"}, "cut": {"text"}}.get(kind, set())
            turn = self.renderer.parse(ids, reasoning=mode["reasoning"])
            new = self.reply(turn)
            said, seen = [*said, turn.message, *new], [*seen, *ids]
            delta = self.renderer.extend(seen, said, len(new), tools, **mode)
            anew = self.renderer.open(said, tools, **mode)
            self.counts["forks" if delta is None else "extensions"] += 1
            self.compare(seen, delta, anew, same)
            self.data_is_data(said, tools, anew, mode)
            self.is_the_templates_text(said, tools, anew, mode)
            same = {"ids", "text"} if delta is None else same
            seen = anew if delta is None else [*seen, *delta]

    def completion(self, mode: dict[str, Any]) -> tuple[list[int], str]:
        """A turn's completion whose laws hold, or one that was cut, or random tokens."""
        rng, reasoning = self.rng, mode["reasoning"]
        kind = rng.choices(("whole", "cut", "random"), (8, 1, 1))[0]
        if kind == "random":
            ids = [self.token() for _ in range(rng.randrange(20))]
            return [*ids, *self.renderer.stop_ids[: rng.randrange(2)]], kind
        turn = Turn(text(rng), reasoning=text(rng) if rng.random() < 0.7 else None, tool_calls=self.calls())
        try:
            ids = self.renderer.completion(turn, reasoning=reasoning)
        except ValueError:  # the format cannot say this call
            self.counts["unsayable"] += 1
            turn = dataclasses.replace(turn, tool_calls=(), answer="plain", reasoning="plain")
            ids = self.renderer.completion(turn, reasoning=reasoning)
        read = self.renderer.parse(ids, reasoning=reasoning)
        if not self.world.exact or self.world.letters and any(part in self.spell(ids[:-1]) for part in STRUCTURE):
            kind = "loose"  # the tokenizer cannot tell these turns apart
        elif read != (expected := self.expected(turn, reasoning)):
            self.mismatch("parse", f"{expected} came back as {read}")
        elif self.renderer.completion(read, reasoning=reasoning) != ids:
            self.mismatch("completion", f"{read} is rendered otherwise")
        if kind != "cut":
            return ids, kind
        ids = ids[: rng.randrange(len(ids))]
        blank = self.spell(ids) == "\n"  # a reasoning of one newline is none: the text of that differs by it
        return ids, "random" if blank else kind

    def token(self) -> int:
        """Any id: often one of the structure's, now and then one that no token has."""
        stop_ids = set(self.renderer.stop_ids)
        control = sorted(self.control - stop_ids)
        if self.rng.random() < 0.3 and control:
            return self.rng.choice(control)
        token = self.rng.randrange(self.vocab_size + 2)
        return token if token not in stop_ids else 0

    def calls(self) -> tuple[ToolCall, ...]:
        rng = self.rng
        if self.style is None or rng.random() < 0.6:
            return ()
        values = [lambda: text(rng, surrogates=False)]
        if self.style is not NEMOTRON:
            values += [lambda: rng.choice((None, True, 3, -2.5, [1, "]}"], {"b": [{}]}, 10**30))]
        argument = lambda: {text(rng, surrogates=False) or "a": rng.choice(values)() for _ in range(rng.randrange(3))}  # noqa: E731
        return tuple(
            ToolCall(rng.choice(("f", "get_weather", "a b", "né")), argument()) for _ in range(rng.randrange(1, 4))
        )

    def expected(self, turn: Turn, reasoning: bool) -> Turn:
        thought = turn.reasoning if reasoning and self.thinks else None
        if reasoning and self.thinks and self.renderer.parse([], reasoning=True).reasoning is not None:
            thought = thought or ""
        return Turn(legible(turn.answer), reasoning=thought and legible(thought), tool_calls=turn.tool_calls)

    def reply(self, turn: Turn) -> list[Message]:
        rng = self.rng
        if turn.tool_calls or turn.malformed:
            return [Message("tool", text(rng)) for _ in turn.tool_calls or (0,)]
        return [Message("user", text(rng)) for _ in range(rng.choice((0, 1, 1, 1, 2)))]

    # What is checked.

    def compare(self, seen: list[int], delta: list[int] | None, anew: list[int], same: set[str]) -> None:
        """`same` says what a whole conversation must have in common with one that grew: ids, text or neither."""
        if not self.world.exact:
            return
        if delta is None:
            if "text" in same and (anew[: len(seen)] == seen or self.spell(anew).startswith(self.spell(seen))):
                self.mismatch("fork", f"a fork that was not needed after {self.spell(seen)!r}")
        elif "ids" in same and [*seen, *delta] != anew:
            self.mismatch("ids", f"{self.spell([*seen, *delta])!r} against {self.spell(anew)!r}")
        elif "text" in same or isinstance(self.renderer, TemplateRenderer):
            if self.spell([*seen, *delta]) != self.spell(anew):
                self.mismatch("text", f"{self.spell([*seen, *delta])!r} against {self.spell(anew)!r}")

    def data_is_data(self, said: list[Message], tools: list[ToolSchema], anew: list[int], mode: dict[str, Any]) -> None:
        """The control tokens are those of a conversation that says nothing but words."""
        harmless = self.renderer.open([_harmless(message) for message in said], tools, **mode)
        if self.controls(anew) != self.controls(harmless):
            self.mismatch("control", f"{self.controls(anew)} {self.controls(harmless)} {said!r}")

    def controls(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self.control]

    def is_the_templates_text(self, said: list[Message], tools: list[ToolSchema], anew: list[int], mode: Any) -> None:
        if isinstance(self.renderer, TemplateRenderer) and self.world.exact:
            if self.spell(anew) != legible(self.templates_own(said, tools, mode, tokenize=False)):
                self.mismatch("template", f"{self.spell(anew)!r}")

    def first_prompt(self, said: list[Message], tools: list[ToolSchema], ids: list[int], mode: Any) -> None:
        if not isinstance(self.renderer, TemplateRenderer) or "microsecond" in self.world.name:
            return
        pieces = self.renderer.pieces
        if not tools and all(pieces.guard(legible(m.text), "\ue123") == legible(m.text) for m in said):
            self.counts["prompts checked against transformers"] += 1
            if (theirs := self.templates_own(said, tools, mode, tokenize=True)["input_ids"]) != ids:
                self.mismatch("prompt", f"{theirs} against {ids}, {self.spell(ids)!r}")

    def templates_own(self, said: list[Message], tools: list[ToolSchema], mode: Any, tokenize: bool) -> Any:
        """What transformers says, from dictionaries made here."""
        chat = []
        for m in said:
            entry: dict[str, Any] = {"role": m.role, "content": legible(m.text)}
            if m.reasoning is not None and mode["reasoning"]:
                entry["reasoning_content"] = legible(m.reasoning)
            if m.tool_calls:
                entry["tool_calls"] = [{"function": {"name": c.name, "arguments": c.arguments}} for c in m.tool_calls]
            chat.append(entry)
        declared = [{"type": "function", "function": {**dataclasses.asdict(tool)}} for tool in tools] or None
        return self.renderer.template.tokenizer.apply_chat_template(
            chat, tools=declared, tokenize=tokenize, add_generation_prompt=True, enable_thinking=mode["reasoning"]
        )

    def mismatch(self, kind: str, what: str) -> None:
        self.counts["mismatches"] += 1
        self.counts[f"mismatches in {kind}"] += 1
        if self.counts["mismatches"] <= 20:
            print(f"{self.world.name}: {kind}: {what[:2000]}", file=sys.stderr, flush=True)


def _harmless(message: Message) -> Message:
    calls = tuple(ToolCall("f", {f"key{i}": "word" for i in range(len(c.arguments))}) for c in message.tool_calls)
    reasoning = message.reasoning and "word"
    return Message(message.role, "word" if message.text.strip() else message.text, reasoning, calls)


def run(num_turns: int, seed: int, *, only: Collection[str] = (), every: int = 10_000) -> dict[str, Any]:
    """Fuzz all worlds in turn, a conversation each, until there were enough turns."""
    start, rng, counts = time.monotonic(), random.Random(seed), Counts()
    fuzzes = [Fuzz(world, rng, counts) for world in worlds(only)]
    # Ours, the real one, and as many conversations again with all of the hostile ones.
    ours = [fuzz for fuzz in fuzzes if isinstance(fuzz.renderer, ChatRenderer) or fuzz.world.name == "smollm2"]
    due = every
    while counts["turns"] < num_turns:
        rng.choice(ours if rng.random() < 0.4 else fuzzes).conversation()
        if counts["turns"] >= due:
            print(
                f"{counts['turns']} turns, {counts['mismatches']} mismatches, {time.monotonic() - start:.0f} s",
                flush=True,
            )
            due += every
    return {
        "benchmark": "fuzz_rendering",
        "turns": counts["turns"],
        "mismatches": counts["mismatches"],
        "worlds": len(fuzzes),
        "seconds": round(time.monotonic() - start, 1),
        **{name: counts[name] for name in sorted(counts.keys() - {"turns", "mismatches"})},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    known = parser.parse_args()
    result = run(known.turns, known.seed)
    print(json.dumps(result))
    sys.exit(bool(result["mismatches"]))
