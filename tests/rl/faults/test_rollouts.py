"""Rows 10 and 18 to 26 of the fault table: environments, clocks and engines that fail; and the table itself."""

import asyncio
import gc
import importlib
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.environments import Env, Task, ToolCall, Turn, make, register, reward, tool
from swannery.policies import (
    ChatRenderer,
    GenerationRequest,
    GenerationResult,
    NativeEngine,
    Policy,
    StopReason,
    make_engine,
)
from swannery.rl import EnvironmentPool, RolloutSpec, Trajectory, rollout
from swannery.rl.faults import POINTS, FaultPlan
from swannery.rl.trajectory import Group

ROOT = Path(__file__).parents[3]


class Says:
    """An engine that takes the turns of a script, the last one for ever."""

    policy_version, capacity = 0, 4096

    def __init__(self, chat: ChatRenderer, *turns: Turn) -> None:
        self.chat, self.turns, self.number = chat, turns, 0

    def session(self, order: tuple[int, ...] = ()) -> "Says":
        return self

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        turn = self.turns[min(self.number, len(self.turns) - 1)]
        self.number += 1
        ids = self.chat.completion(turn, reasoning=False)
        zeros = np.zeros(len(ids), np.float32)
        return GenerationResult(
            token_ids=ids, logprobs=zeros, forced=zeros > 0, policy_versions=zeros.astype(int), stop_reason=StopReason.STOP,
            routes=np.zeros((len(request.token_ids) + len(ids) - 1, 1, 2), np.uint8),
        )  # fmt: skip


def play(policy: Policy, env_id: str, *turns: Turn, engine: Any = None, **changes: Any) -> tuple[Trajectory, ...]:
    chat = ChatRenderer(policy.tokenizer)
    spec = RolloutSpec(env_id=env_id, task_seed=1, budget=0, max_retries=0, **changes)
    pool = EnvironmentPool(lambda: make(env_id))
    return asyncio.run(rollout(pool, engine or Says(chat, *turns), chat, spec))


@register("faults/Graded-v0", grading_timeout_s=0.1)
class Graded(Env):
    gives: Any = 0.0

    def task(self, rng: np.random.Generator) -> Task:
        return Task("Say a digit.", str(rng.integers(10)))

    @reward
    async def odd(self, turn: Turn) -> Any:
        if self.gives == "late":
            await asyncio.sleep(30)
        if self.gives == "raises":
            raise RuntimeError("the grader is gone")
        return self.gives


@pytest.mark.parametrize(
    ("gives", "kind"),
    [("late", "grader_timeout"), ("raises", "grader_crash"), (None, "bad_reward"), (float("nan"), "bad_reward"),
     (float("inf"), "bad_reward"), ("1", "bad_reward"), (1e30, "bad_reward"), ([1.0, 0.0], "bad_reward")],
)  # fmt: skip
def test_row_10_a_reward_that_is_none_is_left_out(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, gives: Any, kind: str
) -> None:
    monkeypatch.setattr(Graded, "gives", gives)
    bad = play(policy, "faults/Graded-v0", Turn("1"))
    monkeypatch.setattr(Graded, "gives", 0.5)
    good = [play(policy, "faults/Graded-v0", Turn("1")) for _ in range(2)]
    group = Group.of("faults/Graded-v0", 1, 0, [good[0], bad, good[1]])
    assert group.faults == (kind,) and group.rewards.tolist() == [0.5, 0.5]  # and no 0 in between


@register("faults/Tools-v0", max_turns=5, max_tool_calls=3)
class Tools(Env):
    def task(self, rng: np.random.Generator) -> Task:
        return Task("Ring until it is answered.", str(rng.integers(10)))

    @tool
    async def ring(self, times: int) -> str:
        """Ring the bell."""
        await asyncio.sleep(0.01)
        return "nobody answers"

    @reward
    def answered(self, turn: Turn) -> float:
        return float(turn.answer == self.task.answer)


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0, 86400.0 * 365])
def test_row_18_a_jump_of_the_clock_ends_no_wait(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    kept, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: kept() + (next(calls) % 2) * jump_s)
    ring = Turn(tool_calls=(ToolCall("ring", {"times": 1}),))
    found = play(policy, "faults/Tools-v0", ring, Turn("1"), generation_timeout_s=5.0)
    assert found[-1].outcome.kind == "terminated"
    for path in [
        *ROOT.glob("rl/**/*.py"),
        *ROOT.glob("policies/*.py"),
        *ROOT.glob("environments/**/*.py"),
        *ROOT.glob("sandbox/*.py"),
    ]:
        wall = re.findall(r"\btime\.time\(\)|datetime\.now", path.read_text())
        assert not wall or path.name == "board.py", path  # tensorboard wants the time of day; no wait has it


