"""The buffer's laws, in virtual time: nothing lost, nothing older than it may be, no length preferred."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.policies.simulated import virtual_time
from swannery.rl.admission import Prompt
from swannery.rl.buffer import GroupBuffer, Trained
from swannery.rl.trajectory import Group


def prompts(step: int, count: int) -> list[Prompt]:
    return [Prompt("x", -1, 1000 * step + number, step, number) for number in range(count)]


def trained(
    seed: int, *, steps: int, count: int, lookahead: int, room: int, learn_s: float, sigma: float = 1.0
) -> tuple[list[list[Trained]], float]:
    """Each step's groups, and how long all took. A group's length is its seed's."""
    rng = np.random.default_rng(seed)
    lengths = {p.task_seed: float(rng.lognormal(0, sigma)) for step in range(steps) for p in prompts(step, count)}

    async def play(prompt: Prompt) -> Group:
        await asyncio.sleep(lengths[prompt.task_seed])
        return Group(env_id="x", task_seed=prompt.task_seed, number=prompt.number, rollouts=())

    async def run() -> list[list[Trained]]:
        buffer, admitted, found = GroupBuffer(play, lookahead=lookahead, room=room), 0, []
        for step in range(steps):
            while admitted < min(step + lookahead + 1, steps):
                buffer.admit(prompts(admitted, count))
                admitted += 1
            found.append(await buffer.take(count))
            await asyncio.sleep(learn_s)
            buffer.version += 1
        assert buffer.pending == []
        return found

    return virtual_time(run)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(1, 6), lookahead=st.integers(0, 3), room=st.integers(1, 20),
    learn_s=st.floats(0, 8),
)  # fmt: skip
def test_each_prompt_is_trained_once_and_never_too_late(
    seed: int, count: int, lookahead: int, room: int, learn_s: float
) -> None:
    steps = 7
    found, _ = trained(seed, steps=steps, count=count, lookahead=lookahead, room=room, learn_s=learn_s)
    assert [len(step) for step in found] == [count] * steps
    assert sorted(one.prompt for step in found for one in step) == sorted(
        p for s in range(steps) for p in prompts(s, count)
    )
    assert max(one.lag for step in found for one in step) <= lookahead


def test_without_lookahead_a_step_trains_its_own_prompts_in_their_order() -> None:
    found, _ = trained(0, steps=4, count=5, lookahead=0, room=5, learn_s=1.0)
    assert [[one.prompt for one in step] for step in found] == [prompts(step, 5) for step in range(4)]


def test_lookahead_hides_the_slowest() -> None:
    """And prefers no length: what is trained before the end is distributed as what was sampled."""
    took = {}
    for lookahead in (0, 2):
        found, took[lookahead] = trained(1, steps=30, count=32, lookahead=lookahead, room=8, learn_s=6.0)
    assert took[2] < 0.7 * took[0]
    early = [one.prompt.task_seed for step in found[:25] for one in step]
    rng = np.random.default_rng(1)
    lengths = {p.task_seed: float(rng.lognormal(0, 1.0)) for step in range(30) for p in prompts(step, 32)}
    kept, every = np.sort([lengths[seed] for seed in early]), np.sort(list(lengths.values()))
    shares = np.arange(1, len(kept) + 1) / len(kept)
    assert np.abs(np.searchsorted(every, kept, side="right") / len(every) - shares).max() <= 0.03


def test_a_failing_group_is_raised_and_what_is_under_way_is_stopped() -> None:
    async def play(prompt: Prompt) -> Group:
        await asyncio.sleep(prompt.number)
        raise RuntimeError("our own mistake")

    async def run() -> int:
        buffer = GroupBuffer(play, lookahead=0, room=4)
        buffer.admit(prompts(0, 4))
        with pytest.raises(RuntimeError, match="our own mistake"):
            await buffer.take(4)
        await buffer.close()
        return len(asyncio.all_tasks())

    assert virtual_time(run)[0] == 1


@pytest.mark.parametrize("lookahead,count", [(0, 6), (1, 2), (0, 2), (2, 1)])
def test_a_run_goes_on_with_less_than_it_had_admitted_prompts_for(lookahead: int, count: int) -> None:
    """Eighteen prompts of lookahead 2 in steps of 6, gone on with by smaller steps or fewer of them ahead."""

    async def play(prompt: Prompt) -> Group:
        await asyncio.sleep(1 + prompt.task_seed % 5)
        return Group(env_id="x", task_seed=prompt.task_seed, number=prompt.number, rollouts=())

    async def run() -> list[Trained]:
        buffer = GroupBuffer(play, lookahead=lookahead, room=9, version=5, step_size=count)
        buffer.admit(prompt for step in range(3) for prompt in prompts(step, 6))
        found = []
        while buffer.pending:
            found += await buffer.take(count)
            await asyncio.sleep(2)
            buffer.version += 1
        return found

    found, _ = virtual_time(run)
    assert sorted(one.prompt for one in found) == sorted(prompt for step in range(3) for prompt in prompts(step, 6))
    assert max(one.lag for one in found) <= lookahead
