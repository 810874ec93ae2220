"""The runner: one episode of an environment with an engine, to trajectories.

    messages --render--> ids --engine--> ids + logprobs --parse--> turn --astep--> messages ...

Nothing is ever re-tokenized: a completion's ids are kept as they were sampled and the renderer appends the delta. Where it
cannot (old reasoning is dropped), the trajectory forks. A fault is retried with a fresh environment, then left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..environments import Env, EnvironmentFault, EpisodeRecord
from ..environments.deadline import Deadline
from ..environments.record import play_turns
from ..messages import Message, Outcome, Turn
from ..policies.engine import Engine, GenerationRequest, GenerationResult, ReasoningBudget, Session, StopReason
from ..policies.rendering import Effort, Renderer
from ..policies.sampling import stream_seed
from .trajectory import GROUP_REWARD, Segment, Trajectory, TurnRecord

Budget = int | Literal["low"] | None
"""Reasoning of a turn: so many tokens (0: off), "low" for low effort, None for no limit."""


def limit_of(budget: Budget) -> int | None:
    return budget if isinstance(budget, int) else None


def effort_of(budget: Budget) -> Effort:
    return "low" if budget == "low" else "full"


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """What to roll out. `order` fixes the admission; `seed` every random choice of the policy."""

    env_id: str
    task_seed: int
    group: int = 0
    step: int = 0
    rollout: int = 0
    seed: int = 0
    temperature: float = 1.0
    max_new_tokens: int = 128
    budget: int | None = None
    """Reasoning tokens a turn: None unlimited, 0 reasoning off."""
    grace: int = 0
    """Tokens beyond the budget in which the end of a line or sentence is waited for."""
    effort: Effort = "full"
    top_k: int = 0
    top_p: float = 1.0
    max_retries: int = 1
    generation_timeout_s: float | None = None
    """How long a turn's tokens may take, waiting for a slot included; None: as long as they take."""


class EnvironmentPool:
    """Environments of one kind, used again after a clean episode and replaced after a fault."""

    def __init__(self, make_env: Callable[[], Env]) -> None:
        self.make_env = make_env
        self._idle: list[Env] = []

    def take(self, *, fresh: bool = False) -> Env:
        return self._idle.pop() if self._idle and not fresh else self.make_env()

    def give_back(self, env: Env) -> None:
        self._idle.append(env)

    def close(self) -> None:
        for env in self._idle:
            env.close()
        self._idle.clear()


@dataclass
class _Branch:
    """A trajectory in the making."""

    segments: list[Segment] = field(default_factory=list)
    turns: list[TurnRecord] = field(default_factory=list)
    routes: list[np.ndarray] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    parent: int | None = None
    offset: int = 0

    def give(self, token_ids: list[int], turn: int) -> None:
        self.segments.append(Segment.given(token_ids, turn))
        self.ids += token_ids

    def take(self, result: GenerationResult, turn: int, temperature: float) -> None:
        self.segments.append(
            Segment(
                token_ids=np.array(result.token_ids, np.int64),
                sampled=True,
                turn=turn,
                forced=result.forced,
                logprobs=result.logprobs,
                policy_versions=result.policy_versions,
                temperature=temperature,
                support=result.support,
            )
        )
        self.ids += result.token_ids
        if result.routes_start == 0:
            self.routes.clear()  # everything was computed anew, by newer weights
        self.routes.append(result.routes)


async def rollout(
    pool: EnvironmentPool, engine: Engine, renderer: Renderer, spec: RolloutSpec
) -> tuple[Trajectory, ...]:
    """The branches of one rollout. After `max_retries` faulted tries the outcome is that fault; at once where the engine hangs, which no
    other environment would change."""
    for attempt in range(spec.max_retries + 1):
        env = pool.take(fresh=attempt > 0)
        try:
            trajectories = await _episode(env, engine, renderer, spec, attempt)
        except EnvironmentFault as fault:
            env.close()
            if attempt == spec.max_retries or fault.kind == "generation_timeout":
                return (_faulted(spec, fault),)
        else:
            pool.give_back(env)
            return trajectories
    raise AssertionError("unreachable")


async def _episode(
    env: Env, engine: Engine, renderer: Renderer, spec: RolloutSpec, attempt: int
) -> tuple[Trajectory, ...]:
    messages, _ = await env.areset(seed=spec.task_seed)
    tools = env.tool_schemas
    reasoning = spec.budget != 0
    branches = [_Branch()]
    branches[0].give(renderer.open(messages, tools, reasoning=reasoning, effort=spec.effort), 0)
    if len(branches[0].ids) >= engine.capacity:
        raise EnvironmentFault("prompt_too_long", f"{len(branches[0].ids)} tokens, the engine holds {engine.capacity}")
    session = engine.session((spec.group, spec.rollout))
    try:
        while True:
            branch, number = branches[-1], env.num_turns
            seed = stream_seed(spec.seed, number, attempt)
            result = await _generated(session, _request(branch.ids, spec, seed), spec.generation_timeout_s)
            turn = renderer.parse(result.token_ids, reasoning=reasoning)
            if result.stop_reason is StopReason.LENGTH:
                turn = dataclasses.replace(turn, cut=True)
            start = len(branch.ids)
            branch.take(result, number, spec.temperature)
            said, _, terminated, truncated, info = await env.astep(turn)
            branch.turns.append(_turn_record(turn, result, spec, start, len(branch.ids), info["rewards"]))
            if terminated or truncated:
                return _finish(env, branches, spec)
            mode: Any = {"reasoning": reasoning, "effort": spec.effort}
            delta = renderer.extend(branch.ids, env.transcript, len(said), tools, **mode)
            ids = renderer.open(env.transcript, tools, **mode) if delta is None else [*branch.ids, *delta]
            if len(ids) >= engine.capacity:  # no room for another turn: the conversation is cut here
                _, _, _, _, info = await env.astep(Turn(cut=True))
                last = branch.turns[-1]
                rewards = {
                    k: last.rewards.get(k, 0.0) + info["rewards"].get(k, 0.0)
                    for k in {**last.rewards, **info["rewards"]}
                }
                branch.turns[-1] = dataclasses.replace(last, rewards=rewards)
                return _finish(env, branches, spec)
            if delta is not None:
                branch.give(delta, number + 1)
            else:
                session.close()
                session = engine.session((spec.group, spec.rollout, number + 1))
                branches.append(_fork(branches, ids, number + 1))
    finally:
        session.close()