def loop_of_steps(policy: Policy, steps: int, look: int) -> list[tuple[int, int, int]]:
    """Descriptors, threads and objects of ours, every `look` steps of engine and environments."""
    seen: list[tuple[int, int, int]] = []

    async def run() -> None:
        chat, pool = ChatRenderer(policy.tokenizer), EnvironmentPool(lambda: make("faults/Tools-v0"))
        async with make_engine(policy, num_slots=4, capacity=256) as engine:
            for step in range(steps):
                specs = [
                    RolloutSpec(env_id="faults/Tools-v0", task_seed=step, rollout=n, seed=n, budget=0, max_new_tokens=3)
                    for n in range(2)
                ]
                await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs))
                if step % look == look - 1:
                    gc.collect()
                    ours = sum(str(type(o).__module__).startswith("swannery") for o in gc.get_objects())
                    seen.append((len(os.listdir("/proc/self/fd")), threading.active_count(), ours))
        pool.close()

    asyncio.run(run())
    return seen


def test_row_20_nothing_grows_with_the_steps(policy: Policy) -> None:
    early, *_, late = loop_of_steps(policy, 120, 40)
    assert late[0] <= early[0] and late[1] <= early[1] and late[2] <= early[2] * 1.05


@pytest.mark.slow
def test_row_20_nothing_grows_over_2000_steps(policy: Policy) -> None:
    seen = loop_of_steps(policy, 2000, 200)
    assert all(late <= early * 1.05 for early, late in zip(seen[0], seen[-1], strict=True))


def test_row_24_a_policy_that_calls_tools_for_ever_is_cut(policy: Policy) -> None:
    ring = Turn(tool_calls=(ToolCall("ring", {"times": 1}),))
    (found,) = play(policy, "faults/Tools-v0", ring)
    assert found.outcome.kind == "truncated" and found.outcome.reason in ("max_tool_calls", "max_turns")
    assert found.num_tool_calls <= 5 and found.reward == 0.0


def test_row_25_what_a_template_would_say_otherwise_forks_and_sampled_ids_stay(policy: Policy) -> None:
    class Forgets(ChatRenderer):
        """Cannot append: each longer conversation is written anew."""

        def extend(self, *_: Any, **__: Any) -> None:
            return None

    chat = Forgets(policy.tokenizer)
    ring, pool = Turn(tool_calls=(ToolCall("ring", {"times": 1}),)), EnvironmentPool(lambda: make("faults/Tools-v0"))
    spec = RolloutSpec(env_id="faults/Tools-v0", task_seed=1, budget=0)
    branches = asyncio.run(rollout(pool, Says(chat, ring, Turn("1")), chat, spec))
    assert len(branches) == 2
    for branch, turn in zip(branches, (ring, Turn("1")), strict=True):
        assert branch.token_ids[branch.trained].tolist() == chat.completion(turn, reasoning=False)


class Hangs(Says):
    async def generate(self, request: GenerationRequest) -> GenerationResult:
        await asyncio.sleep(3600)
        raise AssertionError


def test_row_26_an_engine_that_says_nothing_is_a_fault(policy: Policy) -> None:
    hung = Hangs(ChatRenderer(policy.tokenizer))
    (found,) = play(policy, "faults/Graded-v0", engine=hung, generation_timeout_s=0.05)
    assert (found.outcome.kind, found.outcome.reason) == ("fault", "generation_timeout")


