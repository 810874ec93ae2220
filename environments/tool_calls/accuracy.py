"""tool_calls/Accuracy-v0: the calls that a request needs, all of them in one turn and none besides.

    single      one function among many            multiple    one among siblings, beside what is not wanted
    parallel    several calls, in any order        irrelevant  something that no function does

Judged is what was called, never what was said, but for one thing: what no function does must be refused by the topic it
belongs to, so that refusing everything blindly earns next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...messages import Task, ToolCall, Turn
from ..cheat import cheat
from ..env import Env
from ..guess import nearest
from ..registry import register
from ..reward import reward
from .functions import FAMILIES, Functions
from .requests import DRAW, SUBJECT, Mouth
from .unfit import UNFIT, unfit
from .words import CITIES, NAMES, a_day, one, some

KINDS = ("single", "multiple", "parallel", "irrelevant")
_KINDS = {1: ("single",), 2: ("single", "multiple", "parallel"), 3: ("multiple", "parallel", "irrelevant")}
_EASY = ("weather", "set_timer", "lights", "translate", "convert_currency", "play_music")
_MIDDLE = (
    *_EASY,
    "air_quality",
    "exchange_rate",
    "set_alarm",
    "set_reminder",
    "thermostat",
    "define_word",
    "send_message",
)
_FUNCTIONS = {1: _EASY, 2: _MIDDLE, 3: tuple(DRAW)}
_SIBLINGS = {name: [other for other in family if other != name] for family in FAMILIES.values() for name in family}
_REFUSAL = "no function:"


@register("tool_calls/Accuracy-v0", max_turns=3, max_tool_calls=24, reasoning_budgets=(0,))
class Accuracy(Functions, Env):
    """`kinds` to draw from, `functions` to offer; both have defaults for each `level`."""

    levels = (1, 2, 3)
    floor = 0.05  # a guessed topic is right once in a while; the share is below 0.01
    quick_tools = True
    system = (
        "Do what the user asks by calling functions. Make all calls in your first turn, none twice and none besides, and "
        "give an optional argument only where the user's words call for it. Then answer."
    )
    wrong, careless = 0.3, 0.25

    def __init__(
        self,
        *,
        level: int = 1,
        kinds: Sequence[str] | None = None,
        functions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if level not in self.levels:
            raise ValueError(f"Accuracy: level is 1, 2 or 3, got {level!r}")
        self.functions = _checked("function", functions, _FUNCTIONS[level], DRAW)
        # What is offered is an episode-independent choice, so it is made before the base class describes the tools.
        self.tools = {name: type(self).tools[name] for name in self.functions}  # type: ignore[misc]
        super().__init__(**kwargs)
        self.level = level
        self.alike = [name for name in self.functions if any(other in self.functions for other in _SIBLINGS[name])]
        self.kinds = _checked("kind", kinds, _KINDS[level], KINDS)
        if not self.alike and "multiple" in self.kinds:
            if kinds is not None:
                raise ValueError(
                    "Accuracy: kind 'multiple' needs two functions that are alike, such as 'weather' and 'air_quality', got "
                    f"functions={self.functions}"
                )
            self.kinds = tuple(kind for kind in self.kinds if kind != "multiple") or ("single",)
        if "irrelevant" in self.kinds:
            self.system += (
                f"\nWhere no function does what is asked, call nothing for it, and let your last answer be `{_REFUSAL} ` and "
                f"the topic, nothing else; several topics with commas between. Topics: {', '.join(UNFIT)}."
            )

    def sample_task(self, rng: np.random.Generator) -> Task:
        mouth, kind = Mouth(rng, self.level, a_day(rng)), one(rng, self.kinds)
        names: list[str] = []
        topics: list[str] = []
        if kind == "single":
            names = [one(rng, self.functions)]
        elif kind == "multiple":
            names = [one(rng, self.alike)]
        elif kind == "parallel":
            names = self._several(rng)
        else:
            topics = some(rng, tuple(UNFIT), int(rng.integers(1, 3)))
            if rng.random() < 0.5:  # one thing that can be done beside one that cannot
                topics, names = topics[:1], some(rng, self.functions, int(rng.integers(1, 3)))
        calls, clauses = _drawn(mouth, names)
        for topic in topics:
            clauses.insert(int(rng.integers(len(clauses) + 1)), unfit(mouth, topic))
        prompt = _asked(mouth, clauses)
        if kind == "multiple" or (self.level == 3 and rng.random() < 0.5):
            prompt = self._beside(mouth, names, prompt)
        if self.level == 3:
            prompt = f"Today is {mouth.today.isoformat()}. {prompt}"
        return Task(
            prompt,
            f"{_REFUSAL} {', '.join(sorted(topics))}" if topics else "Done.",
            difficulty=self.level + (len(clauses) - 1) / 4,
            gold=tuple(calls),
            metadata={"kind": kind, "topics": topics},
        )

    def _several(self, rng: np.random.Generator) -> list[str]:
        """The functions of parallel calls: the same one several times, or different ones."""
        repeatable = [name for name in self.functions if name in SUBJECT]
        count = int(rng.integers(2, 4 if self.level < 3 else 5))
        if repeatable and (len(self.functions) < 2 or rng.random() < (0.3 if self.level == 3 else 0.6)):
            return [one(rng, repeatable)] * count
        return some(rng, self.functions, count)

    def _beside(self, mouth: Mouth, names: Sequence[str], prompt: str) -> str:
        """The request beside what is not asked for: something that a sibling would do, and a fact of no use."""
        near = [other for name in names for other in _SIBLINGS[name] if other in self.functions]
        _, clause = DRAW[one(mouth.rng, near or self.functions)](mouth)
        done = mouth.one(
            f"You need not {clause}: that is done.",
            f"Yesterday I asked you to {clause}; forget about that.",
            f"{one(mouth.rng, NAMES)} will {clause.replace(' my ', ' their ').replace(' me ', ' them ')} later, so leave that.",
        )
        if self.level == 3:
            city, name = one(mouth.rng, CITIES), one(mouth.rng, NAMES)
            done += " " + mouth.one("", f"I am writing from {city}.", f"{name} is here too.")
        first, second = (done.strip(), prompt) if mouth.rng.random() < 0.5 else (prompt, done.strip())
        return f"{first}\n{second}" if "\n- " in first else f"{first} {second}"

    def start(self) -> None:
        self.plan = ""

    @reward
    def accurate(self, turn: Turn) -> bool:
        return self._called_exactly() and refused(turn.answer) == sorted(self.task.metadata["topics"])

    def _called_exactly(self) -> bool:
        """Whether the one turn that called anything made the gold calls, as a multiset."""
        if len(self.calls) != self.num_tool_calls:  # the last turn called too much to be carried out
            return False
        wanted = [(call.name, self.tools[call.name].typed(call.arguments)) for call in self.task.gold]
        for call in self.calls:
            made = (call.name, dict(call.arguments))
            if not call.ok or call.turn != self.calls[0].turn or made not in wanted:
                return False
            wanted.remove(made)
        return not wanted

    def oracle(self) -> Turn:
        return Turn(tool_calls=self.task.gold) if self.task.gold and not self.calls else Turn(self.task.answer)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """Well-formed calls, often of the wrong function, or with one forgotten or misread."""
        if not self.plan:
            shares = (self.wrong, self.careless, 1 - self.wrong - self.careless)
            self.plan = str(rng.choice(["wrong", "careless", "sound"], p=shares))
        if self.calls or self.plan == "sound":
            return self.oracle()
        mouth, gold = Mouth(rng, self.level, a_day(rng)), self.task.gold
        if self.plan == "careless" and len(gold) > 1:
            left_out = int(rng.integers(len(gold)))
            return Turn(tool_calls=tuple(call for i, call in enumerate(gold) if i != left_out))
        others = [name for name in self.functions if all(name != call.name for call in gold)]
        if self.plan == "careless" and gold or not others:
            others = [call.name for call in gold]
        name = one(rng, others)
        while (call := ToolCall(name, DRAW[name](mouth)[0])) in gold:
            pass
        return Turn(tool_calls=(call,))

    @cheat
    def calls_all(self) -> Turn:
        """The right calls hidden among calls of everything else."""
        if self.calls:
            return Turn(self.task.answer)
        rng = np.random.default_rng(0)
        mouth = Mouth(rng, 1, a_day(rng))
        return Turn(tool_calls=(*self.task.gold, *(ToolCall(name, DRAW[name](mouth)[0]) for name in self.functions)))

    @cheat
    def peeks(self) -> Turn:
        """Learns the normal forms from error messages, then calls rightly."""
        if self.num_turns == 0:
            return Turn(tool_calls=(ToolCall(self.functions[0], {"what": "?"}),))
        return Turn(tool_calls=self.task.gold) if self.num_turns == 1 and self.task.gold else Turn(self.task.answer)

    @cheat
    def refuses(self) -> Turn:
        """Calls nothing and always gives the same topic."""
        return Turn(f"{_REFUSAL} {next(iter(UNFIT))}")

    @cheat
    def says_done(self) -> Turn:
        return Turn("I have made all the calls. Done.")


def refused(answer: str) -> list[str]:
    """The topics that an answer refuses, sorted. A refusal among other words is none that counts."""
    text = " ".join(answer.split()).removesuffix(".").casefold()
    if not text.startswith(_REFUSAL):
        return ["?"] if _REFUSAL in text else []
    return sorted(topic.strip() for topic in text.removeprefix(_REFUSAL).split(","))


def _checked(
    what: str, given: Sequence[str] | None, default: Sequence[str], known: Sequence[str] | dict[str, Any]
) -> tuple[str, ...]:
    chosen = tuple(default) if given is None else (given,) if isinstance(given, str) else tuple(given)
    for name in chosen:
        if name not in known:
            raise ValueError(f"Accuracy: no {what} named {name!r}. {nearest(str(name), known)}")
    if not chosen or len(dict.fromkeys(chosen)) < len(chosen):
        raise ValueError(f"Accuracy: give at least one {what}, each once, got {given!r}")
    return chosen


def _drawn(mouth: Mouth, names: Sequence[str]) -> tuple[list[ToolCall], list[str]]:
    """A call and a clause for each name; calls of the same function differ in their subject."""
    calls: list[ToolCall] = []
    clauses: list[str] = []
    seen: list[tuple[str, Any]] = []
    while len(calls) < len(names):
        name = names[len(calls)]
        arguments, clause = DRAW[name](mouth)
        subject = (name, arguments.get(SUBJECT.get(name, "")))
        if subject in seen:
            continue
        seen.append(subject)
        calls.append(ToolCall(name, arguments))
        clauses.append(clause)
    return calls, clauses


def _asked(mouth: Mouth, clauses: Sequence[str]) -> str:
    """One request as a person would put it: a sentence, several, or a list."""
    big = [clause[0].upper() + clause[1:] for clause in clauses]
    if len(clauses) == 1:
        if mouth.level == 1:
            return f"{big[0]}."
        return mouth.one(
            f"{big[0]}.",
            f"Please {clauses[0]}.",
            f"Could you {clauses[0]}?",
            f"I would like you to {clauses[0]}.",
            f"{big[0]}, please.",
        )
    if mouth.level > 1 and mouth.rng.random() < 0.4:
        opening = mouth.one("I need this:", "Please do all of this:", "A few things:")
        return "\n- ".join((opening, *big))
    return " ".join((f"{big[0]}.", *(mouth.one(f"Also {c}.", f"And {c}.", f"Then {c}.") for c in clauses[1:])))
