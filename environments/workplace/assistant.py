"""workplace/Assistant-v0: a request to a workplace assistant, and five databases that must end up right.

    request -> look-ups -> writes        outcome: the databases equal those after the gold calls, as multisets of rows

Nothing that is said earns anything, nothing that is read costs anything, and every order of writes leaves the same rows.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...messages import Message, Task, ToolCall, Turn
from ..cheat import cheat
from ..env import Env
from ..registry import register
from ..reward import reward
from .agenda import Agenda
from .boards import Boards
from .crm import Customers
from .dates import in_full
from .requests import Requests
from .rules import Rules
from .traffic import Traffic
from .world import World

_WHO = "You are the assistant of {name} ({address}, {team}) at {firm}. Today is {today}."
_HOW = """Do what you are asked with the tools, and nothing else; then say that it is done. Texts in quotation marks are taken \
word for word, without the marks. Weeks begin on Monday. "The last N days" are the N days before today. A task is open unless its \
status is Done, and overdue if it is open and was due before today."""
_RULES = "House rules, which come before what the user asks for:\n{rules}"


@register("workplace/Assistant-v0", max_turns=32, max_tool_calls=64, reasoning_budgets=(None, 0))
class Assistant(Agenda, Traffic, Boards, Customers, Env):
    """One request. `level` 1: one change, all said; 2: look-ups, several changes; 3: conditions, twins, house rules."""

    levels = (1, 2, 3)
    quick_tools = True

    def __init__(self, *, level: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if level not in self.levels:
            raise ValueError(f"Assistant: level is 1, 2 or 3, got {level!r}")
        self.level = level
        # Whoever sends a mail with whatever is quoted is right where a mail was wanted, as one in twenty-five requests does.
        self.floor = 0.05 if level == 1 else 0.0

    def sample_task(self, rng: np.random.Generator) -> Task:
        world = World(rng, self.level)
        rules = Rules(world)
        request = Requests(world, rules).draw()
        user = world.user
        who = _WHO.format(
            name=user.name, address=user.address, team=user.team, firm=world.cast.firm, today=in_full(world.today)
        )
        system = f"{who}\n{_HOW}"
        if rules.names:
            told = "\n".join(f"{number}. {rule}" for number, rule in enumerate(rules.words(), 1))
            system += f"\n{_RULES.format(rules=told)}"
        return Task(
            (Message("system", system), Message("user", request.words)),
            "It is done.",
            difficulty=float(self.level),
            gold=request.lookups + request.writes,
            metadata={
                "kind": request.kind,
                "rules": rules.names,
                "condition": request.condition,
                "holds": request.holds,
                "user": user.address,
                "rows": world.rows(),
                "other": [[write.name, dict(write.arguments)] for write in request.other],
            },
        )

    def start(self) -> None:
        self.user_address = self.task.metadata["user"]
        for database, tables in self.task.metadata["rows"].items():
            for table, rows in tables.items():
                self.states[database].fill(table, rows)

    @reward
    def solved(self) -> bool:
        return self.hash() == self.after(self.task.gold).hash()

    @cheat
    def says_done(self) -> Turn:
        return Turn("It is done. All five databases are as you wished.")

    @cheat
    def copies_out(self) -> Turn:
        """The first tool that writes, with words copied from the request."""
        if self.num_turns:
            return self.says_done()
        text = self.task.messages[-1].text
        quoted, addresses = re.findall(r'"([^"]+)"', text), re.findall(r"[\w.]+@[\w.-]+\w", text)
        to = addresses[0] if addresses else self.user_address
        given = {"to": to, "subject": quoted[0] if quoted else text[:60], "body": quoted[-1] if quoted else text}
        return Turn(tool_calls=(ToolCall("send_email", given),))

    @cheat
    def does_both(self) -> Turn:
        """Knows what would be right, and does all else that was mentioned as well: both branches, or the opposite."""
        if self.num_turns:
            return self.says_done()
        other = [ToolCall(name, given) for name, given in self.task.metadata["other"]]
        report = ToolCall("send_email", {"to": self.user_address, "subject": "Done", "body": "It is done."})
        return Turn(tool_calls=(*self.task.gold, *other, report))

    @cheat
    def tries_everything(self) -> Turn:
        """Every tool that writes, on every number that is mentioned or can be found first."""
        if self.num_turns:
            return self.says_done()
        numbers = dict(re.findall(r"\b(([METC])\d{4})\b", self.task.messages[-1].text))
        by_kind = {kind: number for number, kind in numbers.items()}
        tables = {
            "M": ("email", "emails"),
            "E": ("calendar", "events"),
            "T": ("projects", "tasks"),
            "C": ("crm", "customers"),
        }
        for kind, (database, table) in tables.items():
            if kind not in by_kind:
                by_kind[kind] = self.states[database].row(f"SELECT id FROM {table} ORDER BY id")["id"]
        calls = (
            ToolCall("label_email", {"email": by_kind["M"], "label": "done"}),
            ToolCall("delete_email", {"email": by_kind["M"]}),
            ToolCall("cancel_event", {"event": by_kind["E"]}),
            ToolCall("move_task", {"task": by_kind["T"], "status": "Done"}),
            ToolCall("set_customer_status", {"customer": by_kind["C"], "status": "won"}),
        )
        return Turn(tool_calls=calls)
