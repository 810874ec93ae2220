"""The players that an environment has without being told: an oracle from gold calls and answer, and one who slips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..messages import ToolCall, Turn

if TYPE_CHECKING:
    from .env import Env

_SLIP = 0.5
"""The share of episodes in which the demonstrator errs."""


def gold_turn(env: Env) -> Turn:
    """The policy's gold calls, one a turn, and then the reference answer."""
    gold = _gold(env)
    if env.num_turns < len(gold):
        return Turn(tool_calls=(gold[env.num_turns],))
    if not env.task.answer and not gold:
        raise NotImplementedError(f"{type(env).__name__} has no oracle: its tasks have neither answer nor gold")
    return Turn(env.task.answer)


def slipping_turn(env: Env, rng: np.random.Generator) -> Turn:
    """The oracle's turn; in half of the episodes the last gold call is forgotten or, where there is none, the answer is
    another task's."""
    if env.num_turns == 0:
        env.slips = bool(rng.random() < _SLIP)
    turn, gold = env.oracle(), _gold(env)
    if not env.slips:
        return turn
    if gold and env.num_turns == len(gold) - 1:
        return Turn(env.task.answer)
    return turn if gold else Turn(env.sample_task(rng).answer, reasoning=turn.reasoning)


def _gold(env: Env) -> list[ToolCall]:
    return [call for call in env.task.gold if call.name in env.tools and env.tools[call.name].by == "policy"]
