"""Chaos: every kind of failure at 20 %, and not one of them becomes a number."""

import asyncio
import contextvars
import os
from collections import Counter
from typing import Any

import numpy as np
import pytest

from swannery.environments import Env, State, Task, ToolCall, Turn, make, register, reward, tool
from swannery.policies import ChatRenderer, GenerationRequest, GenerationResult, Policy, StopReason
from swannery.rl import EnvironmentPool, RolloutSpec, Trajectory, rollout
from swannery.rl.algorithms.grpo import GRPO
from swannery.rl.trajectory import Group

KINDS = {
    "raises in a tool": "tool_crash",
    "spins in a tool": "tool_timeout",
    "hangs in an async tool": "tool_timeout",
    "loses the connection": "connection_lost",
    "kills the tool's process": "process_died",
    "raises in the grader": "grader_crash",
    "spins in the grader": "grader_timeout",
    "hangs in an async grader": "grader_timeout",
    "rewards NaN": "bad_reward",
    "rewards None": "bad_reward",
    "rewards 1e30": "bad_reward",
    "raises in start": "environment_crash",
    "raises in respond": "environment_crash",
    "hangs in respond": "environment_timeout",
}
NUM_GROUPS, GROUP_SIZE = 40, 8
SHARE = 0.2
plan: contextvars.ContextVar[tuple[str, int]] = contextvars.ContextVar("plan", default=("", 0))
"""How the present rollout fails, and in how many of its tries."""


@register("test/Chaos-v0", max_turns=4, tool_timeout_s=1.0, grading_timeout_s=0.2, reply_timeout_s=1.0)
class Chaos(Env):
    tries = State.dict({"tries": 0})

    def task(self, rng: np.random.Generator) -> Task:
        return Task("Press, and say a digit.", str(rng.integers(10)))

    def start(self) -> None:
        kind, times = plan.get()
        self.kind = kind if _counted() <= times else ""
        self._fail("raises in start")

    @tool
    def press(self, how: str) -> str:
        """Press."""
        self._fail("raises in a tool", "spins in a tool")
        return "pressed"

    @tool
    async def ring(self, how: str) -> str:
        """Ring."""
        if self.kind == "hangs in an async tool":
            await asyncio.sleep(60)
        if self.kind == "loses the connection":
            raise ConnectionResetError("gone")
        return "rung"

    @tool(isolated=True)
    def knock(self, how: str) -> str:
        """Knock."""
        if how == "hard":
            os._exit(1)
        return "knocked"

    async def respond(self, turn: Turn) -> str | None:
        if self.kind == "hangs in respond":
            await asyncio.sleep(60)
        self._fail("raises in respond")
        return None

    @reward
    def near(self, turn: Turn) -> Any:
        self._fail("raises in the grader", "spins in the grader")
        strange = {"rewards NaN": float("nan"), "rewards None": None, "rewards 1e30": 1e30}
        return strange.get(self.kind, 1 - abs(int(turn.answer) - int(self.task.answer)) / 10)

    @reward(weight=0.5)
    async def judged(self, turn: Turn) -> float:
        if self.kind == "hangs in an async grader":
            await asyncio.sleep(60)
        return 1.0 if turn.answer == self.task.answer else 0.0

    def _fail(self, *kinds: str) -> None:
        if self.kind in kinds:
            if self.kind.startswith("raises"):
                raise RuntimeError(self.kind)
            while True:
                pass


_tries: Counter[int] = Counter()
rollout_id: contextvars.ContextVar[int] = contextvars.ContextVar("rollout_id", default=-1)


def _counted() -> int:
    """Which try of the present rollout this is, from 1."""
    _tries[rollout_id.get()] += 1
    return _tries[rollout_id.get()]


class Scripted:
    """An engine whose policy makes one call and then says a digit that its seed decides."""

    policy_version, capacity = 0, 4096

    def __init__(self, chat: ChatRenderer) -> None:
        self.chat = chat

    def session(self, order: tuple[int, ...] = ()) -> "Session":
        return Session(self.chat)


