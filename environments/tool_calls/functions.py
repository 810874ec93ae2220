"""The functions on offer: twenty small services whose answers are made up, but always the same for the same arguments.

They record nothing: what is judged is how they are called. Each docstring states the one normal form of every argument, so
that a request determines the call. Siblings (`FAMILIES`) do nearly the same and are told apart by reading.
"""

from __future__ import annotations

import datetime
import re
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..tool import ToolError, tool

FAMILIES: dict[str, tuple[str, ...]] = {
    "sky": ("weather", "air_quality"),
    "ways": ("route", "distance"),
    "money": ("convert_currency", "exchange_rate"),
    "clock": ("set_alarm", "set_timer", "set_reminder"),
    "calendar": ("add_event", "find_events"),
    "music": ("play_music", "set_volume"),
    "home": ("lights", "thermostat"),
    "language": ("translate", "define_word"),
    "people": ("send_message",),
    "measures": ("convert_units",),
    "shop": ("order_groceries",),
}
"""Which functions are alike. Every function is in one family."""

Room = Literal["kitchen", "bedroom", "bathroom", "office", "hall"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Unit = Literal["km", "mi", "m", "ft", "kg", "lb", "l", "gal"]


@dataclass(frozen=True)
class Item:
    """An article and how many of it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    count: int


class Functions:
    """The catalogue, as tools of an environment."""

    @tool
    def weather(
        self,
        city: str,
        day: Literal["today", "tomorrow"] = "today",
        unit: Literal["celsius", "fahrenheit"] = "celsius",
    ) -> dict[str, Any]:
        """Weather in a city."""
        degrees = made_up(-5, 30, "weather", city, day)
        return {
            "sky": ("sun", "clouds", "rain")[degrees % 3],
            unit: degrees if unit == "celsius" else round(degrees * 1.8 + 32),
        }

    @tool
    def air_quality(self, city: str) -> dict[str, Any]:
        """Air quality in a city."""
        return {"index": made_up(10, 180, "air", city)}

    @tool
    def route(
        self,
        start: str,
        end: str,
        mode: Literal["car", "train", "bike", "walk"] = "car",
        stops: list[str] | None = None,
    ) -> dict[str, Any]:
        """The way from one place to another.

        Args:
            stops: Places on the way, in the order of travel.
        """
        return {"minutes": made_up(15, 600, "route", start, end, mode, *(stops or ()))}

    @tool
    def distance(self, start: str, end: str, unit: Literal["km", "mi"] = "km") -> dict[str, Any]:
        """The distance between two places as the crow flies."""
        return {unit: made_up(20, 4000, "distance", start, end, unit)}

    @tool
    def convert_currency(self, amount: float, source: str, target: str) -> dict[str, Any]:
        """Convert an amount of money.

        Args:
            source: Three-letter code, such as EUR.
            target: Three-letter code.
        """
        rate = made_up(50, 400, "rate", code(source), code(target)) / 100
        return {target: round(amount * rate, 2)}

    @tool
    def exchange_rate(self, source: str, target: str, date: str | None = None) -> dict[str, Any]:
        """The rate between two currencies, now or on a past date.

        Args:
            source: Three-letter code, such as EUR.
            target: Three-letter code.
            date: YYYY-MM-DD.
        """
        return {"rate": made_up(50, 400, "rate", code(source), code(target), day(date)) / 100}

    @tool
    def set_alarm(self, time: str, days: list[Day] | None = None) -> str:
        """Set an alarm that rings at a time of day: once, or every week on some days.

        Args:
            time: HH:MM, 24 hours.
            days: In the order of the week, monday first.
        """
        return f"alarm {clock(time)} {' '.join(days or ())}".strip()

    @tool
    def set_timer(self, minutes: int, label: str | None = None) -> str:
        """Set a timer that counts down.

        Args:
            label: As the user writes it, without quotation marks.
        """
        return f"timer {minutes} min {label or ''}".strip()

    @tool
    def set_reminder(self, text: str, time: str, date: str | None = None) -> str:
        """Remind the user of something, today or on a date.

        Args:
            text: As the user writes it, without quotation marks.
            time: HH:MM, 24 hours.
            date: YYYY-MM-DD.
        """
        return f"reminder {day(date)} {clock(time)}: {text}"

    @tool
    def add_event(
        self, title: str, date: str, start: str, minutes: int = 60, guests: list[str] | None = None
    ) -> dict[str, Any]:
        """Put an event into the calendar.

        Args:
            title: As the user writes it, without quotation marks.
            date: YYYY-MM-DD.
            start: HH:MM, 24 hours.
            guests: Names, in the user's order.
        """
        return {"event": made_up(1000, 9999, title, day(date), clock(start)), "invited": len(guests or ())}

    @tool
    def find_events(self, date: str, until: str | None = None) -> list[str]:
        """The events of a day, or of all days from `date` until another, both included.

        Args:
            date: YYYY-MM-DD.
            until: YYYY-MM-DD.
        """
        return [("dentist", "choir", "review")[n % 3] for n in range(made_up(0, 3, day(date), day(until)))]

    @tool
    def play_music(self, artist: str, shuffle: bool = False, room: Room | None = None) -> str:
        """Play music by an artist, here or in a room."""
        return f"playing {artist}" + (" shuffled" if shuffle else "") + (f" in the {room}" if room else "")

    @tool
    def set_volume(self, percent: int, room: Room | None = None) -> str:
        """Set the volume of the music, everywhere or in a room."""
        return f"volume {percent}" + (f" in the {room}" if room else "")

    @tool
    def lights(self, room: Room, on: bool, brightness: int | None = None) -> str:
        """Switch the lights of a room.

        Args:
            brightness: Percent; only where the user names it.
        """
        return f"{room} lights {'on' if on else 'off'}" + (f" at {brightness}" if brightness is not None else "")

    @tool
    def thermostat(self, room: Room, degrees: float, mode: Literal["heat", "cool", "auto"] = "auto") -> str:
        """Set the temperature of a room, in degrees Celsius."""
        return f"{room} {degrees:g} {mode}"

    @tool
    def translate(self, text: str, language: str) -> str:
        """Translate a text.

        Args:
            text: As the user writes it, without quotation marks.
            language: Two-letter code of the target, such as en.
        """
        return f"[{code(language, 2)}] {text}"

    @tool
    def define_word(self, word: str, language: str = "en") -> str:
        """Look a word up in a dictionary.

        Args:
            language: Two-letter code of the dictionary, such as en.
        """
        return f"{word} ({code(language, 2)}): see page {made_up(2, 900, word)}"

    @tool
    def send_message(self, to: str, text: str, urgent: bool = False) -> str:
        """Send a text message.

        Args:
            text: As the user writes it, without quotation marks.
        """
        return f"sent to {to}" + (", marked urgent" if urgent else "")

    @tool
    def convert_units(self, value: float, source: Unit, target: Unit) -> dict[str, Any]:
        """Convert a length, weight or volume."""
        return {target: round(value * made_up(20, 300, "unit", source, target) / 100, 2)}

    @tool
    def order_groceries(self, items: list[Item], date: str | None = None) -> dict[str, Any]:
        """Order groceries for today or a date, all articles in one order.

        Args:
            items: In the user's order; names as the user writes them.
            date: YYYY-MM-DD.
        """
        return {"order": made_up(1000, 9999, day(date), *(item.name for item in items)), "articles": len(items)}


def made_up(low: int, high: int, *parts: str) -> int:
    """A number from `low` to `high` that looks drawn and is the same whenever the parts are."""
    return low + zlib.crc32("|".join(parts).encode("utf-8", "replace")) % (high - low + 1)


def code(text: str, length: int = 3) -> str:
    """A code of so many letters, or a ToolError."""
    if not (text.isascii() and text.isalpha() and len(text) == length):
        raise ToolError(f"{text[:40]!r} is no {'two' if length == 2 else 'three'}-letter code")
    return text


def day(text: str | None) -> str:
    """An ISO date, "today" for None, or a ToolError."""
    if text is None:
        return "today"
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ToolError(f"{text[:40]!r} is no date: YYYY-MM-DD") from None


def clock(text: str) -> str:
    """A time of day, or a ToolError."""
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ToolError(f"{text[:40]!r} is no time: HH:MM")
    return text
