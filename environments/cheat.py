"""Cheats: policies of those who game the grader. An environment declares them and the checker plays them.

A cheat is a method that gives the next turn of someone who wants the reward without the work: repeats the prompt, calls every
tool, announces success. Its episodes must stay at the environment's `floor`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def cheat(method: F) -> F:
    """Mark a method `(self) -> Turn` as a cheat policy."""
    method.__swannery_cheat__ = True  # type: ignore[attr-defined]
    return method


def cheats_of(cls: type) -> tuple[str, ...]:
    """The names of the cheats that a class declares or inherits, in order of definition."""
    found: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        for name, member in vars(base).items():
            if getattr(member, "__swannery_cheat__", False):
                found[name] = None
    return tuple(found)