def test_row_26_the_slot_of_a_request_that_was_given_up_serves_the_next(policy: Policy) -> None:
    chat, pool = ChatRenderer(policy.tokenizer), EnvironmentPool(lambda: make("faults/Graded-v0"))

    async def run() -> list[Any]:
        async with make_engine(policy, num_slots=1, capacity=4096, synchronous=False) as engine:
            assert isinstance(engine, NativeEngine)
            late = RolloutSpec(
                env_id="faults/Graded-v0",
                task_seed=1,
                budget=0,
                max_new_tokens=4000,
                generation_timeout_s=0.2,
                max_retries=0,
            )
            first = await rollout(pool, Endless(engine), chat, late)  # type: ignore[arg-type]
            soon = RolloutSpec(
                env_id="faults/Graded-v0", task_seed=1, budget=0, max_new_tokens=4, generation_timeout_s=30
            )
            return [first, await rollout(pool, engine, chat, soon)]

    first, second = asyncio.run(run())
    assert first[0].outcome.reason == "generation_timeout"
    assert second[-1].outcome.kind != "fault"


class Endless:
    """A native engine whose requests no token ends."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine, self.capacity, self.policy_version = engine, engine.capacity, 0

    def session(self, order: tuple[int, ...] = ()) -> Any:
        import dataclasses

        session = self.engine.session(order)
        generate = session.generate
        session.generate = lambda request: generate(dataclasses.replace(request, stop_ids=()))  # type: ignore[method-assign]
        return session


FAULT_TABLE = {
    1: ("kill -9 at any point of a step", "test_saving:test_row_1_killed_at_any_point_of_a_step_it_goes_on_bit_for_bit"),
    2: ("kill -9 at each call of a save", "test_saving:test_row_2_a_kill_at_every_call_of_a_save_leaves_the_old_or_the_new_one"),
    3: ("SIGTERM", "test_saving:test_row_3_asked_to_stop_it_saves_and_ends_with_143"),
    4: ("full disk", "test_saving:test_row_4_a_full_disk_is_one_clear_line_and_costs_nothing"),
    5: ("damaged checkpoints", "test_saving:test_row_5_the_newest_and_the_one_before_damaged_it_says_so_and_all_of_them_it_refuses"),
    6: ("changed configuration", "test_saving:test_row_6_a_changed_configuration_refuses_with_what_differs_unless_told"),
    7: ("resume at a boundary", "test_saving:test_row_7_at_a_boundary_of_phases_nothing_is_skipped_and_nothing_done_twice"),
    10: ("rewards that are none", "test_rollouts:test_row_10_a_reward_that_is_none_is_left_out"),
    11: ("all of a group, all groups fail", "test_training:test_row_11_when_every_group_fails_the_run_stops_and_says_why"),
    12: ("gradients that are not finite", "test_training:test_row_12_a_gradient_that_is_not_finite_changes_nothing_and_leaves_its_samples"),
    13: ("late rollouts", "test_training:test_row_13_rollouts_that_are_handed_over_late_keep_the_bound_in_a_run"),
    15: ("twice or out of order", "test_training:test_rows_13_and_15_late_twice_or_out_of_order_each_prompt_is_trained_once_and_in_time"),
    18: ("clock jump", "test_rollouts:test_row_18_a_jump_of_the_clock_ends_no_wait"),
    19: ("two trainers on one run", "test_saving:test_row_19_a_second_trainer_is_refused"),
    20: ("leaks", "test_rollouts:test_row_20_nothing_grows_with_the_steps"),
    24: ("tool loop", "test_rollouts:test_row_24_a_policy_that_calls_tools_for_ever_is_cut"),
    25: ("template that rewrites", "test_rollouts:test_row_25_what_a_template_would_say_otherwise_forks_and_sampled_ids_stay"),
    26: ("hung engine", "test_rollouts:test_row_26_an_engine_that_says_nothing_is_a_fault"),
}  # fmt: skip
"""Rows of the fault matrix that concern training on one machine: the fault, and the test that injects it."""


def test_the_table_has_every_row_and_each_names_a_test_that_is_there() -> None:
    assert list(FAULT_TABLE) == [*range(1, 8), *range(10, 14), 15, *range(18, 21), *range(24, 27)]
    for _, place in FAULT_TABLE.values():
        module, name = place.split(":")
        assert callable(getattr(importlib.import_module(f".{module}", __package__), name))


def test_every_fault_point_is_in_the_code_and_in_a_test() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "rl").glob("*.py"))
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    for point in POINTS:
        assert f'fault("{point}")' in code, point
        assert point in tests or point.startswith("save."), point  # row 2 goes through all of those


@pytest.mark.parametrize("text", ["save.rename", "save.renam:1=kill", "save.rename:1=explode", "*%2#1=kill"])
def test_a_plan_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a fault is POINT|no fault"):
        FaultPlan(text)
