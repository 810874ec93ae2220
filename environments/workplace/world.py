"""Worlds: what the five databases hold when a request comes in.

    Draws -> Cast, emails, events, tasks, customers, traffic -> rows per table

Names and days are drawn so that whatever a request points at is the only thing that fits its words. Level 3 adds twins: the
same subject twice from one sender, the same title on two days or two boards, two customers of one name.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..draws import Draws, Numbers
from . import words
from .dates import stamp
from .people import BUYERS, FIRST, Cast, Person, address_of, domain_of

# Shapes: D days, S sources, M metrics.
DAYS_OF_TRAFFIC = 15


@dataclass
class Email:
    id: str
    sender: str
    name: str
    subject: str
    body: str
    received: dt.datetime
    labels: list[str] = field(default_factory=list)


@dataclass
class Event:
    id: str
    title: str
    start: dt.datetime
    minutes: int
    guests: list[Person]

    @property
    def end(self) -> dt.datetime:
        return self.start + dt.timedelta(minutes=self.minutes)

    def has(self, person: Person) -> bool:
        return person in self.guests


@dataclass
class Job:
    """A task on a board of a project."""

    id: str
    title: str
    board: str
    status: str
    assignee: Person
    due: dt.date
    priority: str

    @property
    def open(self) -> bool:
        return self.status != "Done"


@dataclass
class Customer:
    id: str
    name: str
    company: str
    email: str
    status: str
    owner: Person
    last_contact: dt.date
    follow_up: dt.date


class World:
    """Everything that there is in one episode, before anything is asked for."""

    def __init__(self, rng: np.random.Generator, level: int) -> None:
        self.draws = draws = Draws(rng)
        self.level, self.numbers = level, Numbers(draws)
        day = dt.date(2026, 1, 5) + dt.timedelta(7 * draws.below(48))
        self.today = day + dt.timedelta(draws.below(5))
        self.cast = Cast(draws, level)
        self.user = self.cast.user
        self.projects = draws.some(words.PROJECTS, 4)
        self.customers = self._customers()
        self.emails = self._emails()
        self.events = self._events()
        self.jobs = self._jobs()
        self.traffic = self._traffic(rng)
        self.alerts = [[source, "visits", 10 * draws.between(1, 6)] for source in draws.some(words.SOURCES, 2)]

    def day(self, away: int) -> dt.date:
        return self.today + dt.timedelta(away)

    def workday(self, low: int, high: int) -> dt.date:
        """A day from Monday to Friday, so many days away."""
        while True:
            day = self.day(self.draws.between(low, high))
            if day.weekday() < 5:
                return day

    def _customers(self) -> list[Customer]:
        draws = self.draws
        firms, lasts = draws.some(BUYERS, 12), draws.some(self.cast.spare, 12)
        names = [f"{draws.one(FIRST)} {last}" for last in lasts]
        if self.level == 3:
            names[4] = names[1]  # told apart by the company
            names[6] = f"{names[6].split()[0]} {names[2].split()[1]}"
        contacts = draws.some(range(2, 60), 12)
        return [
            Customer(
                self.numbers.next("C"),
                name,
                firm,
                address_of(name, domain_of(firm)),
                words.CUSTOMER_STATUSES[0] if i < 4 else draws.one(words.CUSTOMER_STATUSES),
                draws.one(self.cast.people[: 6 if i < 8 else 12]),
                self.day(-contacts[i]),
                self.workday(3, 30),
            )
            for i, (name, firm) in enumerate(zip(names, firms, strict=True))
        ]

    def _emails(self) -> list[Email]:
        draws = self.draws
        senders = [(p.address, p.name) for p in draws.some(self.cast.others, 6)]
        senders += [(c.email, c.name) for c in draws.some(self.customers, 4)]
        moments = draws.some(range(1, 20 * 20), 30)
        found: list[Email] = []

        def arrive(sender: tuple[str, str], subject: str, body: str) -> Email:
            slot = moments.pop()
            hour = dt.time(8 + slot % 20 // 2, draws.between(0, 29) + 30 * (slot % 2))
            time = dt.datetime.combine(self.day(-1 - slot // 20), hour)
            found.append(Email(self.numbers.next("M"), *sender, subject, body, time))
            return found[-1]

        pairs = [(topic, project) for topic in words.TOPICS for project in self.projects]
        for i, ((subject, body), project) in enumerate(draws.some(pairs, 18)):
            # Everybody in turn, so that each sender has two or more.
            email = arrive(senders[i % 9], subject.format(project=project), body.format(project=project))
            if draws.chance(0.4):
                email.labels.append(draws.one(words.LABELS))
        for i in range(4 if self.level == 3 else 0):
            first = found[i]
            arrive((first.sender, first.name), first.subject, "This replaces my other email on the matter.")
        for name, address in words.NEWSLETTERS:
            for _ in range(draws.between(2, 3)):
                arrive((address, name), draws.one(words.ISSUES).format(n=draws.between(10, 90)), "Read it on the web.")
        return sorted(found, key=lambda email: email.received, reverse=True)

    def _events(self) -> list[Event]:
        draws, user = self.draws, self.user
        titles = [f"{project} {kind}" for project in self.projects for kind in words.MEETINGS]
        titles = draws.some(titles, 18)
        if self.level == 3:
            titles[9:13] = titles[:4]  # the same title on two days
        found: list[Event] = []
        for i, title in enumerate(titles):
            others = draws.some(self.cast.others, draws.between(1, 3))
            guests = [user, *others] if i < 13 else others
            minutes = draws.one((30, 60, 60, 90))
            while True:
                day = self.workday(-3, 11) if i < 9 else self.workday(1, 11)
                start = dt.datetime.combine(day, dt.time(9)) + dt.timedelta(minutes=30 * draws.between(0, 12))
                event = Event("", title, start, minutes, guests)
                taken = any(other.title == title and other.start.date() == day for other in found)
                if not taken and not any(_clash(event, other, user) for other in found):
                    break
            event.id = self.numbers.next("E")
            found.append(event)
        return sorted(found, key=lambda event: (event.start, event.id))

    def _jobs(self) -> list[Job]:
        draws = self.draws
        titles = draws.some([f"{job} of {project}" for job in words.JOBS for project in self.projects], 20)
        workers = draws.some(self.cast.people, 7)
        dues = [self.day(away) for away in draws.some(range(-12, 31), 24)]
        found: list[Job] = []
        for i, title in enumerate(titles):
            # Six statuses in turn keep enough of every kind on every board.
            status = ("Backlog", "In progress", "In review", "In progress", "Done", "Backlog")[i % 6]
            board, worker = self.projects[draws.below(4)], workers[min(draws.below(7), draws.below(7))]
            found.append(
                Job(self.numbers.next("T"), title, board, status, worker, dues[i], draws.one(words.PRIORITIES))
            )
        for i in range(4 if self.level == 3 else 0):
            twin = found[i]
            boards = [board for board in self.projects if board != twin.board]
            number, worker = self.numbers.next("T"), draws.one(workers)
            found.append(
                Job(number, twin.title, draws.one(boards), draws.one(words.STATUSES[:3]), worker, dues[20 + i], "low")
            )
        return found

    def _traffic(self, rng: np.random.Generator) -> dict[tuple[dt.date, str], tuple[int, int, int]]:
        """Visits, engaged visits and sign-ups by day and source."""
        shape = (DAYS_OF_TRAFFIC, len(words.SOURCES))
        visits_DS = rng.integers(60, 200, size=shape) + 25 * np.arange(len(words.SOURCES))[::-1]
        engaged_DS = (visits_DS * rng.uniform(0.2, 0.5, size=shape)).astype(int)
        counts_DSM = np.stack([visits_DS, engaged_DS, rng.integers(0, 13, size=shape)], axis=-1).tolist()
        return {
            (self.day(-away), source): counts
            for away, counts_SM in zip(range(DAYS_OF_TRAFFIC, 0, -1), counts_DSM, strict=True)
            for source, counts in zip(words.SOURCES, counts_SM, strict=True)
        }

    def rows(self) -> dict[str, dict[str, list[list[Any]]]]:
        """What each table of each database begins with."""
        return {
            "email": {
                "contacts": self.cast.rows(),
                "emails": [[e.id, e.sender, e.name, e.subject, e.body, stamp(e.received)] for e in self.emails],
                "labels": [[e.id, label] for e in self.emails for label in e.labels],
            },
            "calendar": {
                "events": [[e.id, e.title, stamp(e.start), e.minutes] for e in self.events],
                "guests": [[e.id, guest.address] for e in self.events for guest in e.guests],
            },
            "analytics": {
                "traffic": [[day.isoformat(), source, *counts] for (day, source), counts in self.traffic.items()],
                "alerts": self.alerts,
            },
            "projects": {
                "boards": [[board] for board in sorted(self.projects)],
                "tasks": [
                    [j.id, j.title, j.board, j.status, j.assignee.address, j.due.isoformat(), j.priority]
                    for j in self.jobs
                ],
            },
            "crm": {
                "customers": [
                    [c.id, c.name, c.company, c.email, c.status, c.owner.address, c.last_contact.isoformat(), c.follow_up.isoformat()]
                    for c in self.customers
                ],
            },
        }  # fmt: skip


def _clash(event: Event, other: Event, user: Person) -> bool:
    """The user is never in two places at once, which also makes "my first event" one event."""
    return event.has(user) and other.has(user) and event.start < other.end and other.start < event.end
