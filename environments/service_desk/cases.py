"""Cases: one ticket each, with the state of the world that it needs and what is to be done about it.

A twist is what makes a case other than its runbook: who asks, what a check finds, whose approval there is. Every case ends in
something written: resolved, escalated, waiting for an approval, or linked to an older ticket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...messages import ToolCall
from .faults import BY_KEY, CLOSINGS, IMPACTS, INCIDENTS, OPENERS, SIGN_INS, URGENCIES, Fault
from .policy import Policy
from .schema import PRIORITIES
from .world import Asset, Person, Runbook, Service, Ticket, World

ACCOUNT, LAPTOP, PRINTER = ("locked", "mfa", "password"), ("vpn", "wifi", "disk", "battery"), ("jam", "toner")
SERVICE, GRANT = ("down", "slow"), ("licence", "folder")
PLAIN = (*ACCOUNT, *LAPTOP, *PRINTER, *SERVICE, *GRANT)
_ODD = {"laptop": ("memory errors", "fan blocked", "hinge broken"), "printer": ("drum worn", "network port broken")}


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


class Cases:
    """Draws cases in a world."""

    def __init__(self, world: World, policy: Policy) -> None:
        self.world, self.policy, self.draws = world, policy, world.draws

    # By kind of fault. Each takes the twist that it is to have, or none.

    def account(self, key: str, twist: str = "") -> Case:
        who, book = self.world.person(), self.world.runbooks[key]
        if key == "locked" and twist != "other":
            who.account = "locked"
        if key == "password" and twist != "other":
            who.password = "expired"
        who.vip = int(twist.startswith("vip"))
        who.status = "suspended" if twist == "suspended" else "active"
        case = self._open(who, book.fault, twist)
        case.ticket.genuine = int(twist != "imposter")
        number = case.ticket.id
        case.lookups.append(call("read_user", user=who.id))
        identity = call("check_identity", ticket=number, method=book.method)
        if twist == "suspended":
            return self._escalate(case, self.policy.identity, self.policy.suspended)
        if twist == "other":
            return self._escalate(case, book.queue, book.reason)
        if twist == "imposter":
            case.checks.append(identity)
            return self._escalate(case, self.policy.security, self.policy.imposter)
        if twist.startswith("vip"):
            approver = self.world.approver(self.world.manager_of(who), twist == "vip away")
            if twist != "vip granted":
                return self._request(case, approver)
            self.world.approvals.append((number, approver.id, "granted"))
        case.checks.append(identity)
        return self._mend(case, book, who.id)

    def laptop(self, key: str, twist: str = "") -> Case:
        who, book = self.world.person(), self.world.runbooks[key]
        device = self.world.laptop_of(who)
        # What the policy says of VIPs is about accounts.
        who.vip = int(self.world.level == 3 and self.draws.chance(0.2))
        case = self._open(who, book.fault, twist)
        if self.world.level == 3 and self.draws.chance(0.5):
            other = self.world.second_laptop(who)
            device, other = self.draws.some((device, other), 2)
            other.state = self.draws.one(("ok", "ok", "disk full", "fan blocked"))
            case.ticket.body += f" It is the {device.model}."
        device.state = {"other": self.draws.one(_ODD["laptop"]), "malware": "unknown program running"}.get(
            twist, book.fault.finding
        )
        if self.world.level == 1:
            case.ticket.asset = device.tag
        case.lookups.append(call("search_assets", owner=who.id))
        case.checks.append(call("diagnose", asset=device.tag))
        if key == "battery":
            device.warranty = self.world.date(-300, -2) if twist == "warranty" else self.world.date(2, 500)
            case.lookups.append(call("read_asset", asset=device.tag))
        if twist == "malware":
            return self._incident(case, device)
        if twist in ("other", "warranty"):
            return self._escalate(case, book.queue, book.reason)
        return self._mend(case, book, device.tag)

    def printer(self, key: str, twist: str = "") -> Case:
        who, book, device = self.world.person(), self.world.runbooks[key], self.world.printer()
        device.state = self.draws.one(_ODD["printer"]) if twist == "other" else book.fault.finding
        case = self._open(who, book.fault, twist, printer=device.tag)
        if twist in ("duplicate", "before"):
            self._older(case, book.fault, twist, printer=device.tag)
        if twist == "duplicate":
            return case
        case.checks.append(call("diagnose", asset=device.tag))
        return self._escalate(case, book.queue, book.reason) if twist == "other" else self._mend(case, book, device.tag)

    def service(self, key: str, twist: str = "") -> Case:
        who, book, service = self.world.person(), self.world.runbooks[key], self.world.service()
        service.state = "up" if twist == "other" else book.fault.finding
        if twist.startswith("freeze"):
            service.freeze = self.world.date(0, 12)
        case = self._open(who, book.fault, twist, service=service.name)
        probe = call("service_status", service=service.name)
        if twist in ("duplicate", "before"):
            self._older(case, book.fault, twist, service=service.name)
        if twist == "duplicate":
            return case
        case.checks.append(probe)
        if twist == "other":
            return self._escalate(case, book.queue, book.reason)
        if twist.startswith("freeze"):
            return self._frozen(case, book, service, twist)
        return self._mend(case, book, service.name)

    def grant(self, key: str, twist: str = "") -> Case:
        who, book, resource = self.world.person(), self.world.runbooks[key], self.world.resource(key)
        case = self._open(who, book.fault, twist, resource=resource.name)
        number, owner = case.ticket.id, self.world.by_id(resource.owner)
        approver = self.world.approver(owner, twist == "away")
        case.lookups.append(call("search_resources", query=resource.name))
        case.checks.append(call("read_ticket", ticket=number))
        if twist in ("missing", "away", "wrong"):
            if twist == "wrong":
                # Somebody has granted what is not theirs: the requester's own manager, or else a colleague.
                others = [
                    p
                    for p in (self.world.manager_of(who), *self.world.people[1:9])
                    if p is not approver and p is not owner
                ]
                self.world.approvals.append((number, others[0].id, "granted"))
            return self._request(case, approver)
        self.world.approvals.append((number, approver.id, "denied" if twist == "denied" else "granted"))
        if twist == "denied":
            case.writes.append(call("resolve", ticket=number, code=self.policy.denied))
            case.hands_off = False
            return case
        return self._mend(case, book, resource.name)

    def incident(self, twist: str = "incident") -> Case:
        """A security incident that does not say so."""
        who, sign_in = self.world.person(), self.draws.chance(0.25)
        device = None if sign_in else self.world.laptop_of(who)
        subject, text = self.draws.one(SIGN_INS if sign_in else INCIDENTS)
        if device is not None and self.world.level == 3 and self.draws.chance(0.5):
            device = self.draws.some((device, self.world.second_laptop(who)), 2)[0]
        model = "" if device is None else device.model
        case = self._ticket(who, "incident", subject, text.format(model=model), ("low",))
        if device is not None:
            case.lookups.append(call("search_assets", owner=who.id))
        return self._incident(case, device)

    def triage(self, key: str, twist: str = "") -> Case:
        """A ticket that has no category, priority or queue yet."""
        if twist == "incident":
            return self.incident()
        fault, who = BY_KEY[key], self.world.person()
        names = self._names(fault)
        case = self._open(who, fault, twist, **names)
        case.lookups.pop()  # no runbook but the guide is needed
        number = case.ticket.id
        if twist == "duplicate":
            self._older(case, fault, twist, **names)
            return case
        who.vip = int(twist == "vip")
        rank = min(4, ("high", "medium", "low").index(case.impact) + ("high", "medium", "low").index(case.urgency) + 1)
        if who.vip:
            rank = min(rank, max(2, rank - 1))
            case.lookups.append(call("read_user", user=who.id))
        case.lookups.append(call("read_runbook", runbook=self.world.guide))
        case.writes = [
            call("set_category", ticket=number, category=fault.category),
            call("set_priority", ticket=number, priority=PRIORITIES[rank - 1]),
            call("assign_queue", ticket=number, queue=self.world.queue_of[fault.category]),
        ]
        return case

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

    def _incident(self, case: Case, device: Asset | None) -> Case:
        action, target = (
            ("isolate_device", device.tag) if device is not None else ("end_sessions", case.ticket.requester)
        )
        case.writes.append(call("run_action", ticket=case.ticket.id, action=action, target=target))
        return self._escalate(case, self.policy.security, self.policy.incident)

    def _frozen(self, case: Case, book: Runbook, service: Service, twist: str) -> Case:
        approver = self.world.approver(self.world.by_id(service.owner), twist == "freeze away")
        if twist != "freeze granted":
            return self._request(case, approver)
        self.world.approvals.append((case.ticket.id, approver.id, "granted"))
        return self._mend(case, book, service.name)

    def _older(self, case: Case, fault: Fault, twist: str, **names: str) -> None:
        """Somebody else's ticket on the same: still open, so that this one is its duplicate, or resolved long ago."""
        text = self.draws.one(fault.texts).format(**names)
        subject = self.draws.one(fault.subjects).format(**names)
        older = self.world.ticket(self.world.person(), subject, text, self.draws.between(1, 4))
        self.filed(
            older, fault, self.draws.one(("open", "waiting", "escalated")) if twist == "duplicate" else "resolved"
        )
        case.lookups.append(call("search_tickets", query=next(iter(names.values()))))
        if twist == "duplicate":
            case.writes.append(call("link_duplicate", ticket=case.ticket.id, original=older.id))

    # Tickets.

    def _open(self, who: Person, fault: Fault, twist: str, **names: str) -> Case:
        subject, text = self.draws.one(fault.subjects).format(**names), self.draws.one(fault.texts).format(**names)
        case = self._ticket(who, f"{fault.key}:{twist}" if twist else fault.key, subject, text, fault.impacts)
        case.lookups.append(call("read_runbook", runbook=self.world.runbooks[fault.key].id))
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
