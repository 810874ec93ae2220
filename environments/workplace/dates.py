"""Days, and the words for them. Weeks begin on Monday; what is said never has two readings."""

from __future__ import annotations

import datetime as dt
from typing import TypeVar

from ..draws import Draws
from ..tool import ToolError

D = TypeVar("D", dt.date, dt.datetime)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = tuple("January February March April May June July August September October November December".split())


def in_full(day: dt.date) -> str:
    """Tuesday, 3 March 2026."""
    return f"{WEEKDAYS[day.weekday()]}, {day.day} {MONTHS[day.month - 1]} {day.year}"


def week_of(day: dt.date) -> dt.date:
    """The Monday of a day's week."""
    return day - dt.timedelta(day.weekday())


def words_for(day: dt.date, today: dt.date, draws: Draws, *, plain: bool = False, adverb: bool = False) -> str:
    """A day as people say it: "tomorrow", "Friday of next week", "12 March".

    `plain` is without reference to today; `adverb` allows what cannot follow "to", such as "in 5 days".
    """
    dated = f"{day.day} {MONTHS[day.month - 1]}"
    if plain:
        return draws.one((day.isoformat(), f"{dated} {day.year}"))
    ways = [dated]
    away, weeks = (day - today).days, (week_of(day) - week_of(today)).days // 7
    if away in (-1, 0, 1, 2):
        ways += [{-1: "yesterday", 0: "today", 1: "tomorrow", 2: "the day after tomorrow"}[away]] * 2
    if weeks == 0 and away > 1:
        ways += [f"{WEEKDAYS[day.weekday()]} of this week"] * 2
    if weeks == 1:
        ways += [f"{WEEKDAYS[day.weekday()]} of next week"] * 2
    if adverb and 3 <= away <= 10:
        ways.append(f"in {away} days")
    return draws.one(ways)


def on(words: str) -> str:
    """The words for a day as an adverbial: "on 12 March", but "tomorrow"."""
    return f"on {words}" if words[0].isdigit() or words.split()[0] in WEEKDAYS else words


def clock(time: dt.time | dt.datetime, halves: bool) -> str:
    """14:30 or, in halves of a day, 2:30 pm."""
    if not halves:
        return time.strftime("%H:%M")
    return f"{(time.hour - 1) % 12 + 1}:{time.minute:02d} {'am' if time.hour < 12 else 'pm'}"


def read_day(text: str) -> dt.date:
    """A day that a tool was given."""
    try:
        return _sane(dt.date.fromisoformat(text.strip()))
    except ValueError:
        raise ToolError(f"a day is written YYYY-MM-DD, got {text[:40]!r}") from None


def read_time(text: str) -> dt.datetime:
    """A day and time that a tool was given."""
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"):
        try:
            return _sane(dt.datetime.strptime(text.strip(), form).replace(second=0))
        except ValueError:
            continue
    raise ToolError(f"a time is written YYYY-MM-DD HH:MM, got {text[:40]!r}")


def _sane(day: D) -> D:
    """Days near the ends of the calendar would overflow when something is added."""
    if not 1990 <= day.year <= 2100:
        raise ToolError(f"years are from 1990 to 2100, got {day.year}")
    return day


def stamp(time: dt.datetime) -> str:
    return time.isoformat(sep=" ", timespec="minutes")
