"""Worlds: the people, devices, services, runbooks and tickets of one company, before anybody works on them.

    Draws -> people, assets, services, resources -> runbooks with drawn codes -> tickets, which cases.py adds

Codes, queues and methods are drawn anew for each episode, so they are read in runbooks and never known by heart.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..draws import Draws, Numbers
from .faults import FAULTS, Fault

FIRMS = ("Osprey Lines", "Halden & Moor", "Silverbirch", "Quay Nine", "Fellmark", "Tallow Group")
FIRST = (
    *("Agnes", "Boris", "Carla", "Dmitri", "Edda", "Farid", "Greta", "Haruto", "Ivana", "Jonas", "Keiko", "Lamin"),
    *("Mirela", "Noor", "Otto", "Petra", "Rafael", "Selma", "Tariq", "Ursula", "Vera", "Wilhelm", "Yusuf", "Zora"),
)
LAST = (
    *("Aydin", "Birk", "Costa", "Duarte", "Engel", "Fontana", "Gauthier", "Holm", "Ishii", "Jovanov", "Krause", "Lund"),
    *("Mbeki", "Novak", "Olsen", "Pereira", "Rossi", "Sato", "Thorn", "Ulrich", "Varga", "Weiss", "Yilmaz", "Zimmer"),
)
DEPARTMENTS = ("Accounting", "Purchasing", "Dispatch", "Claims", "Planning", "Press Office", "Customs")
SITES = ("Bergen", "Ghent", "Porto", "Leeds")
MODELS = ("Tecto 14", "Tecto 16", "Lumen Air", "Brava X2", "Ridge 5")
SERVICES = ("Tidebook", "Portway", "Claimbox", "Shiftplan", "Ledgerline", "Roomfinder", "Mailgate")
LICENCES = ("DrawKit", "StatLab", "PageForge", "VoxNote", "MapDesk")
FOLDERS = ("Month End", "Tenders", "Fleet", "Board Papers", "Customs Forms")
QUEUES = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Linden", "Maple", "Rowan")
FRONT = "Front Desk"
METHODS = ("callback", "badge", "question")


@dataclass
class Person:
    id: str
    name: str
    email: str
    department: str
    site: str
    manager: str
    vip: int = 0
    status: str = "active"
    account: str = "ok"
    password: str = "valid"
    mfa: str = "registered"


@dataclass
class Asset:
    tag: str
    kind: str
    model: str
    owner: str
    site: str
    warranty: str
    state: str = "ok"
    isolated: int = 0


@dataclass
class Service:
    name: str
    owner: str
    state: str = "up"
    freeze: str = ""
    """The last day of a change freeze, past or to come; empty where there was none."""


@dataclass
class Resource:
    name: str
    kind: str
    owner: str


@dataclass
class Ticket:
    id: str
    opened: str
    requester: str
    subject: str
    body: str
    asset: str = ""
    genuine: int = 1
    category: str = ""
    priority: str = ""
    queue: str = FRONT
    status: str = "new"
    resolution: str = ""
    reason: str = ""


@dataclass
class Runbook:
    """How one fault is mended here."""

    id: str
    fault: Fault
    method: str
    note: str
    resolution: str
    queue: str
    reason: str


class Codes:
    """Codes of a letter and two digits, each given out once."""

    def __init__(self, draws: Draws) -> None:
        self._left = {letter: draws.some(range(10, 100), 40) for letter in "NRE"}

    def next(self, letter: str) -> str:
        return f"{letter}{self._left[letter].pop()}"


class World:
    """Everything that there is in one episode. Cases take from it what they are about, each something of its own."""

    def __init__(self, rng: np.random.Generator, level: int) -> None:
        self.draws = draws = Draws(rng)
        self.level, self.numbers, self.codes = level, Numbers(draws), Codes(draws)
        self.today = dt.date(2026, 1, 12) + dt.timedelta(draws.below(320))
        self.firm = draws.one(FIRMS)
        queues = draws.some(QUEUES, 8)
        categories = ("identity", "network", "hardware", "printing", "software", "access", "security")
        self.queue_of: dict[str, str] = dict(zip(categories, queues, strict=False))
        self.queues = [FRONT, *queues]
        self.people = self._people()
        self.assets = [
            Asset(self.numbers.next("LT"), "laptop", draws.one(MODELS), p.id, p.site, self.date(30, 700))
            for p in self.people
        ]
        self.printers = [self._printer() for _ in range(4)]
        owners = self.people[1:9]
        self.services = [Service(name, draws.one(owners).id) for name in draws.some(SERVICES, 6)]
        self.resources = [Resource(name, "licence", draws.one(owners).id) for name in draws.some(LICENCES, 4)]
        self.resources += [Resource(name, "folder", draws.one(owners).id) for name in draws.some(FOLDERS, 4)]
        for service in self.services[:2]:
            service.freeze = self.date(-40, -3)  # over, and so of no concern
        self.runbooks = {fault.key: self._runbook(fault) for fault in FAULTS}
        self.guide = self.numbers.next("KB")
        self.retired = [self._runbook(fault) for fault in draws.some(FAULTS, 4 if level == 3 else 0)]
        self.tickets: list[Ticket] = []
        self._settled: dict[str, None] = {}
        self.approvals: list[tuple[str, str, str]] = []
        self._free = {
            "people": draws.some(self.people[9:], 8),
            "printers": draws.some(self.printers, 4),
            "services": draws.some(self.services, 6),
            "resources": draws.some(self.resources, 8),
        }

    # What cases take.

    def person(self) -> Person:
        """Somebody who has no part in another case, and who owns nothing that others could want."""
        return self._take("people")

    def approver(self, owner: Person, away: bool = False) -> Person:
        """Who is asked for an approval that is this person's to give; `away` sends them on leave, if that is still open."""
        if owner.id not in self._settled and owner.manager:
            owner.status = "on leave" if away else owner.status
        self._settled[owner.id] = None
        return owner if owner.status == "active" else self.approver(self.manager_of(owner))

    def printer(self) -> Asset:
        return self._take("printers")

    def service(self) -> Service:
        return self._take("services")

    def resource(self, kind: str) -> Resource:
        return self._take("resources", lambda resource: resource.kind == kind)

    def laptop_of(self, person: Person) -> Asset:
        return next(asset for asset in self.assets if asset.owner == person.id)

    def second_laptop(self, person: Person) -> Asset:
        """Another laptop, of another model than the first."""
        models = [model for model in MODELS if model != self.laptop_of(person).model]
        asset = Asset(
            self.numbers.next("LT"), "laptop", self.draws.one(models), person.id, person.site, self.date(30, 700)
        )
        self.assets.append(asset)
        return asset

    def manager_of(self, person: Person) -> Person:
        return self.by_id(person.manager)

    def by_id(self, number: str) -> Person:
        return next(person for person in self.people if person.id == number)

    def ticket(self, requester: Person, subject: str, body: str, days_ago: int = 0, **columns: Any) -> Ticket:
        """A new ticket, by hour and minute unlike the others."""
        count = len(self.tickets)
        opened = f"{self.date(-days_ago, -days_ago)} {8 + count // 4:02d}:{self.draws.below(15) + 15 * (count % 4):02d}"
        found = Ticket(self.numbers.next("INC"), opened, requester.id, subject, body, **columns)
        self.tickets.append(found)
        return found

    def date(self, low: int, high: int) -> str:
        """A day so many days away."""
        return (self.today + dt.timedelta(self.draws.between(low, high))).isoformat()

    def _take(self, what: str, fits: Callable[[Any], bool] = lambda thing: True) -> Any:
        found = next(thing for thing in self._free[what] if fits(thing))
        self._free[what] = [thing for thing in self._free[what] if thing is not found]
        return found

    # How it is made.

    def _people(self) -> list[Person]:
        """A director, four heads of departments, and twelve others."""
        draws = self.draws
        firsts, lasts = draws.some(FIRST, 17), draws.some(LAST, 17)
        if self.level == 3:
            lasts[6], lasts[9], firsts[12] = lasts[5], lasts[8], firsts[11]  # namesakes, in part
        departments = draws.some(DEPARTMENTS, 4)
        domain = self.firm.lower().replace(" & ", "-").replace(" ", "-")
        people: list[Person] = []
        for i, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
            boss = "" if i == 0 else people[0].id if i < 5 else people[1 + (i - 5) % 4].id
            department = "Management" if i == 0 else departments[(i - 1) % 4]
            email = f"{first}.{last}@{domain}.example".lower()
            people.append(Person(self.numbers.next("U"), f"{first} {last}", email, department, draws.one(SITES), boss))
        return people

    def _printer(self) -> Asset:
        site = self.draws.one(SITES)
        return Asset(self.numbers.next("PR"), "printer", "Inkwell 300", "", site, self.date(30, 700))

    def _runbook(self, fault: Fault) -> Runbook:
        code = self.codes.next
        queue = self.queue_of[fault.category]
        # Half of the runbooks pass on to another team than the one that triage would choose.
        queue = self.draws.one([one for one in self.queues[1:7] if one != queue]) if self.draws.chance(0.5) else queue
        method = self.draws.one(METHODS)
        return Runbook(self.numbers.next("KB"), fault, method, code("N"), code("R"), queue, code("E"))


def row(thing: Any) -> list[Any]:
    """A dataclass as the row of its table."""
    return [getattr(thing, field.name) for field in fields(thing)]
