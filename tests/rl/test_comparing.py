"""A group is compared as a whole: what that gives is a reward, and where it fails nobody has one."""

import asyncio
import re
from typing import Any

import numpy as np
import pytest

from swannery.environments import Env, Message, Task, Turn, make, register, reward
from swannery.policies import ChatRenderer, GenerationRequest, GenerationResult, Policy, StopReason
from swannery.rewards import Judge
from swannery.rl import EnvironmentPool, RolloutSpec, Trajectory, rollout
from swannery.rl.comparing import compared, compares
from swannery.rl.runner import replayed
from swannery.rl.trajectory import Group


class Prefers:
    """A judge's model that likes the higher of two digits."""

    asked = 0

    async def __call__(self, messages: Any, *_: Any) -> Message:
        Prefers.asked += 1
        first, second = re.findall(r"<answer \d>\n(.*)\n</answer", messages[-1].text)
        return Message(
            "assistant", "[[10, 1]]" if first > second else "[[1, 10]]" if second > first else "[[5.5, 5.5]]"
        )


@register("test/Compared-v0", grading_timeout_s=0.2)
class Compared(Env):
    how = "judge"

    def task(self, rng: np.random.Generator) -> Task:
        return Task("Say a digit.", "9")

    @reward(weight=0.5)
    def right(self, turn: Turn) -> float:
        return float(turn.answer == self.task.answer)

    async def compare(self, answers: list[Turn]) -> list[float]:
        if self.how == "hangs":
            await asyncio.sleep(60)
        if self.how == "raises":
            raise RuntimeError("no judge")
        if self.how == "short":
            return [1.0]
        if self.how == "nan":
            return [float("nan")] * len(answers)
        judge = Judge(Prefers(), "The higher digit is better.")
        return await judge.circular([Message("user", self.task.prompt)], [turn.answer for turn in answers])


class Digits:
    """An engine that says the digit that its seed is."""

    policy_version, capacity = 0, 4096

    def __init__(self, chat: ChatRenderer) -> None:
        self.chat = chat

    def session(self, order: tuple[int, ...] = ()) -> "Digits":
        return self

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        from swannery.policies.sampling import stream_seed

        digit = next(d for d in range(10) if stream_seed(d, 0, 0) == request.seed)
        ids = self.chat.completion(Turn(str(digit)), reasoning=False)
        zeros = np.zeros(len(ids), np.float32)
        return GenerationResult(
            token_ids=ids, logprobs=zeros, forced=zeros > 0, policy_versions=zeros.astype(int), stop_reason=StopReason.STOP,
            routes=np.zeros((len(request.token_ids) + len(ids) - 1, 1, 2), np.uint8),
        )  # fmt: skip


def play(policy: Policy, digits: list[int]) -> list[tuple[Trajectory, ...]]:
    chat, pool = ChatRenderer(policy.tokenizer), EnvironmentPool(lambda: make("test/Compared-v0"))

    async def run() -> Any:
        specs = [
            RolloutSpec(env_id="test/Compared-v0", task_seed=3, rollout=i, seed=d, budget=0)
            for i, d in enumerate(digits)
        ]
        played = await asyncio.gather(*(rollout(pool, Digits(chat), chat, spec) for spec in specs))  # type: ignore[arg-type]
        return await compared(pool, 3, played)

    return list(asyncio.run(run()))


def test_a_circle_of_a_judge_is_a_reward_beside_the_others(policy: Policy) -> None:
    Prefers.asked = 0
    digits = [3, 9, 5, 5]
    played = play(policy, digits)
    rewards = [dict(branches[-1].turns[-1].rewards) for branches in played]
    # 3 < 9, 9 > 5, 5 = 5, 5 > 3: each the mean of its two comparisons
    assert [r["group"] for r in rewards] == [0.0, 1.0, 0.25, 0.75]
    assert [r["right"] for r in rewards] == [0.0, 0.5, 0.0, 0.0] and Prefers.asked == len(digits)
    group = Group.of("test/Compared-v0", 3, 0, played)
    assert group.rewards.tolist() == [0.0, 1.5, 0.25, 0.75]
    env = make("test/Compared-v0")
    assert compares(env) and not compares(make("chat/Guess-v0"))
    replayed(env, played[1][-1])  # its own rewards can still be played again


@pytest.mark.parametrize(
    ("how", "kind"),
    [("hangs", "grader_timeout"), ("raises", "grader_crash"), ("short", "bad_reward"), ("nan", "bad_reward")],
)
def test_where_comparing_fails_the_whole_group_is_left_out(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, how: str, kind: str
) -> None:
    monkeypatch.setattr(Compared, "how", how)
    group = Group.of("test/Compared-v0", 3, 0, play(policy, [1, 2, 3]))
    assert group.faults == (kind,) * 3 and not group.rollouts
