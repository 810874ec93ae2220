"""Requests: for every function, what a person may want of it, as the call and as words that determine the call.

A clause is an imperative without a full stop ("set a timer of 5 minutes"), so that it can stand alone, in a list, or be
something that is *not* wanted. Optional arguments come up from level 2 on.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .words import (
    ARTICLES,
    ARTISTS,
    CHORES,
    CITIES,
    CURRENCIES,
    LANGUAGES,
    MESSAGES,
    NAMES,
    ROOMS,
    SENTENCES,
    TITLES,
    UNITS,
    WEEK,
    WORDS,
    listed,
    one,
    say_amount,
    say_code,
    say_date,
    say_minutes,
    say_time,
    some,
)

Drawn = tuple[dict[str, Any], str]


@dataclass(frozen=True)
class Mouth:
    """Who speaks: the random stream, how hard it is to follow, and the day."""

    rng: np.random.Generator
    level: int
    today: datetime.date

    def often(self) -> bool:
        """Whether an optional argument comes up."""
        return self.level > 1 and bool(self.rng.random() < 0.55)

    def one(self, *of: Any) -> Any:
        return of[int(self.rng.integers(len(of)))]


def weather(m: Mouth) -> Drawn:
    given: dict[str, Any] = {"city": one(m.rng, CITIES)}
    clause = m.one("tell me the weather in {city}", "look up the weather in {city}", "check the weather in {city}")
    clause = clause.format_map(given)
    if m.often():
        given["day"] = m.one("today", "tomorrow")
        clause += " " + m.one(given["day"], f"for {given['day']}")
    if m.often():
        given["unit"] = m.one("celsius", "fahrenheit")
        clause += f", in degrees {given['unit'].capitalize()}"
    return given, clause


def air_quality(m: Mouth) -> Drawn:
    city = one(m.rng, CITIES)
    return {"city": city}, m.one(f"tell me how clean the air is in {city}", f"check the air quality in {city}")


def route(m: Mouth) -> Drawn:
    start, end, *between = some(m.rng, CITIES, 4)
    given: dict[str, Any] = {"start": start, "end": end}
    clause = m.one(f"find the way from {start} to {end}", f"plan a trip from {start} to {end}")
    if m.often():
        given["mode"], words = m.one(("car", "by car"), ("train", "by train"), ("bike", "by bike"), ("walk", "on foot"))
        clause += f" {words}"
    if m.level >= 3 and m.rng.random() < 0.6:
        given["stops"] = between[: int(m.rng.integers(1, 3))]
        clause += f", stopping in {' and then in '.join(given['stops'])}"
    return given, clause


def distance(m: Mouth) -> Drawn:
    start, end = some(m.rng, CITIES, 2)
    given: dict[str, Any] = {"start": start, "end": end}
    clause = m.one(
        f"tell me how far it is from {start} to {end} as the crow flies",
        f"give me the straight-line distance from {start} to {end}",
    )
    if m.often():
        given["unit"], words = m.one(("km", "kilometres"), ("mi", "miles"))
        clause += f", in {words}"
    return given, clause


def convert_currency(m: Mouth) -> Drawn:
    source, target = some(m.rng, tuple(CURRENCIES), 2)
    amount, written = say_amount(m.rng, m.level)
    money, into = say_code(source, CURRENCIES, m.level), say_code(target, CURRENCIES, m.level)
    clause = m.one(f"convert {written} {money} to {into}", f"tell me what {written} {money} are in {into}")
    return {"amount": amount, "source": source, "target": target}, clause


def exchange_rate(m: Mouth) -> Drawn:
    source, target = some(m.rng, tuple(CURRENCIES), 2)
    given: dict[str, Any] = {"source": source, "target": target}
    money, into = say_code(source, CURRENCIES, m.level), say_code(target, CURRENCIES, m.level)
    clause = m.one(f"give me the exchange rate from {money} to {into}", f"look up the rate of {money} to {into}")
    if m.often():
        given["date"], words = say_date(m.rng, m.level, m.today, -1)
        clause += f" as it was {words}"
    return given, clause


def set_alarm(m: Mouth) -> Drawn:
    time, said = say_time(m.rng, m.level)
    given: dict[str, Any] = {"time": time}
    clause = m.one(f"set an alarm for {said}", f"wake me at {said}")
    if m.often():
        chosen = sorted(m.rng.permutation(7)[: int(m.rng.integers(1, 4))].tolist())
        given["days"] = [list(WEEK)[i] for i in chosen]
        clause += f" every {listed([WEEK[name] for name in given['days']])}"
    return given, clause


def set_timer(m: Mouth) -> Drawn:
    minutes, said = say_minutes(m.rng, m.level)
    given: dict[str, Any] = {"minutes": minutes}
    clause = m.one(f"set a timer of {said}", f"start a timer of {said}", f"count down {said}")
    if m.often():
        given["label"] = m.one("tea", "laundry", "bread", "parking", "rice")
        clause += f' with the label "{given["label"]}"'
    return given, clause


def set_reminder(m: Mouth) -> Drawn:
    time, said = say_time(m.rng, m.level)
    given: dict[str, Any] = {"text": one(m.rng, CHORES), "time": time}
    when = ""
    if m.often():
        given["date"], words = say_date(m.rng, m.level, m.today)
        when = f" {words}"
    return given, m.one(
        f'remind me at {said}{when} to "{given["text"]}"', f'set a reminder "{given["text"]}" at {said}{when}'
    )


def add_event(m: Mouth) -> Drawn:
    date, on = say_date(m.rng, m.level, m.today)
    start, said = say_time(m.rng, m.level)
    given: dict[str, Any] = {"title": one(m.rng, TITLES), "date": date, "start": start}
    clause = m.one(
        f'put "{given["title"]}" into my calendar {on} at {said}', f'add an event "{given["title"]}" {on} at {said}'
    )
    if m.often():
        given["minutes"], span = say_minutes(m.rng, m.level)
        clause += f" for {span}"
    if m.level >= 3 and m.rng.random() < 0.6:
        given["guests"] = some(m.rng, NAMES, int(m.rng.integers(1, 4)))
        clause += f" and invite {listed(given['guests'])}"
    return given, clause


def find_events(m: Mouth) -> Drawn:
    date, on = say_date(m.rng, m.level, m.today)
    if not m.often():
        return {"date": date}, m.one(f"show me my events {on}", f"tell me what is in my calendar {on}")
    until = (datetime.date.fromisoformat(date) + datetime.timedelta(int(m.rng.integers(1, 6)))).isoformat()
    return {"date": date, "until": until}, f"show me my events from {date} until {until}"


def play_music(m: Mouth) -> Drawn:
    given: dict[str, Any] = {"artist": one(m.rng, ARTISTS)}
    clause = m.one(f"play some {given['artist']}", f"put on music by {given['artist']}")
    if m.often():
        given["room"] = one(m.rng, ROOMS)
        clause += f" in the {given['room']}"
    if m.often():
        given["shuffle"] = True
        clause += m.one(", shuffled", ", in random order")
    return given, clause


def set_volume(m: Mouth) -> Drawn:
    given: dict[str, Any] = {"percent": 5 * int(m.rng.integers(1, 20))}
    clause = m.one(f"set the volume to {given['percent']} percent", f"turn the music to {given['percent']} percent")
    if m.often():
        given["room"] = one(m.rng, ROOMS)
        clause += f" in the {given['room']}"
    return given, clause


def lights(m: Mouth) -> Drawn:
    room, on = one(m.rng, ROOMS), bool(m.rng.random() < 0.6)
    given: dict[str, Any] = {"room": room, "on": on}
    switch = "on" if on else "off"
    clause = m.one(f"turn {switch} the lights in the {room}", f"switch the {room} lights {switch}")
    if on and m.often():
        given["brightness"] = 10 * int(m.rng.integers(1, 10))
        clause += f" at {given['brightness']} percent"
    return given, clause


def thermostat(m: Mouth) -> Drawn:
    degrees = int(m.rng.integers(16, 25)) + (0.5 if m.often() else 0)
    given: dict[str, Any] = {"room": one(m.rng, ROOMS), "degrees": degrees}
    clause = m.one(
        f"set the {given['room']} to {degrees:g} degrees", f"bring the {given['room']} to {degrees:g} degrees"
    )
    if m.often():
        given["mode"], words = m.one(("heat", "by heating only"), ("cool", "by cooling only"))
        clause += f" {words}"
    return given, clause


def translate(m: Mouth) -> Drawn:
    given = {"text": one(m.rng, SENTENCES), "language": one(m.rng, tuple(LANGUAGES))}
    name = LANGUAGES[given["language"]] + (f" ({given['language']})" if m.level == 1 else "")
    return given, m.one(f'translate "{given["text"]}" into {name}', f'put "{given["text"]}" into {name}')


def define_word(m: Mouth) -> Drawn:
    if not m.often():
        word = m.one("swan", "cygnet", "sluice", "tern", "estuary", "heron")
        return {"word": word}, m.one(f'look up the word "{word}"', f'tell me what "{word}" means')
    language = one(m.rng, tuple(WORDS))
    word = WORDS[language]
    return {"word": word, "language": language}, f'look up the {LANGUAGES[language]} word "{word}"'


def send_message(m: Mouth) -> Drawn:
    given: dict[str, Any] = {"to": one(m.rng, NAMES), "text": one(m.rng, MESSAGES)}
    clause = m.one(f'send {given["to"]} the message "{given["text"]}"', f'text {given["to"]}: "{given["text"]}"')
    if m.often():
        given["urgent"] = True
        clause += m.one(" and mark it as urgent", ", as an urgent message")
    return given, clause


def convert_units(m: Mouth) -> Drawn:
    source = one(m.rng, tuple(UNITS))
    name, targets = UNITS[source]
    target = one(m.rng, targets)
    value, written = say_amount(m.rng, m.level)
    clause = f"convert {written} {say_code(source, {source: name}, m.level)} to "
    return {"value": value, "source": source, "target": target}, clause + say_code(
        target, {target: UNITS[target][0]}, m.level
    )


def order_groceries(m: Mouth) -> Drawn:
    names = some(m.rng, ARTICLES, 1 if m.level == 1 else int(m.rng.integers(2, m.level + 2)))
    items = [{"name": name, "count": int(m.rng.integers(1, 13))} for name in names]
    given: dict[str, Any] = {"items": items}
    clause = m.one("order", "buy") + " " + listed([f"{item['count']} x {item['name']}" for item in items])
    if m.often():
        given["date"], words = say_date(m.rng, m.level, m.today)
        clause += f", to be delivered {words}"
    return given, clause


DRAW: dict[str, Callable[[Mouth], Drawn]] = {
    draw.__name__: draw
    for draw in (
        weather,
        air_quality,
        route,
        distance,
        convert_currency,
        exchange_rate,
        set_alarm,
        set_timer,
        set_reminder,
        add_event,
        find_events,
        play_music,
        set_volume,
        lights,
        thermostat,
        translate,
        define_word,
        send_message,
        convert_units,
        order_groceries,
    )
}

SUBJECT = {
    "weather": "city",
    "air_quality": "city",
    "distance": "end",
    "convert_currency": "amount",
    "set_timer": "minutes",
    "lights": "room",
    "thermostat": "room",
    "translate": "text",
    "define_word": "word",
}
"""Functions that may well be wanted twice in one breath, and the argument in which the calls then differ."""
