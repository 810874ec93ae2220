"""Conditions: statements about one database that are true or false, half of the time each as far as the world allows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from ...messages import ToolCall
from . import words
from .dates import clock
from .references import call
from .wishes_traffic import TrafficWishes


@dataclass(frozen=True)
class Condition:
    """What follows "if"."""

    words: str
    holds: bool
    lookups: tuple[ToolCall, ...]


class Conditions(TrafficWishes):
    """Each method gives a condition, or None where the world has nothing for it."""

    def visits_above(self) -> Condition:
        metric, days = self.draws.one(tuple(words.METRICS)), self.draws.one((5, 7, 10, 14))
        source = self.draws.one((None, None, *words.SOURCES))
        total = sum(self.figures(metric, source, days))
        holds = self.draws.chance(0.5)
        # Within a few percent: a glance at one day does not tell.
        near = max(1, total * self.draws.between(1, 8) // 100)
        limit = total - near if holds else total + near - 1
        since, until = self.last_days(days)
        given = {"metric": metric, "since": since, "until": until} | ({"source": source} if source else {})
        where = f" from {source}" if source else ""
        text = f"there were more than {limit} {words.METRICS[metric]}{where} in the last {days} days"
        return Condition(text, holds, (call("traffic_total", **given),))

    def source_compare(self) -> Condition | None:
        metric, days = self.draws.one(tuple(words.METRICS)), self.draws.one((3, 7, 10))
        first, second = self.draws.some(words.SOURCES, 2)
        a, b = (sum(self.figures(metric, source, days)) for source in (first, second))
        if a == b:
            return None
        since, until = self.last_days(days)
        text = f"{first} brought more {words.METRICS[metric]} than {second} in the last {days} days"
        return Condition(text, a > b, (call("traffic_by_source", metric=metric, since=since, until=until),))

    def busy_day(self) -> Condition:
        day = self.draws.one(self.mine()).start.date()
        count = sum(event.start.date() == day for event in self.mine())
        holds = self.draws.chance(0.5)
        limit = count - 1 if holds else count
        text = f"I have more than {limit} event{'' if limit == 1 else 's'} {self.on_day(day)}"
        if limit == 0:
            text = f"I have any event {self.on_day(day)}"
        find = call("search_events", participant=self.user.address, since=day.isoformat(), until=day.isoformat())
        return Condition(text, holds, (find,))

    def is_free(self) -> Condition:
        event = self.draws.one([e for e in self.world.events if e.start.date() > self.world.today])
        who = self.draws.one([guest for guest in event.guests if guest is not self.user])
        start = event.start + dt.timedelta(minutes=self.draws.one((-60, 0, 0, 30, 60, 120)))
        end, day = start + dt.timedelta(hours=1), event.start.date()
        busy = any(e.has(who) and start < e.end and e.start < end for e in self.world.events)
        named = self.named(who)
        since, until = (clock(time, self.halves) for time in (start, end))
        text = f"{named.words} is free {self.on_day(day)} from {since} to {until}"
        find = call("search_events", participant=who.address, since=day.isoformat(), until=day.isoformat())
        return Condition(text, not busy, (*named.lookups, find))

    def wrote(self) -> Condition:
        email = self.draws.one([email for email in self.world.emails if email.sender in self.cast.by_address])
        theirs = [other for other in self.world.emails if other.sender == email.sender]
        age = (self.world.today - theirs[0].received.date()).days
        holds = self.draws.chance(0.5) or age == 1
        days = age + self.draws.between(0, 2) if holds else self.draws.between(1, age - 1)
        since = self.world.day(-days).isoformat()
        span = f"in the last {days} days" if days > 1 else "yesterday or today"
        find = call("search_emails", sender=email.sender, since=since)
        return Condition(f"{email.name} has written to me {span}", holds, (find,))

    def labelled(self) -> Condition:
        tagged = [email for email in self.world.emails if email.labels and email.sender in self.cast.by_address]
        email = self.draws.one(tagged or self.world.emails)
        label = email.labels[0] if email.labels and self.draws.chance(0.5) else self.draws.one(words.LABELS)
        theirs = [other for other in self.world.emails if other.sender == email.sender]
        text = f'there is an email from {self.sender(email)} with the label "{label}"'
        find = call("search_emails", sender=email.sender, label=label)
        return Condition(text, any(label in other.labels for other in theirs), (find,))

    def open_tasks(self) -> Condition:
        workers = [p for p in self.cast.others if any(job.assignee is p for job in self.world.jobs)]
        # Somebody who may be given a task by a rule has as many as the order of actions makes it.
        who = self.draws.one([p for p in workers if not self.rules.approves(p)] or self.cast.others)
        count = sum(job.assignee is who and job.open for job in self.world.jobs)
        holds = self.draws.chance(0.5) and count > 0
        limit = count - 1 if holds else count
        named = self.named(who)
        text = (
            f"{named.words} has more than {limit} open task{'' if limit == 1 else 's'}"
            if limit
            else f"{named.words} has any open task"
        )
        return Condition(text, holds, (*named.lookups, call("search_tasks", assignee=who.address)))

    def task_status(self) -> Condition | None:
        job = self.job()
        if job is None:
            return None
        status = job.it.status if self.draws.chance(0.5) else self.draws.one(words.STATUSES)
        text = f'{job.words} has the status "{status}"'
        return Condition(text, status == job.it.status, job.lookups)

    def overdue(self) -> Condition:
        board = self.draws.one(self.world.projects)
        open_jobs = [job for job in self.world.jobs if job.board == board and job.open]
        holds = any(job.due < self.world.today for job in open_jobs)
        find = call("search_tasks", board=board, due_until=self.world.day(-1).isoformat())
        return Condition(f'anything on the board "{board}" is overdue', holds, (find,))

    def customer_status(self) -> Condition | None:
        who = self.customer()
        if who is None:
            return None
        status = who.it.status if self.draws.chance(0.5) else self.draws.one(words.CUSTOMER_STATUSES)
        text = f"{who.words} has the status {status}"
        return Condition(text, status == who.it.status, who.lookups)

    def contacted(self) -> Condition | None:
        who = self.customer()
        if who is None:
            return None
        age = (self.world.today - who.it.last_contact).days
        holds = self.draws.chance(0.5)
        days = age - self.draws.between(1, 3) if holds else age + self.draws.between(0, 3)
        if days < 2:
            return None
        return Condition(f"the last contact with {who.words} was more than {days} days ago", holds, who.lookups)

    def more_customers(self) -> Condition | None:
        owners = [p for p in self.cast.others if any(one.owner is p for one in self.world.customers)]
        first, second = self.draws.some(owners, 2)
        a, b = (sum(one.owner is owner for one in self.world.customers) for owner in (first, second))
        if a == b:
            return None
        named = [self.named(first), self.named(second)]
        finds = [call("search_customers", owner=owner.address) for owner in (first, second)]
        text = f"{named[0].words} looks after more customers than {named[1].words}"
        return Condition(text, a > b, (*named[0].lookups, *named[1].lookups, *finds))
