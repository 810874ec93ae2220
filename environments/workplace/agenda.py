"""The calendar database: events, and who takes part in them. Colleagues' calendars can be seen and changed as well.

The id of a new event follows from its title, so that an event which is made wrongly and then moved is the event that was wanted.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..state import State
from ..tool import ToolError, tool
from .dates import read_day, read_time, stamp
from .lookup import Row, address, matches, new_id, one, shown, told

SCHEMA = """
CREATE TABLE events (id TEXT, title TEXT, start TEXT, minutes INTEGER);
CREATE TABLE guests (event TEXT, address TEXT, PRIMARY KEY (event, address));
"""
HALF_HOUR = dt.timedelta(minutes=30)
LONGEST_EVENT = 24 * 60


class Agenda:
    """Tools of the calendar."""

    calendar: Any = State.sqlite(SCHEMA)
    user_address: str

    @tool
    def search_events(
        self,
        query: str | None = None,
        participant: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Row:
        """Search the events of everybody in the company, in order of time. Without arguments, all of them.

        Args:
            query: Words of the title.
            participant: The address of somebody who takes part.
            since: First day, YYYY-MM-DD.
            until: Last day, YYYY-MM-DD.
        """
        first = read_day(since).isoformat() if since else ""
        last = read_day(until).isoformat() if until else "9"
        who = address(participant) if participant else ""
        return shown(
            [
                self._shown(row)
                for row in self.calendar.rows("SELECT * FROM events ORDER BY start, id")
                if first <= row["start"][:10] <= last
                and matches(query or "", row["title"])
                and (not who or who in self.guests(row["id"]))
            ]
        )

    @tool
    def read_event(self, event: str) -> Row:
        """Look an event up.

        Args:
            event: Its number, such as E1234.
        """
        return self._shown(self._event(event))

    @tool
    def find_free_slots(
        self, people: list[str], day: str, minutes: int, earliest: str = "09:00", latest: str = "17:00"
    ) -> list[str]:
        """Starts, on the hour or half hour, at which all these people are free for so many minutes.

        Args:
            people: Addresses.
            day: YYYY-MM-DD.
            earliest: HH:MM; nothing starts before.
            latest: HH:MM; nothing ends after.
        """
        date, length = read_day(day), dt.timedelta(minutes=_minutes(minutes))
        start, end = (read_time(f"{date.isoformat()} {time}") for time in (earliest, latest))
        if start.minute % 30:
            start += dt.timedelta(minutes=30 - start.minute % 30)
        busy = self._busy([address(person) for person in people], date)
        free = []
        while start + length <= end:
            if not any(start < until and since < start + length for since, until in busy):
                free.append(start.strftime("%H:%M"))
            start += HALF_HOUR
        return free

    @tool(writes=True)
    def create_event(self, title: str, start: str, minutes: int, participants: list[str]) -> Row:
        """Create an event. The user always takes part and need not be named.

        Args:
            start: YYYY-MM-DD HH:MM.
            participants: Addresses of the others.
        """
        title, time, length = told(title, "the title"), stamp(read_time(start)), _minutes(minutes)
        guests = {address(person): None for person in [self.user_address, *participants]}
        number = new_id(self.calendar, "events", "E", title)
        self.calendar.run("INSERT INTO events VALUES (?, ?, ?, ?)", number, title, time, length)
        self.calendar.fill("guests", [(number, guest) for guest in guests])
        return {"event": number}

    @tool(writes=True)
    def move_event(self, event: str, start: str) -> str:
        """Move an event to another time; it keeps its length and its participants.

        Args:
            start: YYYY-MM-DD HH:MM.
        """
        self.calendar.run("UPDATE events SET start = ? WHERE id = ?", stamp(read_time(start)), self._event(event)["id"])
        return "moved"

    @tool(writes=True)
    def resize_event(self, event: str, minutes: int) -> str:
        """Change the length of an event; it keeps its start."""
        self.calendar.run("UPDATE events SET minutes = ? WHERE id = ?", _minutes(minutes), self._event(event)["id"])
        return "changed"

    @tool(writes=True)
    def cancel_event(self, event: str) -> str:
        """Take an event out of everybody's calendar. Nobody is told."""
        number = self._event(event)["id"]
        self.calendar.run("DELETE FROM events WHERE id = ?", number)
        self.calendar.run("DELETE FROM guests WHERE event = ?", number)
        return "cancelled"

    @tool(writes=True)
    def invite(self, event: str, person: str) -> str:
        """Add somebody to an event.

        Args:
            person: An address.
        """
        number = self._event(event)["id"]
        self.calendar.run("INSERT OR IGNORE INTO guests VALUES (?, ?)", number, address(person))
        return "invited"

    @tool(writes=True)
    def uninvite(self, event: str, person: str) -> str:
        """Take somebody off an event.

        Args:
            person: An address.
        """
        number = self._event(event)["id"]
        if not self.calendar.run("DELETE FROM guests WHERE event = ? AND address = ?", number, address(person)):
            raise ToolError(f"{person[:60]} does not take part in {number}")
        return "taken off"

    def guests(self, event: str) -> list[str]:
        rows = self.calendar.rows("SELECT address FROM guests WHERE event = ? ORDER BY address", event)
        return [row["address"] for row in rows]

    def _event(self, number: str) -> Row:
        return one(self.calendar, "events", "event", number)

    def _shown(self, row: Row) -> Row:
        return {
            "event": row["id"],
            "title": row["title"],
            "start": row["start"],
            "minutes": row["minutes"],
            "participants": self.guests(row["id"]),
        }

    def _busy(self, people: list[str], day: dt.date) -> list[tuple[dt.datetime, dt.datetime]]:
        found = []
        for row in self.calendar.rows("SELECT * FROM events WHERE start LIKE ?", f"{day.isoformat()}%"):
            if any(person in self.guests(row["id"]) for person in people):
                start = read_time(row["start"])
                found.append((start, start + dt.timedelta(minutes=row["minutes"])))
        return found


def _minutes(minutes: int) -> int:
    if not 0 < minutes <= LONGEST_EVENT:
        raise ToolError(f"minutes are from 1 to {LONGEST_EVENT}, got {minutes}"[:80])
    return minutes
