"""What no function does, by topic: near enough to what some do that it takes reading to tell."""

from __future__ import annotations

from .requests import Mouth
from .words import CITIES, NAMES, one

UNFIT: dict[str, tuple[str, ...]] = {
    "flight booking": ("book me a seat on the morning flight to {city}", "get me a return flight to {city}"),
    "hotel booking": (
        "reserve a double room in a hotel in {city}",
        "find me a quiet guesthouse in {city} for two nights",
    ),
    "table booking": ("book a table for {n} tonight", "get us a table for {n} at the fish restaurant"),
    "taxi": ("get me a taxi to the station", "have a cab pick me up in {n} minutes"),
    "phone call": ("ring {name} for me", "put me through to {name} on the phone"),
    "stock price": ("tell me what shares of the harbour company cost", "look up today's closing price of my shares"),
    "news": ("read me the headlines", "tell me what is in the news about {city}"),
    "sports result": ("tell me how the match in {city} ended", "look up who won the cup final"),
    "printing": ("print the contract in {n} copies", "send page {n} to the printer"),
    "parcel tracking": ("find out where my parcel is", "track the parcel that {name} sent me"),
    "recipe": ("give me a recipe for lentil soup", "tell me how to bake a plum cake for {n}"),
    "cinema": ("tell me which films are on tonight", "get {n} tickets for the late show"),
    "photo": ("take a picture of me", "crop the photo of {name}"),
    "health record": ("note my blood pressure", "show me my last blood test"),
    "job search": ("find me a job as a gardener in {city}", "look for open posts at the museum"),
    "garbage": ("tell me when the waste paper is collected", "ask the town for a bigger bin"),
}
"""What no function does, by topic."""


def unfit(m: Mouth, topic: str) -> str:
    """A clause that no function fits."""
    clause = one(m.rng, UNFIT[topic])
    return clause.format(city=one(m.rng, CITIES), name=one(m.rng, NAMES), n=int(m.rng.integers(2, 9)))
