"""Wishes about the calendar."""

from __future__ import annotations

import datetime as dt

from ...messages import ToolCall
from . import words
from .dates import clock, stamp
from .people import Person
from .references import Named, call
from .wishes import Wish, Wishes
from .world import Event


class AgendaWishes(Wishes):
    """New events, moves, cancellations, participants."""

    def create_event(self) -> Wish:
        title = self.draws.one(words.NEW_MEETINGS)
        guests = [self.someone()]
        if self.draws.chance(0.4):
            guests.append(self.someone(guests[0].it))
        day = self._wished_day()
        time, minutes = self.time(), self.draws.one((15, 30, 45, 60, 90))
        at = clock(time, self.halves)
        people = " and ".join(guest.words for guest in guests)
        clause = self.say(
            f'create an event "{title}" {self.on_day(day)} at {at} for {minutes} minutes with {people}',
            f'put "{title}" into the calendar, {self.on_day(day)} at {at}, {minutes} minutes, with {people}',
            f'schedule {minutes} minutes with {people} {self.on_day(day)} at {at}, titled "{title}"',
        )
        start = self.rules.start(dt.datetime.combine(day, time))
        return self.wish("create_event", clause, [self._create(title, start, minutes, guests)], *guests)

    def first_slot(self) -> Wish | None:
        """The first time at which everybody is free."""
        if self.level == 1:
            return None
        title, day = self.draws.one(words.NEW_MEETINGS), self.day(1, 9)
        guests = [self.someone()]
        if self.level == 3 and self.draws.chance(0.5):
            guests.append(self.someone(guests[0].it))
        minutes, first = self.draws.one((30, 60, 90)), self.draws.one((9, 9, 10, 13))
        start = self.free([self.user, *(guest.it for guest in guests)], day, minutes, first)
        if start is None:
            return None
        people = " and ".join(guest.words for guest in guests)
        clause = self.say(
            f'book {minutes} minutes with {people} {self.on_day(day)}, titled "{title}", in the first free slot that we all '
            f"have between {first}:00 and 17:00",
            f"find the first slot of {minutes} minutes {self.on_day(day)} between {first}:00 and 17:00 in which {people} and "
            f'I are free, and create an event "{title}" there with {people}',
        )
        find = call(
            "find_free_slots",
            people=[self.user.address, *(guest.it.address for guest in guests)],
            day=day.isoformat(),
            minutes=minutes,
            earliest=f"{first:02d}:00",
        )
        return self.wish(
            "first_slot", clause, [self._create(title, stamp(start), minutes, guests)], *guests, also=[find]
        )

    def move_event(self) -> Wish | None:
        event = self.event()
        if event is None:
            return None
        day, time = self._wished_day(), self.time()
        wished = dt.datetime.combine(day, time)
        at, to_day = clock(time, self.halves), self.say_day(day)
        clause = self.say(
            f"move {event.words} to {to_day} at {at}",
            f"reschedule {event.words} to {to_day}, {at}",
            f"shift {event.words}: it should start {self.on_day(day)} at {at}",
        )
        if self.level > 1 and self.draws.chance(0.35):
            minutes = self.draws.one((30, 60, 120))
            wished = event.it.start + dt.timedelta(minutes=minutes)
            length = {30: "half an hour", 60: "an hour", 120: "two hours"}[minutes]
            clause = self.say(
                f"let {event.words} start {length} later", f"move {event.words}: it should start {length} later"
            )
        start = self.rules.start(wished)
        if start == stamp(event.it.start):
            return None
        return self.wish("move_event", clause, [call("move_event", event=event.it.id, start=start)], event)

    def resize_event(self) -> Wish | None:
        event, minutes = self.event(), self.draws.one((15, 45, 75, 120))
        if event is None:
            return None
        clause = self.say(
            f"make {event.words} {minutes} minutes long",
            f"change the length of {event.words} to {minutes} minutes",
        )
        return self.wish("resize_event", clause, [call("resize_event", event=event.it.id, minutes=minutes)], event)

    def cancel_event(self) -> Wish | None:
        event = self.event()
        if event is None:
            return None
        clause = self.say(f"cancel {event.words}", f"call {event.words} off", f"take {event.words} out of the calendar")
        return self.wish("cancel_event", clause, self.rules.cancel(event.it), event)

    def cancel_day(self) -> Wish | None:
        """All events of a day."""
        if self.level == 1:
            return None
        day = self.day(1, 11)
        events = self._on(day)
        if not 2 <= len(events) <= 3:
            return None
        clause = self.say(f"cancel all my events {self.on_day(day)}", f"clear my calendar {self.on_day(day)}")
        writes = [cancel for event in events for cancel in self.rules.cancel(event)]
        return self.wish("cancel_day", clause, writes, also=[self._search(day)])

    def invite(self) -> Wish | None:
        event = self.event()
        if event is None:
            return None
        who = self.someone(*event.it.guests)
        clause = self.say(
            f"add {who.words} to {event.words}",
            f"invite {who.words} to {event.words}",
            f"have {who.words} join {event.words}",
        )
        return self.wish("invite", clause, [call("invite", event=event.it.id, person=who.it.address)], event, who)

    def uninvite(self) -> Wish | None:
        event = self.event()
        if event is None:
            return None
        who = self.named(self.draws.one([guest for guest in event.it.guests if guest is not self.user]))
        clause = self.say(f"take {who.words} off {event.words}", f"remove {who.words} from {event.words}")
        return self.wish("uninvite", clause, [call("uninvite", event=event.it.id, person=who.it.address)], event, who)

    def invite_day(self) -> Wish | None:
        if self.level == 1:
            return None
        day = self.day(1, 11)
        events, who = self._on(day), self.someone()
        left = [event for event in events if not event.has(who.it)]
        if not left or not 2 <= len(events) <= 3:
            return None
        clause = self.say(
            f"add {who.words} to all my events {self.on_day(day)}",
            f"invite {who.words} to everything that I have {self.on_day(day)}",
        )
        writes = [call("invite", event=event.id, person=who.it.address) for event in left]
        return self.wish("invite_day", clause, writes, who, also=[self._search(day)])

    def free(self, people: list[Person], day: dt.date, minutes: int, first: int) -> dt.datetime | None:
        """The first start on the hour or half hour from `first` o'clock on, with an end by 17:00."""
        start, length = dt.datetime.combine(day, dt.time(first)), dt.timedelta(minutes=minutes)
        events = [event for event in self.world.events if any(event.has(person) for person in people)]
        while start + length <= dt.datetime.combine(day, dt.time(17)):
            if not any(start < event.end and event.start < start + length for event in events):
                return start
            start += dt.timedelta(minutes=30)
        return None

    def _wished_day(self) -> dt.date:
        """A working day, or a day of a weekend where a rule says what then."""
        if self.rules.has("weekend") and self.biting:
            return self.draws.one([day for away in range(2, 11) if (day := self.world.day(away)).weekday() > 4])
        return self.day(1, 11)

    def _on(self, day: dt.date) -> list[Event]:
        return [event for event in self.mine() if event.start.date() == day]

    def _search(self, day: dt.date) -> ToolCall:
        return call("search_events", participant=self.user.address, since=day.isoformat(), until=day.isoformat())

    def _create(self, title: str, start: str, minutes: int, guests: list[Named[Person]]) -> ToolCall:
        others = [guest.it.address for guest in guests]
        return call("create_event", title=title, start=start, minutes=minutes, participants=others)
