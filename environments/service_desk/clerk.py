"""The clerk: opens tickets in a world, files them as triage would, and knows the ways in which a ticket ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...messages import ToolCall
from .faults import Fault
from .policy import Policy
from .schema import PRIORITIES
from .words import CLOSINGS, IMPACTS, OPENERS, URGENCIES
from .world import Asset, Person, Runbook, Ticket, World


@dataclass
class Case:
    """A ticket and its gold calls. `checks` come before any action and before it is resolved."""

    ticket: Ticket
    kind: str
    impact: str = ""
    urgency: str = ""
    lookups: list[ToolCall] = field(default_factory=list)
    checks: list[ToolCall] = field(default_factory=list)
    writes: list[ToolCall] = field(default_factory=list)
    hands_off: bool = True
    """Whether it is a breach of the policy to resolve it, or to run an action other than containment."""

    @property
    def gold(self) -> list[ToolCall]:
        return [*self.lookups, *self.checks, *self.writes]


def call(tool: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(tool, arguments)


class Clerk:
    """What all cases share."""

    def __init__(self, world: World, policy: Policy) -> None:
        self.world, self.policy, self.draws = world, policy, world.draws

    # Endings.

    def _mend(self, case: Case, book: Runbook, target: str) -> Case:
        number = case.ticket.id
        case.writes += [
            call("run_action", ticket=number, action=book.fault.action, target=target),
            call("add_note", ticket=number, code=book.note),
            call("resolve", ticket=number, code=book.resolution),
        ]
        case.hands_off = False
        return case

    def _escalate(self, case: Case, queue: str, reason: str) -> Case:
        case.writes.append(call("escalate", ticket=case.ticket.id, queue=queue, reason=reason))
        return case

    def _request(self, case: Case, approver: Person) -> Case:
        case.writes.append(call("request_approval", ticket=case.ticket.id, approver=approver.id))
        return case

    def _right(self, case: Case, owner: Person, away: bool) -> Person:
        """Who may give an approval that is this person's to give, and the look-ups that tell."""
        right = self.world.approver(owner, away)
        if self.world.level == 3:
            case.lookups.append(call("read_user", user=owner.id))
        return right

    def _incident(self, case: Case, device: Asset | None) -> Case:
        action, target = (
            ("isolate_device", device.tag) if device is not None else ("end_sessions", case.ticket.requester)
        )
        case.writes.append(call("run_action", ticket=case.ticket.id, action=action, target=target))
        return self._escalate(case, self.policy.security, self.policy.incident)

    def _older(self, case: Case, fault: Fault, twist: str, **names: str) -> None:
        """Where the twist says so, somebody else's ticket on the same: open, so that this is its duplicate, or resolved."""
        if self.world.level == 3:
            case.lookups.append(call("search_tickets", query=next(iter(names.values()))))
        if twist not in ("duplicate", "before"):
            return
        text = self.draws.one(fault.texts).format(**names)
        subject = self.draws.one(fault.subjects).format(**names)
        older = self.world.ticket(self.world.person(), subject, text, self.draws.between(1, 4))
        self.filed(
            older, fault, self.draws.one(("open", "waiting", "escalated")) if twist == "duplicate" else "resolved"
        )
        if twist == "duplicate":
            case.writes.append(call("link_duplicate", ticket=case.ticket.id, original=older.id))

    # Tickets.

    def _open(self, who: Person, fault: Fault, twist: str, **names: str) -> Case:
        subject, text = self.draws.one(fault.subjects).format(**names), self.draws.one(fault.texts).format(**names)
        case = self._ticket(who, f"{fault.key}:{twist}" if twist else fault.key, subject, text, fault.impacts)
        book = self.world.runbooks[fault.key]
        if self.world.level > 1:
            case.lookups.append(call("search_runbooks", query=fault.title))
        case.lookups.append(call("read_runbook", runbook=book.id))
        return case

    def _ticket(self, who: Person, kind: str, subject: str, text: str, impacts: tuple[str, ...]) -> Case:
        impact, urgency = self.draws.one(impacts), self.draws.one(("high", "medium", "low"))
        extent = self.draws.one(IMPACTS[impact]).format(department=who.department, site=who.site)
        said = [self.draws.one(OPENERS), text, extent, self.draws.one(URGENCIES[urgency]), self.draws.one(CLOSINGS)]
        ticket = self.world.ticket(who, subject, " ".join(part for part in said if part))
        return Case(ticket, kind, impact, urgency, [call("read_ticket", ticket=ticket.id)])

    def _names(self, fault: Fault) -> dict[str, str]:
        """What a ticket of this fault is about, if that has a name."""
        return {
            "printer": lambda: {"printer": self.world.printer().tag},
            "service": lambda: {"service": self.world.service().name},
            "licence": lambda: {"resource": self.world.resource("licence").name},
            "folder": lambda: {"resource": self.world.resource("folder").name},
        }.get(fault.on, dict)()

    def filed(self, ticket: Ticket, fault: Fault, status: str) -> None:
        """As triage leaves a ticket, and what came of it."""
        ticket.category, ticket.queue = fault.category, self.world.queue_of[fault.category]
        ticket.priority, ticket.status = self.draws.one(PRIORITIES[1:]), status
        if status == "resolved":
            ticket.resolution = self.world.runbooks[fault.key].resolution
        if status == "escalated":
            ticket.reason = self.world.runbooks[fault.key].reason
