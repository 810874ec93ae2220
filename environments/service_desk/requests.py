"""Requests: which cases an episode has, and in what words somebody is sent to work on them.

level 1: one step, or one runbook that is named (steps.py)
level 2: one or two tickets, and the runbook is to be found
level 3: up to three tickets, at least one of them with a twist that the policy speaks of
"""

from __future__ import annotations

from ...messages import ToolCall
from .cases import ACCOUNT, LAPTOP, PLAIN, PRINTER, SERVICE
from .clerk import Case, call
from .faults import BY_KEY
from .steps import FAMILIES, Request, Steps

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


class Requests(Steps):
    """Draws one request in a world, and the tickets beside it."""

    def draw(self) -> Request:
        request = (
            self.simple() if self.world.level == 1 else self._triage() if self.draws.chance(0.35) else self._handle()
        )
        self._background()
        return request

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
                ("account", "account", "account", "laptop", "printer", "service", "grant", "incident")
            )
            cases = [self._of(family, self.draws.one(TWISTS[family]))]
            for _ in range(self.draws.below(3)):
                family = self.draws.one([one for one in (*FAMILIES, *FAMILIES, "incident") if one != family])
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
        case = self.case(key, twist)
        self.cases.filed(case.ticket, BY_KEY[key], "new")
        return case

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
            words = words.replace("see it", "see them").replace(
                "bring it to where it belongs", "bring them to where they belong"
            )
        return Request(kind, self.greeted(words), cases, first)

    def _background(self) -> None:
        """Tickets that nobody asks about, none of them new."""
        for _ in range(self.draws.between(6, 9)):
            fault, who = BY_KEY[self.draws.one((*ACCOUNT, *LAPTOP))], self.draws.one(self.world.people)
            ticket = self.world.ticket(
                who, self.draws.one(fault.subjects), self.draws.one(fault.texts), self.draws.between(1, 6)
            )
            self.cases.filed(ticket, fault, self.draws.one(("open", "escalated", "resolved", "resolved")))


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
