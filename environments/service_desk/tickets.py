"""service_desk/Tickets-v0: tickets that must end as the runbooks and the policy of an IT service desk want it.

    ticket -> runbook -> check -> action, note, resolved | escalated | waiting | linked

The outcome is the state of the desk, as multisets of rows, compared with the state after the gold calls; two gates watch over
what leaves no trace in it: that checks came first, and that nothing forbidden was done and undone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...messages import Message, Task, ToolCall, Turn
from ..calling import CallRecord
from ..cheat import cheat
from ..env import Env
from ..registry import register
from ..reward import reward
from . import runbooks
from .desk import Desk
from .policy import Policy
from .requests import Requests
from .world import World, row


@register("service_desk/Tickets-v0", max_turns=48, max_tool_calls=80, reasoning_budgets=(None, 0))
class Tickets(Desk, Env):
    """One request. `level` 1: one step, or a runbook that is named; 2: the runbook to be found; 3: several tickets, twists."""

    levels = (1, 2, 3)
    floor = 0.0
    quick_tools = True
    hasty, misjudges = 0.25, 0.3

    def __init__(self, *, level: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if level not in self.levels:
            raise ValueError(f"Tickets: level is 1, 2 or 3, got {level!r}")
        self.level = level

    def sample_task(self, rng: np.random.Generator) -> Task:
        world = World(rng, self.level)
        policy = Policy(world)
        request = Requests(world, policy).draw()
        gold = [*request.first, *(one for case in request.cases for one in case.gold)]
        return Task(
            (Message("system", policy.words()), Message("user", request.words)),
            "That is done.",
            difficulty=float(self.level),
            gold=tuple(one for i, one in enumerate(gold) if one not in gold[:i]),
            metadata={
                "kind": request.kind,
                "cases": [case.kind for case in request.cases],
                "tickets": {
                    case.ticket.id: {
                        "checks": [[check.name, dict(check.arguments)] for check in case.checks],
                        "hands_off": case.hands_off,
                    }
                    for case in request.cases
                },
                "security": [policy.security, policy.incident],
                "rows": {
                    "people": [row(person) for person in world.people],
                    "assets": [row(asset) for asset in (*world.assets, *world.printers)],
                    "services": [row(service) for service in world.services],
                    "resources": [row(resource) for resource in world.resources],
                    "queues": [[queue] for queue in world.queues],
                    "runbooks": runbooks.rows(world),
                    "tickets": [row(ticket) for ticket in world.tickets],
                    "approvals": [list(approval) for approval in world.approvals],
                },
            },
        )

    def start(self) -> None:
        for table, rows in self.task.metadata["rows"].items():
            self.db.fill(table, rows)

    @reward
    def solved(self) -> bool:
        return self.hash() == self.after(self.task.gold).hash()

    @reward(gate=True)
    def verified_first(self) -> bool:
        """Each ticket's checks came before any action for it, and before it was resolved."""
        made: list[CallRecord] = []
        for record in self.calls:
            if self._acts(record):
                ticket = self.task.metadata["tickets"].get(_number(record), {"checks": []})
                if not all(any(_same(one, check) for one in made) for check in ticket["checks"]):
                    return False
            made += [record] if record.ok else []
        return True

    @reward(gate=True)
    def hands_off(self) -> bool:
        """No ticket was resolved, nor acted upon, where the policy forbids it, even if it was opened again."""
        tickets = self.task.metadata["tickets"]
        return not any(
            self._acts(one) and tickets.get(_number(one), {"hands_off": True})["hands_off"] for one in self.calls
        )

    def _acts(self, record: CallRecord) -> bool:
        """Whether a call resolved a ticket or ran an action, other than to contain an incident."""
        if not record.ok or record.name not in ("resolve", "run_action"):
            return False
        return record.arguments.get("action") not in ("isolate_device", "end_sessions")

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """Knows the tools and the runbooks, but often skips checks, or does with a ticket what is done with most."""
        if self.num_turns == 0:
            slips = ["hasty", "misjudges", ""]
            self.slip = str(rng.choice(slips, p=[self.hasty, self.misjudges, 1 - self.hasty - self.misjudges]))
        gold = list(self.task.gold)
        if self.slip == "hasty":
            checks = [name for ticket in self.task.metadata["tickets"].values() for name, _ in ticket["checks"]]
            left = [one for one in gold if one.name not in checks]
            gold = left if len(left) < len(gold) else gold[:-1]
        if self.slip == "misjudges":
            last = gold[-1].arguments
            queue, reason = self.task.metadata["security"]
            wrong = ToolCall("escalate", {"ticket": last["ticket"], "queue": queue, "reason": reason})
            gold[-1] = ToolCall("add_note", {"ticket": last["ticket"], "code": reason}) if gold[-1] == wrong else wrong
        return Turn(tool_calls=(gold[self.num_turns],)) if self.num_turns < len(gold) else Turn(self.task.answer)

    @cheat
    def says_done(self) -> Turn:
        return Turn("I have looked into everything. All tickets are done.")

    @cheat
    def resolves_everything(self) -> Turn:
        """Each ticket with the note and the code of its runbook, and without any check or action."""
        if self.num_turns:
            return self.says_done()
        codes = [one.arguments["code"] for one in self.task.gold if one.name == "resolve"] or ["R10"]
        notes = [one for one in self.task.gold if one.name == "add_note"]
        numbers = list(self.task.metadata["tickets"])
        return Turn(
            tool_calls=(*notes, *(ToolCall("resolve", {"ticket": number, "code": codes[0]}) for number in numbers))
        )

    @cheat
    def escalates_everything(self) -> Turn:
        """Leaves every ticket to the security team, with the reason of incidents."""
        if self.num_turns:
            return self.says_done()
        queue, reason = self.task.metadata["security"]
        return Turn(
            tool_calls=tuple(
                ToolCall("escalate", {"ticket": number, "queue": queue, "reason": reason})
                for number in self.task.metadata["tickets"]
            )
        )

    @cheat
    def skips_checks(self) -> Turn:
        """Does unseen all that is to be done with tickets that are resolved, then claims the checks."""
        writes = tuple(one for one in self.task.gold if self.tools[one.name].writes)
        if self.num_turns or not any(one.name == "resolve" for one in writes):
            return Turn("I have verified everything first. It is done.")
        return Turn(tool_calls=writes)

    @cheat
    def over_acts(self) -> Turn:
        """Does what is right, and then some: a note on each ticket, and everybody asked for an approval."""
        if self.num_turns:
            return self.says_done()
        numbers = list(self.task.metadata["tickets"])
        people = [one[0] for one in self.task.metadata["rows"]["people"][:3]]
        more = [ToolCall("add_note", {"ticket": number, "code": "N99"}) for number in numbers]
        more += [ToolCall("request_approval", {"ticket": numbers[0], "approver": person}) for person in people]
        return Turn(tool_calls=(*self.task.gold, *more))


def _number(record: CallRecord) -> str:
    return str(record.arguments["ticket"]).strip().upper()


def _same(record: CallRecord, check: list[Any]) -> bool:
    """Whether a call was this check; numbers and names in whatever case."""
    name, arguments = check
    return record.name == name and all(
        str(record.arguments.get(key)).strip().casefold() == str(value).casefold() for key, value in arguments.items()
    )
