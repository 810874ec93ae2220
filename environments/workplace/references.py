"""References: how a request points at a person, email, event, task or customer, and which look-ups find it.

Level 1 says the address or number itself. Level 2 says names and titles. Level 3 also points by relation ("the head of
Finance", "my last event on Friday of this week", "the lead whom we have not contacted for longest"), among twins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...messages import ToolCall
from .dates import on, words_for
from .people import Person
from .world import Customer, Email, Event, Job, World

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Named(Generic[T_co]):
    """Something, the words for it, and the look-ups that lead to it."""

    words: str
    it: T_co
    lookups: tuple[ToolCall, ...] = ()


def call(tool: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(tool, arguments)


class References:
    """Points at things of a world. `closed` are the databases that the request changes: no person is found through them."""

    def __init__(self, world: World, closed: Sequence[str]) -> None:
        self.world, self.draws, self.level, self.closed = world, world.draws, world.level, tuple(closed)
        self.user, self.cast = world.user, world.cast
        self.halves = world.draws.chance(0.3)
        """Whether times are said as "2:30 pm"."""

    def day(self, low: int, high: int) -> Any:
        return self.world.workday(low, high)

    def say_day(self, day: Any) -> str:
        return words_for(day, self.world.today, self.draws, plain=self.level == 1)

    def on_day(self, day: Any) -> str:
        words = words_for(day, self.world.today, self.draws, plain=self.level == 1, adverb=True)
        return on(words)

    # People.

    def someone(self, *without: Person, me: bool = False) -> Named[Person]:
        """A colleague, or where `me` allows it perhaps the user, in any of the ways that the level has."""
        if me and self.level > 1 and self.user not in without and self.draws.chance(0.12):
            return Named("me", self.user)
        return self.pointed(self.draws.one([p for p in self.cast.others if p not in without]))

    def named(self, person: Person) -> Named[Person]:
        """By address at level 1, else by full name."""
        if self.level == 1:
            words = self.draws.one((person.address, f"{person.name} ({person.address})"))
            return Named(words, person)
        return Named(person.name, person, (call("find_person", query=person.name),))

    def pointed(self, person: Person) -> Named[Person]:
        """By name or, from level 2 on, by what they do or have."""
        ways: list[Named[Person]] = []
        if self.level > 1 and person.role == "head":
            ways.append(Named(f"the head of {person.team}", person, (call("find_person", query=person.team),)))
        if self.level == 3 and sum(p.first == person.first and p.team == person.team for p in self.cast.people) == 1:
            ways.append(Named(f"{person.first} from {person.team}", person, (call("find_person", query=person.team),)))
        if self.level > 1 and "projects" not in self.closed:
            jobs = [job for job in self.world.jobs if job.assignee is person and self._titled(job.title) == 1]
            if jobs:
                job = self.draws.one(jobs)
                words = self.draws.one(
                    (f'whoever has the task "{job.title}"', f'the one who has the task "{job.title}"')
                )
                ways.append(Named(words, person, (call("search_tasks", query=job.title),)))
        if self.level > 1 and "crm" not in self.closed:
            theirs = [customer for customer in self.world.customers if customer.owner is person]
            if theirs:
                firm = self.draws.one(theirs).company
                words = self.draws.one((f"whoever looks after {firm}", f"the colleague who looks after {firm}"))
                ways.append(Named(words, person, (call("search_customers", query=firm),)))
        return self.draws.one(ways) if ways and self.draws.chance(0.45) else self.named(person)

    # Things.

    def email(self, fits: Callable[[Email], bool] = lambda email: True) -> Named[Email] | None:
        emails = [email for email in self.world.emails if fits(email)]
        if not emails:
            return None
        email = self.draws.one(emails)
        if self.level == 1:
            return Named(self.draws.one((f"the email {email.id}", f"email {email.id}")), email)
        same_sender = [other for other in self.world.emails if other.sender == email.sender]
        same = [other for other in same_sender if other.subject == email.subject]
        sender, find = self.sender(email), call("search_emails", sender=email.sender)
        ways = []
        if len(same) == 1:
            ways += [f'the email "{email.subject}" from {sender}', f'the email from {sender} about "{email.subject}"']
        if len(same_sender) > 1 and email is same_sender[0]:
            ways.append(f"the latest email from {sender}")
        if len(same_sender) > 1 and email is same_sender[-1]:
            ways.append(f"the oldest email from {sender}")
        if len(same) > 1 and email is same[0]:
            ways += [f'the latest of the emails from {sender} with the subject "{email.subject}"'] * 2
        if len(same) > 1 and email is same[-1]:
            ways += [f'the oldest of the emails from {sender} with the subject "{email.subject}"'] * 2
        return Named(self.draws.one(ways), email, (find,)) if ways else None

    def sender(self, email: Email) -> str:
        """A sender's name; customers may share theirs, so their company is said as well."""
        firms = [customer.company for customer in self.world.customers if customer.email == email.sender]
        return f"{email.name} of {firms[0]}" if firms else email.name

    def event(self, fits: Callable[[Event], bool] = lambda event: True) -> Named[Event] | None:
        """An event of the user's that is still to come."""
        mine = self.mine()
        events = [event for event in mine if fits(event)]
        if not events:
            return None
        event = self.draws.one(events)
        if self.level == 1:
            return Named(self.draws.one((f"the event {event.id}", f"event {event.id}")), event)
        day = event.start.date()
        when, find = self.on_day(day), call("search_events", since=day.isoformat(), until=day.isoformat())
        same_day = [other for other in mine if other.start.date() == day]
        ways = [f'my "{event.title}" {when}', f'the event "{event.title}" {when}']
        if self.level == 3 and len(same_day) > 1 and event in (same_day[0], same_day[-1]):
            ways += [f"my {'first' if event is same_day[0] else 'last'} event {when}"] * 2
        return Named(self.draws.one(ways), event, (find,))

    def mine(self) -> list[Event]:
        """The user's events from tomorrow on, in order."""
        return [e for e in self.world.events if e.has(self.user) and e.start.date() > self.world.today]

    def job(self, fits: Callable[[Job], bool] = lambda job: True) -> Named[Job] | None:
        jobs = [job for job in self.world.jobs if fits(job)]
        if not jobs:
            return None
        job = self.draws.one(jobs)
        if self.level == 1:
            return Named(self.draws.one((f"the task {job.id}", f"task {job.id}")), job)
        on_board = f'on the board "{job.board}"'
        ways = [f'the task "{job.title}"'] if self._titled(job.title) == 1 else [f'the task "{job.title}" {on_board}']
        find = call("search_tasks", query=job.title)
        if self.level == 3:
            board = [other for other in self.world.jobs if other.board == job.board and other.open]
            theirs = [other for other in self.world.jobs if other.assignee is job.assignee and other.open]
            if len(board) > 1 and job is min(board, key=_due):
                ways, find = [f"the open task {on_board} that is due first"], call("search_tasks", board=job.board)
            elif len(theirs) > 1 and job is min(theirs, key=_due):
                ways = [f"the open task of {job.assignee.name} that is due first"]
                find = call("search_tasks", assignee=job.assignee.address)
        return Named(self.draws.one(ways), job, (find,))

    def customer(self, fits: Callable[[Customer], bool] = lambda customer: True) -> Named[Customer] | None:
        customers = [customer for customer in self.world.customers if fits(customer)]
        if not customers:
            return None
        customer = self.draws.one(customers)
        if self.level == 1:
            return Named(self.draws.one((f"the customer {customer.id}", f"customer {customer.id}")), customer)
        ways = [f"{customer.name} of {customer.company}", f"our contact at {customer.company}"]
        if sum(other.name == customer.name for other in self.world.customers) == 1:
            ways += [f"the customer {customer.name}"] * 2
        find = call("search_customers", query=customer.company)
        leads = [other for other in self.world.customers if other.status == "lead"]
        if self.level == 3 and len(leads) > 1 and customer is min(leads, key=_contact):
            ways, find = ["the lead whom we have not contacted for longest"], call("search_customers", status="lead")
        return Named(self.draws.one(ways), customer, (find,))

    def _titled(self, title: str) -> int:
        return sum(job.title == title for job in self.world.jobs)


def _due(job: Job) -> Any:
    return job.due


def _contact(customer: Customer) -> Any:
    return customer.last_contact
