"""Requests of level 1: one step that is said outright, one runbook that is named, or an escalation as a runbook tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ...messages import ToolCall
from .cases import ACCOUNT, GRANT, LAPTOP, PLAIN, PRINTER, SERVICE, Cases
from .clerk import Case, call
from .faults import BY_KEY
from .policy import Policy
from .schema import PRIORITIES
from .world import Ticket, World

Step = tuple[ToolCall, str, str]
FAMILIES = {"account": ACCOUNT, "laptop": LAPTOP, "printer": PRINTER, "service": SERVICE, "grant": GRANT}
_GREETINGS = ("", "", "", "Hi, ", "Good morning, ", "Hello, ")


@dataclass
class Request:
    """What is asked, and the cases that it is about."""

    kind: str
    words: str
    cases: list[Case]
    first: list[ToolCall] = field(default_factory=list)
    """Look-ups that find the tickets."""


class Steps:
    """Draws requests in a world; the base of those of the other levels."""

    def __init__(self, world: World, policy: Policy) -> None:
        self.world, self.draws = world, world.draws
        self.cases = Cases(world, policy)

    def simple(self) -> Request:
        way = self.draws.below(10)
        if way < 5:
            return self._said()
        key = self.draws.one(
            PLAIN if way < 8 else tuple(one for one in PLAIN if one != "mfa" and BY_KEY[one].on not in GRANT)
        )
        case = self.case(key, "" if way < 8 else "other")
        self.cases.filed(case.ticket, BY_KEY[key], "open")
        number, book = case.ticket.id, self.world.runbooks[key].id
        if way < 8:
            words = self.draws.one(
                (
                    f"please take care of {number}; the runbook for it is {book}.",
                    f"{number} is a case for {book}: please carry it out from the check to the end.",
                    f"work on {number} by runbook {book}, please.",
                )
            )
            return Request("resolve", self.greeted(words), [case])
        case.lookups = [one for one in case.lookups if one.name == "read_runbook"]
        case.checks = []
        words = self.draws.one(
            (
                f"I have been through {book} for {number}, and what it checks for is not so. Please escalate as it says.",
                f"{number} is not what {book} is for: the check finds something else. Please escalate it as the runbook tells.",
            )
        )
        return Request("escalate", self.greeted(words), [case])

    def _said(self) -> Request:
        """One step with everything said."""
        key = self.draws.one(PLAIN)
        case = self.case(key, "")
        self.cases.filed(case.ticket, BY_KEY[key], "open")
        self.world.approvals = []
        ways = (self._priority, self._category, self._queue, self._note, self._approval, self._duplicate)
        write, *words = self.draws.one(ways)(case.ticket)
        case.lookups, case.checks, case.writes, case.hands_off = [], [], [write], True
        return Request("triage", self.greeted(self.draws.one(words)), [case])

    # Each gives its call, and the words to choose from.

    def _priority(self, ticket: Ticket) -> Step:
        priority = self.draws.one([one for one in PRIORITIES if one != ticket.priority])
        made = call("set_priority", ticket=ticket.id, priority=priority)
        return made, f"please set the priority of {ticket.id} to {priority}.", f"{ticket.id} should be {priority}."

    def _category(self, ticket: Ticket) -> Step:
        right = ticket.category
        ticket.category = self.draws.one([one for one in self.world.queue_of if one not in (right, "security")])
        return (
            call("set_category", ticket=ticket.id, category=right),
            f"please set the category of {ticket.id} to {right}.",
            f"{ticket.id} belongs to {right}, please correct its category.",
        )

    def _queue(self, ticket: Ticket) -> Step:
        queue = self.draws.one([one for one in self.world.queues if one != ticket.queue])
        return (
            call("assign_queue", ticket=ticket.id, queue=queue),
            f"please put {ticket.id} into the queue {queue}.",
            f"{ticket.id} is for the queue {queue}, please move it there.",
        )

    def _note(self, ticket: Ticket) -> Step:
        code = self.world.codes.next("N")
        made = call("add_note", ticket=ticket.id, code=code)
        return made, f"please add the note {code} to {ticket.id}.", f"{ticket.id} needs the work note {code}."

    def _approval(self, ticket: Ticket) -> Step:
        who = self.draws.one(self.world.people[1:9])
        return (
            call("request_approval", ticket=ticket.id, approver=who.id),
            f"please request the approval of {who.id} for {ticket.id}.",
            f"{ticket.id} needs an approval from {who.name} ({who.id}), please ask for it.",
        )

    def _duplicate(self, ticket: Ticket) -> Step:
        key = self.draws.one(PLAIN)
        other = self.case(key, "").ticket
        self.cases.filed(other, BY_KEY[key], "open")
        self.world.approvals = []
        return (
            call("link_duplicate", ticket=ticket.id, original=other.id),
            f"{ticket.id} is a duplicate of {other.id}, please link it.",
            f"please link {ticket.id} as a duplicate of {other.id}.",
        )

    def case(self, key: str, twist: str) -> Case:
        for family, keys in FAMILIES.items():
            if key in keys:
                draw: Callable[..., Case] = getattr(self.cases, family)
                return draw(key, twist)
        raise AssertionError(f"{key} is of no family")

    def greeted(self, words: str) -> str:
        words = f"{self.draws.one(_GREETINGS)}{words}"
        return f"{words[0].upper()}{words[1:]}"
