"""How people say values: dates, times, amounts, currencies. Level 1 says the normal form itself, level 3 rarely does."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CITIES = tuple(
    "Oslo Rome Lima Cairo Tokyo Paris Quito Turin Delhi Perth Kyoto Basel Porto Leeds Accra Hanoi Malmo Ghent".split()
)
ARTISTS = ("Nina Simone", "Clara Schumann", "Miles Davis", "Bach", "Cesaria Evora", "Django Reinhardt", "Bjork")
NAMES = ("Ines", "Omar", "Yuki", "Pavel", "Amara", "Lotte", "Diego", "Priya", "Soren", "Mei")
ROOMS = ("kitchen", "bedroom", "bathroom", "office", "hall")
CHORES = (
    "water the plants",
    "call the landlord",
    "take the bins out",
    "renew the passport",
    "feed the cat",
    "pay the gas bill",
    "collect the parcel",
)
TITLES = ("Budget review", "Choir practice", "Dentist", "Site visit", "Team lunch", "Piano lesson", "Parents evening")
MESSAGES = ("I am running late", "The door code is 4417", "Dinner is ready", "Bring the blue folder", "See you at noon")
SENTENCES = ("Where is the station?", "The soup is cold", "Two tickets, please", "I have lost my key", "Good luck!")
ARTICLES = ("apples", "lemons", "eggs", "rye bread", "oat milk", "onions", "red lentils", "olive oil", "yoghurt")
WORDS = {"de": "Brücke", "fr": "chouette", "es": "madrugada", "it": "meriggio", "nl": "gezellig", "sv": "lagom"}
"""A word of each language, to be looked up."""
LANGUAGES = {
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "nl": "Dutch",
    "sv": "Swedish",
    "pl": "Polish",
    "pt": "Portuguese",
    "tr": "Turkish",
    "fi": "Finnish",
}
CURRENCIES = {
    "EUR": "euros",
    "USD": "US dollars",
    "GBP": "pounds sterling",
    "JPY": "Japanese yen",
    "CHF": "Swiss francs",
    "SEK": "Swedish kronor",
    "PLN": "Polish zloty",
    "INR": "Indian rupees",
    "CAD": "Canadian dollars",
    "AUD": "Australian dollars",
}
UNITS = {
    "km": ("kilometres", ("mi", "m")),
    "mi": ("miles", ("km", "ft")),
    "m": ("metres", ("ft", "km")),
    "ft": ("feet", ("m",)),
    "kg": ("kilograms", ("lb",)),
    "lb": ("pounds of weight", ("kg",)),
    "l": ("litres", ("gal",)),
    "gal": ("gallons", ("l",)),
}
"""Each unit's name, and what it is converted to."""
WEEK = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
_MONTHS = "January February March April May June July August September October November December".split()
_HOURS = "twelve one two three four five six seven eight nine ten eleven".split()
_SPANS = {
    15: "a quarter of an hour",
    30: "half an hour",
    45: "three quarters of an hour",
    60: "an hour",
    75: "an hour and a quarter",
    90: "an hour and a half",
    120: "two hours",
    150: "two and a half hours",
}


def one(rng: np.random.Generator, of: Sequence[T]) -> T:
    """One of several."""
    return of[int(rng.integers(len(of)))]


def some(rng: np.random.Generator, of: Sequence[T], count: int) -> list[T]:
    """Several different ones, in a drawn order."""
    return [of[i] for i in rng.permutation(len(of))[:count].tolist()]


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def a_day(rng: np.random.Generator) -> datetime.date:
    """The day on which a conversation takes place."""
    return datetime.date(2026, 1, 1) + datetime.timedelta(int(rng.integers(1000)))


def say_date(rng: np.random.Generator, level: int, today: datetime.date, sign: int = 1) -> tuple[str, str]:
    """A date after today (before it for sign -1), as ISO text and as people say it."""
    near = level >= 3 and rng.random() < 0.6
    days = int(rng.integers(1, 9 if near else 200))
    date = today + datetime.timedelta(sign * days)
    if near:
        if sign > 0:
            return date.isoformat(), {1: "tomorrow", 2: "the day after tomorrow"}.get(days, f"in {days} days")
        return date.isoformat(), {1: "yesterday", 2: "the day before yesterday"}.get(days, f"{days} days ago")
    return date.isoformat(), f"on {written(rng, level, date)}"


def written(rng: np.random.Generator, level: int, date: datetime.date) -> str:
    """A date in full: ISO at level 1, with the month's name above."""
    if level == 1:
        return date.isoformat()
    month = _MONTHS[date.month - 1]
    return f"{date.day} {month} {date.year}" if rng.random() < 0.5 else f"{month} {date.day}, {date.year}"


def say_time(rng: np.random.Generator, level: int) -> tuple[str, str]:
    """A time of day as HH:MM and as people say it."""
    hour, minute = int(rng.integers(6, 23)), 5 * int(rng.integers(12))
    time = f"{hour:02d}:{minute:02d}"
    if level == 1 or rng.random() < 0.2:
        return time, time
    if level == 2 or minute not in (0, 15, 30, 45):
        return time, f"{(hour - 1) % 12 + 1}:{minute:02d} {'am' if hour < 12 else 'pm'}"
    part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
    if minute == 45:
        if hour in (11, 17):  # a quarter to twelve in the morning: nobody says so
            return time, time
        return time, f"a quarter to {_HOURS[(hour + 1) % 12]} {part}"
    if hour == 12:
        return time, time
    lead, tail = {0: ("", " o'clock"), 15: ("a quarter past ", ""), 30: ("half past ", "")}[minute]
    return time, f"{lead}{_HOURS[hour % 12]}{tail} {part}"


def say_minutes(rng: np.random.Generator, level: int) -> tuple[int, str]:
    """A span in minutes and as people say it."""
    if level >= 3 and rng.random() < 0.7:
        return one(rng, list(_SPANS.items()))
    minutes = int(rng.integers(2, 60))
    return minutes, f"{minutes} minutes"


def say_amount(rng: np.random.Generator, level: int) -> tuple[float, str]:
    """An amount and as people write it: whole, with decimals, with thousands."""
    if level == 1:
        amount = int(rng.integers(2, 100))
        return amount, str(amount)
    cents = int(rng.integers(101, 10_000 if level == 2 else 10_000_000))
    return cents / 100, f"{cents / 100:,.2f}"


def say_code(code: str, names: dict[str, str], level: int) -> str:
    """A code at level 1, else what it stands for."""
    return code if level == 1 else names[code]