async def _generated(session: Session, request: GenerationRequest, limit_s: float | None) -> GenerationResult:
    """What the engine says to a request. EnvironmentFault where it says nothing in time; the request is withdrawn then."""
    if limit_s is None:
        return await session.generate(request)
    deadline = Deadline(limit_s)
    try:
        async with deadline:
            return await session.generate(request)
    except TimeoutError:
        if not deadline.expired:  # the engine's own
            raise
        raise EnvironmentFault("generation_timeout", f"the engine gave no answer in {limit_s} s") from None


def _request(ids: list[int], spec: RolloutSpec, seed: int) -> GenerationRequest:
    return GenerationRequest(
        token_ids=tuple(ids),
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        top_k=spec.top_k,
        top_p=spec.top_p,
        seed=seed,
        reasoning=spec.budget != 0,
        budget=ReasoningBudget(limit=spec.budget, grace=spec.grace) if spec.budget else None,
    )


def _turn_record(
    turn: Turn, result: GenerationResult, spec: RolloutSpec, start: int, end: int, rewards: dict[str, float]
) -> TurnRecord:
    return TurnRecord(
        start=start,
        end=end,
        rewards=rewards,
        budget=spec.budget,
        grace=spec.grace,
        num_reasoning_tokens=result.num_reasoning_tokens,
        budget_hit=result.budget_hit,
        num_tool_calls=len(turn.tool_calls),
        malformed=turn.malformed,
        action=turn,
    )


def _fork(branches: list[_Branch], ids: list[int], turn: int) -> _Branch:
    parent = branches[-1]
    common = 0
    for old, new in zip(parent.ids, ids, strict=False):
        if old != new:
            break
        common += 1
    branch = _Branch(parent=len(branches) - 1, offset=common)
    branch.give(ids, turn)
    return branch


def _finish(env: Env, branches: list[_Branch], spec: RolloutSpec) -> tuple[Trajectory, ...]:
    assert env.outcome is not None
    # A turn's rewards belong to the branch that holds its tokens; the last branch carries all of the episode's.
    turns = [turn for branch in branches for turn in branch.turns]
    _check_credit(env, turns)
    return tuple(
        Trajectory(
            env_id=spec.env_id,
            task_seed=spec.task_seed,
            group=spec.group,
            step=spec.step,
            rollout=spec.rollout,
            segments=tuple(branch.segments),
            turns=tuple(turns if branch is branches[-1] else branch.turns),
            outcome=env.outcome,
            routes=np.concatenate(branch.routes),
            branch=number,
            branch_of=branch.parent,
            branch_offset=branch.offset,
            num_branches=len(branches),
            effort=spec.effort,
            messages=tuple(env.transcript),
        )
        for number, branch in enumerate(branches)
    )


def _check_credit(env: Env, turns: list[TurnRecord]) -> None:
    """What the turns were given is what the environment gave, part by part; anything else is no reward to train on."""
    given: dict[str, float] = {}
    for turn in turns:
        for name, value in turn.rewards.items():
            given[name] = given.get(name, 0.0) + value
    if given != env.total_rewards():
        raise EnvironmentFault("bad_reward", f"turns were given {given}, the episode {env.total_rewards()}")


def replayed(env: Env, trajectory: Trajectory) -> EpisodeRecord:
    """The trajectory's turns played again in `env`, made as the run made it. EnvironmentFault("replay_differs") where what
    was said or given is not the same to the letter."""
    record = play_turns(env, trajectory.task_seed, [turn.action for turn in trajectory.turns])
    if tuple(env.transcript) != trajectory.messages:
        raise EnvironmentFault(
            "replay_differs", f"{trajectory.env_id}, task {trajectory.task_seed}: another transcript"
        )
    own = [{name: value for name, value in turn.rewards.items() if name != GROUP_REWARD} for turn in trajectory.turns]
    if record.rewards != own:
        raise EnvironmentFault("replay_differs", f"{trajectory.env_id}, task {trajectory.task_seed}: other rewards")
    return record


def _faulted(spec: RolloutSpec, fault: EnvironmentFault) -> Trajectory:
    return Trajectory(
        env_id=spec.env_id,
        task_seed=spec.task_seed,
        group=spec.group,
        step=spec.step,
        rollout=spec.rollout,
        segments=(),
        turns=(),
        outcome=Outcome("fault", fault.kind),
        routes=np.zeros((0, 0, 0), np.uint8),
        messages=(Message("user", str(fault)),),
    )
