"""Grading a turn: its named, weighted parts, under a deadline. Anything that is no number in range is a fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..messages import EnvironmentFault, Outcome, Turn
from .deadline import Deadline, guarded
from .reward import Reward

if TYPE_CHECKING:
    from .env import Env


async def grade(env: Env, turn: Turn, outcome: Outcome | None) -> dict[str, float]:
    """The parts of this turn by name; at the end with the episode's, times its gates.

    A completion that was cut earns nothing: what it was about to say is unknown.
    """
    parts: dict[str, float] = {}
    factor, gated = 1.0, []
    limit_s = env.limits.grading_timeout_s
    for reward in env.rewards:
        if outcome is None and reward.when == "episode":
            continue
        try:
            if turn.cut:
                found = {reward.name: 0.0}
            elif reward.is_async:
                found = reward.check(await _awaited(env, reward, turn))
            else:
                arguments = (turn,) if reward.takes_turn else ()
                found = reward.check(guarded(limit_s, getattr(env, reward.name), *arguments))
        except EnvironmentFault:
            raise
        except TimeoutError:
            raise EnvironmentFault("grader_timeout", f"{reward.name} took over {limit_s} s") from None
        except (ConnectionError, EOFError) as error:
            raise EnvironmentFault("connection_lost", f"{reward.name} raised {error!r}") from error
        except Exception as error:
            raise EnvironmentFault("grader_crash", f"{reward.name} raised {error!r}") from error
        if reward.gate:
            factor *= found[reward.name]
            continue
        if reward.when == "episode":
            gated += found
        parts.update(found)
    if factor != 1.0:
        for name in gated:
            parts[name] *= factor
    return parts


async def _awaited(env: Env, reward: Reward, turn: Turn) -> Any:
    """What an async reward returns."""
    pending = getattr(env, reward.name)(*((turn,) if reward.takes_turn else ()))
    if reward.own_deadline:
        return await pending
    async with Deadline(env.limits.grading_timeout_s):
        return await pending