class Session:
    def __init__(self, chat: ChatRenderer) -> None:
        self.chat, self.turns = chat, 0

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        kind, _ = plan.get()
        name = (
            "knock" if kind.startswith("kills") else "ring" if "async tool" in kind or "connection" in kind else "press"
        )
        call = ToolCall(name, {"how": "hard" if kind.startswith("kills") else "softly"})
        turn = Turn(str(request.seed % 10)) if self.turns else Turn(tool_calls=(call,))
        self.turns += 1
        ids = self.chat.completion(turn, reasoning=False)
        zeros = np.zeros(len(ids), np.float32)
        return GenerationResult(
            token_ids=ids, logprobs=zeros, forced=zeros > 0, policy_versions=zeros.astype(int),
            stop_reason=StopReason.STOP, routes=np.zeros((len(request.token_ids) + len(ids) - 1, 1, 2), np.uint8),
        )  # fmt: skip


def play(policy: Policy, fates: list[tuple[str, int]]) -> list[tuple[Trajectory, ...]]:
    chat = ChatRenderer(policy.tokenizer)
    pool, engine = EnvironmentPool(lambda: make("test/Chaos-v0")), Scripted(chat)
    _tries.clear()

    async def one(index: int) -> tuple[Trajectory, ...]:
        plan.set(fates[index])
        rollout_id.set(index)
        spec = RolloutSpec(
            env_id="test/Chaos-v0", task_seed=index // GROUP_SIZE, group=index // GROUP_SIZE, rollout=index % GROUP_SIZE,
            seed=index, budget=0, max_retries=1,
        )  # fmt: skip
        return await rollout(pool, engine, chat, spec)  # type: ignore[arg-type]

    async def everything() -> list[tuple[Trajectory, ...]]:
        return list(await asyncio.gather(*(one(i) for i in range(len(fates)))))

    played = asyncio.run(everything())
    pool.close()
    return played


@pytest.fixture(scope="module")
def fates() -> list[tuple[str, int]]:
    """A fifth of all rollouts fail, each kind about as often; half of them in the first try alone."""
    rng = np.random.default_rng(0)
    n = NUM_GROUPS * GROUP_SIZE
    found = [("", 0)] * n
    for number, index in enumerate(rng.choice(n, size=int(SHARE * n), replace=False)):
        found[index] = (list(KINDS)[number % len(KINDS)], 1 + number // len(KINDS) % 2)
    return found


def test_chaos_is_accounted_for_and_never_scored(policy: Policy, fates: list[tuple[str, int]]) -> None:
    calm = play(policy, [("", 0)] * len(fates))
    wild = play(policy, fates)
    assert len(wild) == len(fates) and len({kind for kind, _ in fates}) - 1 == len(KINDS) >= 12

    for (kind, times), branches in zip(fates, wild, strict=True):
        outcome = branches[0].outcome
        if times == 2:  # it failed in the retry as well: left out, and counted by its kind
            assert (outcome.kind, outcome.reason) == ("fault", KINDS[kind]), kind
        elif kind.startswith("kills"):  # what the policy does is what fails, so a retry fails too
            assert outcome.kind == "fault"
        else:
            assert outcome.kind == "terminated", (kind, outcome)

    untouched = [i for i, (_, times) in enumerate(fates) if times == 0]
    rewards = [[played[i][-1].reward for i in untouched] for played in (calm, wild)]
    assert rewards[0] == rewards[1] and np.mean(rewards[0]) == np.mean(rewards[1]) and len(set(rewards[0])) > 5

    left_out: Counter[str] = Counter()
    for number in range(NUM_GROUPS):
        group = Group.of("test/Chaos-v0", number, number, wild[number * GROUP_SIZE : (number + 1) * GROUP_SIZE])
        assert len(group.rollouts) + len(group.faults) == GROUP_SIZE
        assert np.isfinite(group.rewards).all() and len(group.rewards) == len(group.rollouts)
        left_out.update(group.faults)
        samples = [sample for samples in GRPO().score([group]) for sample in samples]
        assert abs(sum(sample.advantage for sample in samples)) < 1e-5
    faulted = sum(branches[0].outcome.kind == "fault" for branches in wild)
    assert sum(left_out.values()) == faulted > 20 and set(left_out) == set(KINDS.values())
