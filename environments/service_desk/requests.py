"""Requests: which cases an episode has, and in what words somebody is sent to work on them.

level 1: one step that is said outright, or one runbook that is named        level 2: one or two tickets, the runbook to be
found        level 3: up to three tickets, at least one with a twist of the policy's
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...messages import ToolCall
from .cases import ACCOUNT, GRANT, LAPTOP, PLAIN, PRINTER, SERVICE, Case, Cases, call
from .faults import BY_KEY
from .policy import Policy
from .schema import PRIORITIES
from .world import World

TWISTS: dict[str, tuple[str, ...]] = {
    "account": ("vip granted", "vip missing", "vip away", "suspended", "imposter", "other"),
    "laptop": ("other", "malware", "warranty"),
    "printer": ("duplicate", "before", "other"),
    "service": ("duplicate", "before", "freeze granted", "freeze missing", "freeze away", "other"),
    "grant": ("missing", "away", "wrong", "denied"),
    "incident": ("incident",),
}
"""Of level 3, by kind of fault."""
MILD: dict[str, tuple[str, ...]] = {
    "laptop": ("other", "warranty", "malware"),
    "service": ("other",),
    "printer": ("other",),
    "grant": ("missing",),
    "incident": ("incident",),
}
"""Of level 2: what runbooks tell of themselves."""
FAMILIES = {"account": ACCOUNT, "laptop": LAPTOP, "printer": PRINTER, "service": SERVICE, "grant": GRANT}
_GREETINGS = ("", "", "", "Hi, ", "Good morning, ", "Hello, ")
_HANDLE = (
    "please take care of {what}.",
    "{what}: please see it through.",
    "please work on {what}.",
    "could you deal with {what}?",
    "please handle {what}, as far as we can take it here.",
    "can you take {what}, please?",
    "next for you: {what}. Please bring it to where it belongs.",
    "I leave {what} to you.",
)
_TRIAGE = (
    "please triage {what}.",
    "could you triage {what}?",
    "{what}: triage, please.",
    "please do the triage of {what}.",
    "can you triage {what}, please?",
    "next for you: the triage of {what}.",
    "somebody has to triage {what}; please do.",
)


@dataclass
class Request:
    """What is asked, and the cases that it is about."""

    kind: str
    words: str
    cases: list[Case]
    first: list[ToolCall] = field(default_factory=list)
    """Look-ups that find the tickets."""


class Requests:
    """Draws one request in a world."""

    def __init__(self, world: World, policy: Policy) -> None:
        self.world, self.draws = world, world.draws
        self.cases = Cases(world, policy)

    def draw(self) -> Request:
        request = (
            self._simple() if self.world.level == 1 else self._triage() if self.draws.chance(0.35) else self._handle()
        )
        self._background({case.ticket.id: None for case in request.cases})
        return request

    # Level 1.

    def _simple(self) -> Request:
        way = self.draws.below(10)
        if way < 5:
            return self._said()
        key = self.draws.one(
            PLAIN if way < 8 else tuple(one for one in PLAIN if one != "mfa" and BY_KEY[one].on not in GRANT)
        )
        case = self._case(key, "" if way < 8 else "other")
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
            return Request("resolve", self._greeted(words), [case])
        case.lookups = [one for one in case.lookups if one.name == "read_runbook"]
        case.checks = []
        words = self.draws.one(
            (
                f"I have been through {book} for {number}, and what it checks for is not so. Please escalate as it says.",
                f"{number} is not what {book} is for: the check finds something else. Please escalate it as the runbook tells.",
            )
        )
        return Request("escalate", self._greeted(words), [case])

    def _said(self) -> Request:
        """One step with everything said."""
        key = self.draws.one(PLAIN)
        fault, case = BY_KEY[key], self._case(key, "")
        ticket, number = case.ticket, case.ticket.id
        self.cases.filed(ticket, fault, "open")
        case.lookups, case.checks, case.hands_off = [], [], True
        way = self.draws.below(6)
        if way == 0:
            priority = self.draws.one([one for one in PRIORITIES if one != ticket.priority])
            case.writes = [call("set_priority", ticket=number, priority=priority)]
            words = self.draws.one(
                (f"please set the priority of {number} to {priority}.", f"{number} should be {priority}.")
            )
        elif way == 1:
            ticket.category = self.draws.one(
                [one for one in ("hardware", "network", "software", "access") if one != fault.category]
            )
            case.writes = [call("set_category", ticket=number, category=fault.category)]
            words = self.draws.one(
                (
                    f"please set the category of {number} to {fault.category}.",
                    f"{number} belongs to {fault.category}, please correct its category.",
                )
            )
        elif way == 2:
            queue = self.draws.one([one for one in self.world.queues if one != ticket.queue])
            case.writes = [call("assign_queue", ticket=number, queue=queue)]
            words = self.draws.one(
                (
                    f"please put {number} into the queue {queue}.",
                    f"{number} is for the queue {queue}, please move it there.",
                )
            )
        elif way == 3:
            code = self.world.codes.next("N")
            case.writes = [call("add_note", ticket=number, code=code)]
            words = self.draws.one(
                (f"please add the note {code} to {number}.", f"{number} needs the work note {code}.")
            )
        elif way == 4:
            who = self.draws.one(self.world.people[1:9])
            case.writes = [call("request_approval", ticket=number, approver=who.id)]
            words = self.draws.one(
                (
                    f"please request the approval of {who.id} for {number}.",
                    f"{number} needs an approval from {who.name} ({who.id}), please ask for it.",
                )
            )
        else:
            other = self._case(self.draws.one([one for one in PLAIN if one != key]), "").ticket
            self.cases.filed(other, fault, "open")
            case.writes = [call("link_duplicate", ticket=number, original=other.id)]
            words = self.draws.one(
                (
                    f"{number} is a duplicate of {other.id}, please link it.",
                    f"please link {number} as a duplicate of {other.id}.",
                )
            )
        self.world.approvals = []
        return Request("triage", self._greeted(words), [case])

    # Levels 2 and 3.

    def _triage(self) -> Request:
        count = self.draws.between(1, 2) if self.world.level == 2 else self.draws.between(2, 3)
        twists = [""] * count
        if self.world.level == 3:
            twists[self.draws.below(count)] = self.draws.one(("vip", "vip", "duplicate", "incident"))
        keys = self.draws.some(PLAIN, 13)
        cases = []
        for twist in twists:
            fits = (*PRINTER, *SERVICE) if twist == "duplicate" else PLAIN
            key = next(key for key in keys if key in fits)
            keys.remove(key)
            cases.append(self.cases.triage(key, twist))
        return self._worded("triage", cases, _TRIAGE)

    def _handle(self) -> Request:
        if self.world.level == 2:
            family = self.draws.one(tuple(FAMILIES) if self.draws.chance(0.5) else tuple(MILD))
            twist = self.draws.one(MILD[family]) if family in MILD and self.draws.chance(0.5) else ""
            cases = [self._of(family, twist)]
        else:
            family = self.draws.one(
                ("account", "account", "laptop", "printer", "service", "service", "grant", "incident")
            )
            cases = [self._of(family, self.draws.one(TWISTS[family]))]
            for _ in range(self.draws.below(3)):
                others = [one for one in TWISTS if one != family]
                family = self.draws.one(others)
                twist = self.draws.one(TWISTS[family]) if self.draws.chance(0.5) else ""
                cases.append(self._of(family, twist))
            cases = self.draws.some(cases, len(cases))
        kind = "resolve" if any(not case.hands_off for case in cases) else "escalate"
        return self._worded(kind, cases, _HANDLE)

    def _of(self, family: str, twist: str) -> Case:
        if family == "incident":
            case = self.cases.incident()
            # Whoever took it in saw no more in it than its author did.
            self.cases.filed(case.ticket, BY_KEY[self.draws.one(LAPTOP)], "new")
            return case
        key = "battery" if twist == "warranty" else self.draws.one(FAMILIES[family])
        key = self.draws.one(("locked", "password")) if (family, twist) == ("account", "other") else key
        case = self._case(key, twist)
        self.cases.filed(case.ticket, BY_KEY[key], "new")
        return case

    def _case(self, key: str, twist: str) -> Case:
        for family, keys in FAMILIES.items():
            if key in keys:
                draw: Callable[..., Case] = getattr(self.cases, family)
                return draw(key, twist)
        raise AssertionError(f"{key} is of no family")

    def _worded(self, kind: str, cases: list[Case], ways: tuple[str, ...]) -> Request:
        """By number, or as what is new: in the front desk's queue, or from these people."""
        numbers = [case.ticket.id for case in cases]
        first: list[ToolCall] = []
        what = _listed(numbers)
        way = self.draws.below(4) if self.world.level == 3 else self.draws.below(2)
        if way == 1 and len(cases) == 1:
            who = self.world.by_id(cases[0].ticket.requester)
            what = self.draws.one((f"the new ticket of {who.name}", f"what {who.name} has opened today"))
            first = [call("find_user", query=who.name), call("search_tickets", requester=who.id)]
        elif way == 2:
            what = self.draws.one(("everything that is new today", "all tickets that are new", "all new tickets"))
            first = [call("search_tickets", status="new")]
        words = self.draws.one(ways).format(what=what)
        if way == 2 or len(cases) > 1:
            words = words.replace("see it through", "see them through")
        return Request(kind, self._greeted(words), cases, first)

    def _greeted(self, words: str) -> str:
        words = f"{self.draws.one(_GREETINGS)}{words}"
        return f"{words[0].upper()}{words[1:]}"

    def _background(self, own: dict[str, Any]) -> None:
        """Tickets that nobody asks about, none of them new."""
        for _ in range(self.draws.between(6, 9)):
            fault = BY_KEY[self.draws.one((*ACCOUNT, *LAPTOP))]
            who, status = (
                self.draws.one(self.world.people),
                self.draws.one(("open", "escalated", "resolved", "resolved")),
            )
            text, subject = self.draws.one(fault.texts), self.draws.one(fault.subjects)
            self.cases.filed(self.world.ticket(who, subject, text, self.draws.between(1, 6)), fault, status)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
