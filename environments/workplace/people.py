"""The cast: the people of one company, one of whom is the user, and the customers whom it sells to.

All five databases speak of the same people by their addresses. At level 3 some share a first or a last name.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..draws import Draws

FIRST = (
    *(
        "Aino",
        "Amara",
        "Anselm",
        "Bao",
        "Beatriz",
        "Cyrus",
        "Dalia",
        "Emeka",
        "Fenna",
        "Goran",
        "Hana",
        "Idris",
        "Ilse",
    ),
    *("Joaquín", "Kaori", "Leif", "Maren", "Mateo", "Nadia", "Nils", "Oksana", "Paloma", "Quentin", "Rania", "Rosalie"),
    *("Samir", "Saoirse", "Tadeo", "Tove", "Uma", "Viktor", "Wanda", "Xavier", "Yara", "Zoë"),
)
LAST = (
    *("Abara", "Almgren", "Bellini", "Castellan", "Dagher", "Eklund", "Farrow", "Gruber", "Haddad", "Ibarra", "Jansen"),
    *("Kimura", "Kowal", "Lindqvist", "Marchetti", "Moreau", "Nakata", "Nwosu", "Okafor", "Petrov", "Quist", "Rahimi"),
    *("Sandoval", "Soto", "Tanaka", "Teague", "Ueda", "Vance", "Vilar", "Weidmann", "Yilmaz", "Zeller"),
)
TEAMS = ("Sales", "Design", "Engineering", "Finance", "Support", "Marketing", "Legal", "Logistics")
FIRMS = ("Ternworks", "Maplegate", "Northlight", "Quillhouse", "Saltmarsh", "Bluefern", "Ironbrook", "Kitewell")
BUYERS = (
    *(
        "Acorn Foods",
        "Bright Harbour",
        "Cedar Clinics",
        "Delta Rail",
        "Elm Street Books",
        "Fjord Outdoor",
        "Granite Bank",
    ),
    *("Hollow Oak Hotels", "Iris Optics", "Juno Cycles", "Kelp & Co", "Larkspur Labs", "Minerva Schools", "Nimbus Air"),
)
_PLAIN = str.maketrans({"í": "i", "ë": "e"})


@dataclass(frozen=True)
class Person:
    """Somebody of the company."""

    name: str
    address: str
    team: str
    role: str
    """"head" or "member"."""

    @property
    def first(self) -> str:
        return self.name.split()[0]


def address_of(name: str, domain: str) -> str:
    """Anna Berg -> anna.berg@domain, without accents."""
    return name.lower().translate(_PLAIN).replace(" ", ".") + f"@{domain}"


def domain_of(firm: str) -> str:
    return firm.lower().replace(" & ", "-and-").replace(" ", "-") + ".example"


class Cast:
    """Twelve people in five teams, each with a head; `user` is no head."""

    def __init__(self, draws: Draws, level: int) -> None:
        self.firm = draws.one(FIRMS)
        self.domain = domain_of(self.firm)
        firsts, lasts = draws.some(FIRST, 12), draws.some(LAST, 30)
        self.spare = lasts[12:]
        if level == 3:
            # Namesakes: who is meant then hangs on the whole name.
            firsts[7], lasts[8] = firsts[1], lasts[2]
        teams = draws.some(TEAMS, 5)
        placed = [(team, "head") for team in teams] + [(teams[i % 5], "member") for i in range(7)]
        self.people = [
            Person(name, address_of(name, self.domain), *place)
            for name, place in zip([f"{f} {s}" for f, s in zip(firsts, lasts, strict=False)], placed, strict=False)
        ]
        self.user = draws.one(self.people[5:])
        self.others = [person for person in self.people if person is not self.user]
        self.by_address = {person.address: person for person in self.people}

    def head_of(self, team: str) -> Person:
        return next(person for person in self.people if person.team == team and person.role == "head")

    def rows(self) -> list[list[str]]:
        """The company's address book, by name."""
        return sorted([p.address, p.name, p.team, p.role] for p in self.people)
