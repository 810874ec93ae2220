"""House rules: what the policy of level 3 says, and what follows from it for the calls.

A rule has words for the system message and a consequence here, and nothing else knows about it: actions ask `Rules` for the
calls of "cancel this event", and get what the rules in force make of that.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from ...messages import ToolCall
from ..draws import Draws
from .dates import stamp
from .people import Person
from .references import call
from .world import Customer, Email, Event, World

RULES = ("notice", "outside", "keep", "load", "handover", "won", "weekend", "rush")
IN_FORCE = 3
_NOTICES = ("This event will not take place.", "Sorry, this event had to be cancelled.", "We will find another date.")


class Rules:
    """The rules in force, with their parameters."""

    def __init__(self, world: World) -> None:
        draws: Draws = world.draws
        self.world = world
        self.names = draws.some(RULES, IN_FORCE) if world.level == 3 else []
        self.notice = draws.one(_NOTICES)
        self.board = draws.one(world.projects)
        self.approver = draws.one([p for p in world.cast.others if p.role == "head"])
        self.label = draws.one(("legal", "invoices", "private"))
        self.most_tasks = draws.between(3, 4)
        self.days = draws.between(2, 5)

    def has(self, name: str) -> bool:
        return name in self.names

    def words(self) -> list[str]:
        """The rules as the system message states them."""
        told = {
            "notice": "When an event is cancelled, each participant except the user is sent an email with the subject "
            f'"Cancelled: <title of the event>" and the text "{self.notice}"',
            "outside": f"No new email is sent to an address outside {self.world.cast.domain}. Instead, a task "
            f'"Approve: <subject>" is created on the board "{self.board}" for {self.approver.name}, without a due date.',
            "keep": f'An email with the label "{self.label}" is never deleted: it is given the label "archive" instead.',
            "load": f"Nobody who has {self.most_tasks} or more open tasks is given another one, new or not: it goes to the "
            "head of their team instead. Heads of teams may have any number.",
            "handover": "When a customer is given to somebody else, a note is added to the customer: "
            '"From <full name of the old owner> to <full name of the new owner>".',
            "won": 'A customer whose status is won is never deleted: the note "Deletion asked for on '
            f'{self.world.today.isoformat()}" is added instead.',
            "weekend": "No event is put on a Saturday or Sunday: it goes to the Monday after, at the same time.",
            "rush": f"A new task of high priority is due on {self.last_day.isoformat()} at the latest: where no due date or "
            "a later one is asked for, it is that day.",
        }
        return [told[name] for name in self.names]

    @property
    def last_day(self) -> dt.date:
        return self.world.day(self.days)

    def cancel(self, event: Event) -> list[ToolCall]:
        calls = [call("cancel_event", event=event.id)]
        if self.has("notice"):
            others = [guest for guest in event.guests if guest is not self.world.user]
            calls += [self._mail(guest.address, f"Cancelled: {event.title}", self.notice) for guest in others]
        return calls

    def send(self, address: str, subject: str, body: str) -> list[ToolCall]:
        if self.has("outside") and address not in self.world.cast.by_address:
            return self.create_task(f"Approve: {subject}", self.board, self.approver, None, "normal")
        return [self._mail(address, subject, body)]

    def approves(self, person: Person) -> bool:
        """Whether a task may fall to this person because of a mail that is not sent."""
        return self.has("outside") and person is self.approver

    def _mail(self, address: str, subject: str, body: str) -> ToolCall:
        return call("send_email", to=address, subject=subject, body=body)

    def kept(self, email: Email) -> bool:
        return self.has("keep") and self.label in email.labels

    def delete_email(self, email: Email) -> list[ToolCall]:
        if self.kept(email):
            return [call("label_email", email=email.id, label="archive")]
        return [call("delete_email", email=email.id)]

    def busy(self, person: Person) -> bool:
        """Whether a task for this person goes to the head of the team."""
        count = sum(job.assignee is person and job.open for job in self.world.jobs)
        return self.has("load") and person.role == "member" and count >= self.most_tasks

    def taker(self, person: Person) -> Person:
        return self.world.cast.head_of(person.team) if self.busy(person) else person

    def create_task(self, title: str, board: str, person: Person, due: dt.date | None, priority: str) -> list[ToolCall]:
        if self.has("rush") and priority == "high":
            due = min(due or self.last_day, self.last_day)
        given: dict[str, Any] = {"title": title, "board": board, "assignee": self.taker(person).address}
        if due is not None:
            given["due"] = due.isoformat()
        if priority != "normal":
            given["priority"] = priority
        return [call("create_task", **given)]

    def give_customer(self, customer: Customer, owner: Person) -> list[ToolCall]:
        calls = [call("assign_customer", customer=customer.id, owner=owner.address)]
        if self.has("handover"):
            text = f"From {customer.owner.name} to {owner.name}"
            calls.append(call("add_customer_note", customer=customer.id, text=text))
        return calls

    def delete_customer(self, customer: Customer) -> list[ToolCall]:
        if self.has("won") and customer.status == "won":
            text = f"Deletion asked for on {self.world.today.isoformat()}"
            return [call("add_customer_note", customer=customer.id, text=text)]
        return [call("delete_customer", customer=customer.id)]

    def start(self, time: dt.datetime) -> str:
        """When an event begins that was wished for at a time."""
        if self.has("weekend") and time.weekday() > 4:
            time += dt.timedelta(7 - time.weekday())
        return stamp(time)
