"""The customer: knows a few things, tells what is asked, and does what is asked in an app of their own.

A scripted user, but one who answers every question of a turn and not only the first. What is known comes from the task's
metadata: `facts` by topic (a list is told one after the other: a wrong detail first), `has` documents, `then` a change of mind
that comes out together with the one-time code, before anything can have been done.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ...messages import ToolCall, Turn
from ..calling import CallRecord, call_tool
from ..user import END, Rule, ScriptedUser

FACTS = {
    "name": r"\bname\b",
    "birth": r"\bbirth|\bborn\b|\bdob\b",
    "card": r"which\b[^.?!]{0,40}\b(cards?|one)\b|card number|last (four|4)|ending in",
    "account": r"which\b[^.?!]{0,40}\b(accounts?|savings|one)\b|account (number|name)|(from|to|into) (which|where)",
    "payment": r"which\b[^.?!]{0,40}\b(payments?|transactions?|charges?|fees?|bookings?|one)\b|merchant|\bamount\b|what date",
    "amount": r"how much|\bamount\b|(what|which) (new )?limit|how high",
    "reason": r"what happened|(lost|stolen) or\b|why do you|\breason\b|recogni[sz]e|describe",
    "new": r"new card|replacement|replace\b",
}
"""How a question for each topic is recognised, case ignored."""

TOOLS = {
    "code": r"\bcodes?\b|\bsms\b|text message",
    "confirm": r"confirm|approve|accept",
    "freeze": r"\bfreez",
    "police_report": r"police|\breport\b",
    "receipt": r"receipt|invoice|proof of",
}
"""How a request to do something is recognised."""

_SMALL_TALK = [
    Rule(r"(any|some)thing else|else (can|may) I", "No, that is all."),
    Rule(
        r"sorry|cannot|can't|unable|not (possible|allowed)|policy|hand(ed|ing)? .*over|forward",
        "I see. What happens now?",
    ),
    Rule(r"moment|wait|let me|I will|I'll|I have|I've|done|thank|welcome|hello|hi\b|help", "All right."),
]


@dataclass
class Customer(ScriptedUser):
    """Leaves when the ticket is closed or handed over; gives up after `patience` turns that were not understood."""

    states: Any = field(default_factory=lambda: {"start": _SMALL_TALK})
    otherwise: str = "I do not understand. What do you need from me?"
    patience: int = 4
    told: tuple[str, ...] = field(default=(), init=False)
    puzzled: bool = field(default=False, init=False)
    """A question was not understood: what follows may be the script's fault."""

    def fresh(self) -> Customer:
        user = super().fresh()
        assert isinstance(user, Customer)
        user.told, user.puzzled = (), False
        return user

    async def reply(self, env: Any, turn: Turn) -> str | None:
        """Everything that is asked for, in one answer; None once the ticket is out of the customer's hands."""
        if env.db.row("SELECT 1 FROM ticket") is not None:
            self.state = END
            return None
        given = env.task.metadata
        answers = [
            self._tell(topic, given["facts"][topic]) for topic in self._asked(FACTS, turn) if topic in given["facts"]
        ]
        answers += [await self._do_in_app(env, topic) for topic in self._asked(TOOLS, turn)]
        if answers:
            return " ".join(dict.fromkeys(answers))
        misses = self.misses
        said = await super().reply(env, turn)
        self.puzzled |= self.misses > misses and "?" in turn.answer
        return said

    def _asked(self, topics: dict[str, str], turn: Turn) -> list[str]:
        return [topic for topic, pattern in topics.items() if re.search(pattern, turn.answer, re.IGNORECASE)]

    def _tell(self, topic: str, fact: str | list[str]) -> str:
        number = self.told.count(topic)
        self.told += (topic,)
        return fact if isinstance(fact, str) else fact[min(number, len(fact) - 1)]

    async def _do_in_app(self, env: Any, topic: str) -> str:
        given = env.task.metadata
        if topic == "code":
            record = await self._call(env, "read_one_time_code")
            if not record.ok:
                return "No code has arrived."
            first = "then" not in self.told
            self.told += ("then",)
            return f"The code is {record.result}." + (f" {given['then']}" if first and given["then"] else "")
        if topic == "confirm":
            record = await self._call(env, "confirm_in_app")
            return "I have confirmed it in the app." if record.ok else "There is nothing to confirm in my app."
        if topic == "freeze":
            if not given["card"]:
                return "I have no card to freeze."
            record = await self._call(env, "freeze_card_in_app", card=given["card"])
            return "I have frozen it in the app." if record.ok else "The app says that it cannot be frozen."
        if topic not in given["has"]:
            return "I do not have that."
        record = await self._call(env, "upload_document", kind=topic)
        return "I have uploaded it." if record.ok else "The upload does not work."

    async def _call(self, env: Any, name: str, **arguments: Any) -> CallRecord:
        record = await call_tool(env, ToolCall(name, arguments), by="user", threads=env.in_loop)
        env.calls.append(record)
        return record
