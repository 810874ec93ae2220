"""Requests: wishes and conditions put together, in the words of somebody who wants them done.

level 1: one wish, everything said        level 2: one wish that needs looking up, or two, or one about many things
level 3: "if ... then one wish, otherwise another", perhaps a third besides, under house rules
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from ...messages import ToolCall
from .conditions import Condition, Conditions
from .rules import Rules
from .wishes import Wish
from .wishes_agenda import AgendaWishes
from .wishes_boards import BoardWishes
from .wishes_crm import CustomerWishes
from .world import World

SINGLE = {
    "email": ("send", "reply", "forward", "delete_email", "label_email"),
    "calendar": ("create_event", "create_event", "move_event", "resize_event", "cancel_event", "invite", "uninvite"),
    "analytics": ("create_plot", "create_report", "set_alert", "remove_alert"),
    "projects": (
        *("create_task", "assign_task", "move_task", "set_due_date", "set_task_priority"),
        *("comment_on_task", "delete_task"),
    ),
    "crm": (
        *("add_customer", "set_customer_status", "assign_customer", "set_follow_up", "add_customer_note"),
        "delete_customer",
    ),
}
"""Wishes that one object is enough for, by the database that they change."""
WIDE = {
    "email": ("send_to_customer", "send_to_guests", "send_figure", "delete_from", "label_from"),
    "calendar": ("first_slot", "cancel_day", "invite_day"),
    "analytics": ("plot_from_peak", "plot_from_peak", "report_to_team", "change_alert", "set_alert", "remove_alerts"),
    "projects": ("assign_all", "finish_review", "postpone_overdue"),
    "crm": ("give_leads", "follow_up_all"),
}
"""Wishes that need several look-ups or change several things."""
CONDITIONS = {
    "email": ("wrote", "labelled"),
    "calendar": ("busy_day", "is_free"),
    "analytics": ("visits_above", "source_compare"),
    "projects": ("open_tasks", "task_status", "overdue"),
    "crm": ("customer_status", "contacted", "more_customers"),
}
TOUCHED = {
    "notice": ("calendar", ("cancel_event", "cancel_day")),
    "outside": ("email", ("send_to_customer",)),
    "keep": ("email", ("delete_email", "delete_from")),
    "load": ("projects", ("create_task", "assign_task")),
    "handover": ("crm", ("assign_customer", "give_leads")),
    "won": ("crm", ("delete_customer",)),
    "weekend": ("calendar", ("create_event", "move_event")),
    "rush": ("projects", ("create_task",)),
}
"""Which wishes a house rule is about."""
_GREETINGS = ("", "", "", "Hi! ", "Good morning. ", "Hello. ")
_THANKS = ("", "", "", " Thanks!", " Thank you.", " That is all.")


class All(AgendaWishes, BoardWishes, CustomerWishes, Conditions):
    """Every wish and every condition."""


@dataclass(frozen=True)
class Request:
    """What the user says, and the calls that do it; `other` are those of the branch that was not to be taken."""

    kind: str
    words: str
    lookups: tuple[ToolCall, ...]
    writes: tuple[ToolCall, ...]
    other: tuple[ToolCall, ...]
    condition: str = ""
    holds: bool = True


class Requests:
    """Draws one request in a world."""

    def __init__(self, world: World, rules: Rules) -> None:
        self.world, self.draws, self.rules = world, world.draws, rules

    def draw(self) -> Request:
        if self.world.level == 1:
            return self._one(SINGLE)
        if self.world.level == 2:
            way = self.draws.below(5)
            return self._two() if way < 2 else self._one(SINGLE if way == 2 else WIDE)
        return self._conditional()

    def _one(self, of: dict[str, tuple[str, ...]]) -> Request:
        database = self.draws.one(tuple(of))
        wish = self._wish(All(self.world, (database,), self.rules), database, of[database])
        return self._request(wish.kind, self._politely(wish.words), [], [wish], [])

    def _two(self) -> Request:
        """Two wishes about different databases, so that neither changes what the other is about."""
        databases = self.draws.some(tuple(SINGLE), 2)
        wishes = All(self.world, databases, self.rules)
        first, second = (
            self._wish(wishes, database, (SINGLE if self.draws.chance(0.7) else WIDE)[database])
            for database in databases
        )
        words = self.draws.one(
            (
                f"{self._politely(first.words)} {_sentence(f'also, {second.words}')}",
                f"{self._politely(first.words)} {_sentence(f'and {second.words}')}",
                f"Two things: {first.words}; and {_stopped(second.words)}",
                f"{self._politely(first.words)} After that, {_stopped(second.words)}",
            )
        )
        return self._request(f"{first.kind}+{second.kind}", words, [], [first, second], [])

    def _conditional(self) -> Request:
        first, second = self._database(), self.draws.one(tuple(SINGLE))
        besides = [one for one in SINGLE if one not in (first, second)]
        third = self.draws.one(besides) if self.draws.chance(0.5) else None
        asked = self.draws.one([one for one in CONDITIONS if one != third])
        closed = [one for one in (first, second, third) if one is not None]
        wishes = All(self.world, closed, self.rules)
        condition = self._condition(wishes, asked)
        a = self._wish(wishes, first, self._kinds(first))
        b = self._wish(wishes, second, self._kinds(second), a)
        words = self._if(condition, a, b)
        done, left = [a] if condition.holds else [b], b if condition.holds else a
        kind = f"if:{a.kind}|{b.kind}"
        if third is not None:
            c = self._wish(wishes, third, self._kinds(third))
            also = _sentence(self.draws.one((f"also, {c.words}", f"and in any case, {c.words}", f"besides, {c.words}")))
            words = self.draws.one(
                (f"{words} {also}", f"{words} {also}", f"{_sentence(c.words)} Then another thing. {words}")
            )
            done.append(c)
            kind += f"+{c.kind}"
        words = f"{self.draws.one(_GREETINGS)}{words}{self.draws.one(_THANKS)}"
        request = self._request(kind, words, list(condition.lookups), done, list(left.writes))
        return dataclasses.replace(request, condition=condition.words, holds=condition.holds)

    def _if(self, condition: Condition, a: Wish, b: Wish) -> str:
        then, otherwise = a.words, b.words
        return self.draws.one(
            (
                f"If {condition.words}, {_stopped(then)} Otherwise, {_stopped(otherwise)}",
                f"Please check whether {condition.words}. If so, {_stopped(then)} If not, {_stopped(otherwise)}",
                f"If {condition.words}, please {then}; if not, {_stopped(otherwise)}",
                f"I am not sure whether {condition.words}. If that is the case, {_stopped(then)} Otherwise {_stopped(otherwise)}",
                f"In case {condition.words}: {_stopped(then)} In any other case: {_stopped(otherwise)}",
            )
        )

    def _database(self) -> str:
        """Where the first wish belongs: mostly where a rule has a say."""
        if self.draws.chance(0.75):
            return TOUCHED[self.draws.one(self.rules.names)][0]
        return self.draws.one(tuple(SINGLE))

    def _kinds(self, database: str) -> tuple[str, ...]:
        """The wishes to choose from: those that a rule is about first, then the wide and the single ones."""
        ruled = [TOUCHED[name][1] for name in self.rules.names if TOUCHED[name][0] == database]
        if ruled and self.draws.chance(0.8):
            return self.draws.one(ruled)
        return (WIDE if self.draws.chance(0.3) else SINGLE)[database]

    def _wish(self, wishes: All, database: str, kinds: Sequence[str], unlike: Wish | None = None) -> Wish:
        """A wish of one of these kinds or, where the world has nothing for them, of any in the database.

        It does something else than `unlike` does.
        """
        for attempt in range(60):
            wish = getattr(wishes, self.draws.one(kinds if attempt < 20 else SINGLE[database]))()
            if wish is not None and (unlike is None or wish.writes != unlike.writes):
                return wish
        raise AssertionError(f"no wish about {database} fits this world")

    def _condition(self, wishes: All, database: str) -> Condition:
        while True:
            condition = getattr(wishes, self.draws.one(CONDITIONS[database]))()
            if condition is not None:
                return condition

    def _request(
        self, kind: str, words: str, lookups: list[ToolCall], wishes: list[Wish], other: list[ToolCall]
    ) -> Request:
        for wish in wishes:
            lookups += wish.lookups
        once = [lookup for i, lookup in enumerate(lookups) if lookup not in lookups[:i]]
        return Request(kind, words, tuple(once), tuple(write for wish in wishes for write in wish.writes), tuple(other))

    def _politely(self, clause: str) -> str:
        start, end = self.draws.one(
            (
                ("", "."),
                ("Please ", "."),
                ("Could you ", "?"),
                ("Can you please ", "?"),
                ("I would like you to ", "."),
                ("I need you to ", "."),
                ("Would you ", "?"),
            )
        )
        if end == "." and _closed(clause):
            end = ""
        told = f"{start}{clause}{end}"
        return f"{self.draws.one(_GREETINGS)}{told[0].upper()}{told[1:]}"


def _closed(clause: str) -> bool:
    """Whether a clause ends with a quoted sentence, whose full stop serves for both."""
    return clause.endswith(('."', '!"', '?"'))


def _stopped(clause: str) -> str:
    return clause if _closed(clause) else f"{clause}."


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{_stopped(clause)[1:]}"
