"""Cases: one ticket each, with the state of the world that it needs and what is to be done about it.

A twist is what makes a case other than its runbook: who asks, what a check finds, whose approval there is. Every case ends in
something written: resolved, escalated, waiting for an approval, or linked to an older ticket.
"""

from __future__ import annotations

from .clerk import Case, Clerk, call
from .faults import BY_KEY
from .schema import PRIORITIES
from .words import INCIDENTS, SIGN_INS
from .world import Runbook, Service

ACCOUNT, LAPTOP, PRINTER = ("locked", "mfa", "password"), ("vpn", "wifi", "disk", "battery"), ("jam", "toner")
SERVICE, GRANT = ("down", "slow"), ("licence", "folder")
PLAIN = (*ACCOUNT, *LAPTOP, *PRINTER, *SERVICE, *GRANT)
_ODD = {"laptop": ("memory errors", "fan blocked", "hinge broken"), "printer": ("drum worn", "network port broken")}


class Cases(Clerk):
    """Draws cases in a world, by kind of fault. Each takes the twist that it is to have, or none."""

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
            approver = self._right(case, self.world.manager_of(who), twist == "vip away")
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
        case.lookups.append(call("search_resources", query=resource.name))
        approver = self._right(case, owner, twist == "away")
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
        del case.lookups[1:]  # no runbook but the guide is needed
        number = case.ticket.id
        if fault.on in ("printer", "service"):
            self._older(case, fault, twist, **names)
        if twist == "duplicate":
            return case
        who.vip = int(twist == "vip")
        rank = min(4, ("high", "medium", "low").index(case.impact) + ("high", "medium", "low").index(case.urgency) + 1)
        if who.vip:
            rank -= rank > 2
        if self.world.level == 3:
            case.lookups.append(call("read_user", user=who.id))
        case.lookups += [
            call("search_runbooks", query="triage guide"),
            call("read_runbook", runbook=self.world.guide),
        ]
        case.writes = [
            call("set_category", ticket=number, category=fault.category),
            call("set_priority", ticket=number, priority=PRIORITIES[rank - 1]),
            call("assign_queue", ticket=number, queue=self.world.queue_of[fault.category]),
        ]
        return case

    def _frozen(self, case: Case, book: Runbook, service: Service, twist: str) -> Case:
        approver = self._right(case, self.world.by_id(service.owner), twist == "freeze away")
        if twist != "freeze granted":
            return self._request(case, approver)
        self.world.approvals.append((case.ticket.id, approver.id, "granted"))
        return self._mend(case, book, service.name)
