"""DAPO (https://arxiv.org/abs/2503.14476): the upper clip is higher, so that unlikely tokens can rise; the mean is over tokens; groups that
agree are replaced by new ones; answers that run out of tokens are punished softly ([shaping] overlong_buffer)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .bundle import Clipped, GroupRelative


class DAPO(GroupRelative, Clipped):
    """Decoupled clip and dynamic sampling."""

    name: Literal["dapo"] = "dapo"
    refills: int = Field(default=2, ge=0)
    """How many more times a step rolls out prompts in place of groups that agree."""
