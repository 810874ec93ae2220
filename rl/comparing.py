"""Group rewards: what an environment says of a prompt's rollouts side by side, such as a judge that compares them in a circle.

An environment that overrides `Env.compare` is asked once a group is whole. Its numbers are one more named reward of each rollout's last
turn. Where it fails, none of the group has a reward that the others lack: all are left out, and counted by its fault.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence

from ..environments import Env, EnvironmentFault
from ..messages import Outcome
from .runner import EnvironmentPool
from .trajectory import GROUP_REWARD, Trajectory

Played = Sequence[tuple[Trajectory, ...]]


def compares(env: Env) -> bool:
    """Whether an environment compares the rollouts of a prompt."""
    return type(env).compare is not Env.compare


async def compared(pool: EnvironmentPool, task_seed: int, played: Played) -> Played:
    """The rollouts with what comparing them gave; as faults, if that failed. A rollout that faulted is not compared, and one that is
    alone is compared with nobody."""
    whole = [number for number, branches in enumerate(played) if branches[0].outcome.kind != "fault"]
    if not whole:
        return played
    env = pool.take()
    try:
        await env.areset(seed=task_seed)
        answers = [played[number][-1].turns[-1].action for number in whole]
        async with asyncio.timeout(env.limits.grading_timeout_s):
            values = await env.compare(answers)
        _check(values, len(whole))
    except EnvironmentFault as fault:
        env.close()
        return _left_out(played, fault.kind)
    except TimeoutError:
        env.close()
        return _left_out(played, "grader_timeout")
    except Exception:  # an author's code may raise anything
        env.close()
        return _left_out(played, "grader_crash")
    pool.give_back(env)
    given = dict(zip(whole, values, strict=True))
    return [_with(branches, given[n]) if n in given else branches for n, branches in enumerate(played)]


def _check(values: Sequence[float], count: int) -> None:
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise EnvironmentFault("bad_reward", f"compare gave {list(values)!r} for {count} rollouts")


def _with(branches: tuple[Trajectory, ...], value: float) -> tuple[Trajectory, ...]:
    last = branches[-1]
    turn = dataclasses.replace(last.turns[-1], rewards={**last.turns[-1].rewards, GROUP_REWARD: float(value)})
    return (*branches[:-1], dataclasses.replace(last, turns=(*last.turns[:-1], turn)))


def _left_out(played: Played, kind: str) -> Played:
    outcome = Outcome("fault", kind)
    return [tuple(dataclasses.replace(branch, outcome=outcome) for branch in branches) for branches in played]
