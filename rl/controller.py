"""The controller: the one loop, and all that a run must remember.

    admit -> roll out -> commit groups -> advantages -> learner.step -> publish(v + 1)

It owns the data cursor, the versions and the random streams; engines and learners hold weights and a version. A snapshot
of (cursor, versions, weights, optimizer) therefore resumes a synchronous run bit for bit: every other number is a hash of
(run, task, group, rollout, turn).
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from ..environments import Curriculum, CurriculumConfig, Env, EnvironmentFault, Mixture
from ..policies import (
    HybridModel,
    NativeEngine,
    Policy,
    Renderer,
    Tokenizer,
    load_policy,
    make_engine,
    make_renderer,
    policy_files,
    preset,
    weights_hash,
)
from ..policies.sampling import stream_seed
from .batch import Sample, TrainBatch, micro_batches, pack, total_weight
from .config import EnvironmentConfig, RunConfig
from .demonstrations import demonstrate, training_text
from .display import Display
from .evaluation import Score, evaluate
from .learner import Learner, PolicyLoss, RouterTraining, StepMetrics, negative_log_likelihood
from .metrics import environment_row
from .mismatch import MismatchMonitor
from .preflight import make_environment
from .run_folder import RunError, RunFolder, write_folder
from .runner import Budget, EnvironmentPool, RolloutSpec, effort_of, limit_of, rollout
from .scoring import score_group
from .tasks import task_seed
from .trajectory import Group

PHASES = ("sft", "grpo", "done")
TOKENIZER_EPISODES = 300


class Interrupted(Exception):
    """A signal asked the run to stop; it has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


@dataclass
class State:
    """What a snapshot holds besides tensors."""

    phase: str = "sft"
    step: int = 0
    """Steps of the phase that are done."""
    policy_version: int = 0
    cursor: dict[str, int] = field(default_factory=dict)
    """How many training tasks of each environment were drawn."""
    mixture: dict[str, str] = field(default_factory=dict)
    """What each environment is still owed of the batches."""
    curriculum: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    """Running totals: sampled tokens, rollouts, left out by kind, seconds by part, the largest mismatch."""

    def add(self, **amounts: float) -> None:
        for key, amount in amounts.items():
            self.counts[key] = self.counts.get(key, 0) + amount


class Controller:
    """One run, from its configuration to its report."""

    def __init__(self, config: RunConfig, folder: RunFolder, display: Display) -> None:
        self.config, self.folder, self.display = config, folder, display
        self.monitor = MismatchMonitor()
        self.envs: dict[str, Env] = {env.id: make_environment(env) for env in config.environments}
        self.pools = {env.id: EnvironmentPool(_maker(env)) for env in config.environments}
        self.state = State(cursor={env_id: 0 for env_id in self.envs})
        self.mixture = Mixture({env.id: env.weight for env in config.environments}, at_least=1)
        self.curriculum = _curriculum(config)
        self.policy: Policy
        self.learner: Learner
        self._stop: int | None = None

    # The whole run.

    def run(self) -> None:
        """Do what is left of the run. Raises Interrupted, after saving, when a signal asks."""
        with self._signals():
            self._prepare()
            if self.state.phase == "sft":
                self._warm_start()
                self._enter("grpo")
            if self.state.phase == "grpo":
                if self.config.grpo.steps:
                    self._evaluate("before")
                    asyncio.run(self._reinforce())
                    self.folder.write_json("mismatch.json", self.monitor.report())
                self._enter("done")
            self._evaluate("after")
            write_folder(self.folder.path / "policy", policy_files(self.policy))

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
        for env in self.envs.values():
            env.close()

    # Preparation and snapshots.

    def _prepare(self) -> None:
        found = self.folder.load_checkpoint()
        if found is None:
            self.policy = self._new_policy()
            self.policy.model.exact = self.config.policy.exact_replay
            self.learner = self._new_learner()
            self._save()
            return
        path, state, aside = found
        for line in aside:
            self.display.console.print(f"[yellow]{line}[/]")
        self.state = State(**{key: state[key] for key in asdict(self.state) if key in state})
        if self.state.mixture:
            self.mixture.load_state_dict(self.state.mixture)
        if self.curriculum is not None and self.state.curriculum:
            self.curriculum.load_state_dict(self.state.curriculum)
        self.policy = load_policy(path)
        self.policy.model.exact = self.config.policy.exact_replay
        self.learner = self._new_learner()
        self.learner.load_state(safetensors.torch.load_file(path / "optimizer.safetensors"))
        self.folder.forget_after(self.state.phase, self.state.step, PHASES)

    def _new_policy(self) -> Policy:
        config = self.config.policy
        if config.folder:
            return load_policy(Path(config.folder))
        self.display.say("Training the tokenizer on the environments' own text ...")
        texts = training_text(self.envs, TOKENIZER_EPISODES)
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        model = HybridModel(preset(config.preset, vocab_size=config.vocab_size), seed=self.config.seed)
        return Policy(model, tokenizer)

    def _new_learner(self) -> Learner:
        if self.state.phase == "sft":
            sft = self.config.sft
            routers = RouterTraining(weights=True, bias_rate=sft.balance_rate, aux_loss=sft.aux_loss)
            return Learner(self.policy.model, optimizer="muon", lr=sft.learning_rate, routers=routers)
        grpo = self.config.grpo
        routers = RouterTraining(bias_rate=grpo.balance_rate)
        return Learner(self.policy.model, optimizer="adamw", lr=grpo.learning_rate, routers=routers)

    def _enter(self, phase: str) -> None:
        if phase == "grpo" and self.config.sft.steps:
            write_folder(self.folder.path / "policy-sft", policy_files(self.policy))
        self.state.phase, self.state.step = phase, 0
        self.learner = self._new_learner()
        self._save()

    def _save(self) -> None:
        state = self.state
        state.mixture = self.mixture.state_dict()
        state.curriculum = self.curriculum.state_dict() if self.curriculum else {}
        number = PHASES.index(state.phase) * 1_000_000 + state.step
        files = {**policy_files(self.policy), "optimizer.safetensors": safetensors.torch.save(self.learner.state())}
        self.folder.save_checkpoint(f"{number:07d}-{state.phase}", files, asdict(state))

    def _after_step(self, total: int) -> None:
        """Save when it is time, and at once when a signal came."""
        if self._stop is not None or self.state.step % self.config.checkpoint_every == 0 or self.state.step == total:
            with self._timed("save"):
                self._save()
        if self._stop is not None:
            raise Interrupted(self._stop)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after its present step, saved. A second one ends it at once."""

        def ask(number: int, _: Any) -> None:
            if self._stop is not None:
                raise KeyboardInterrupt
            self._stop = number
            self.display.say("[yellow]stopping after this step (again: at once)[/]")

        try:
            before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not in the main thread
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.state.add(**{f"seconds_{self.state.phase}_{part}": time.monotonic() - start})

    # The warm start.

    def _warm_start(self) -> None:
        config, state = self.config.sft, self.state
        renderer = make_renderer(self.policy)
        names = list(self.envs)
        with self.display.phase("Warm start (SFT)", config.steps, state.step) as phase:
            while state.step < config.steps:
                with self._timed("data"):
                    env_ids = [names[i % len(names)] for i in range(-(-config.batch_size // config.takes_per_task))]
                    groups = [found for env_id in env_ids if (found := self._demonstrations(env_id, renderer))]
                    weight = total_weight(sample for group in groups for sample in group)
                    batches = [
                        pack(part, weight, with_routes=False)
                        for part in micro_batches(groups, self.config.generation.micro_batch_tokens)
                    ]
                with self._timed("learn"):
                    scale = min(1.0, (state.step + 1) / max(config.warmup_steps, 1))
                    scale *= _decay(state.step, config.steps, config.decay_share)
                    metrics = self.learner.step(batches, negative_log_likelihood, lr_scale=scale)
                self._guard(metrics)
                state.step += 1
                figures = {key: getattr(metrics, key) for key in ("loss", "grad_norm", "max_violation", "idle_experts")}
                self.folder.log({"phase": "sft", "step": state.step - 1, **figures})
                phase.advance(f"loss {metrics.loss:.3f}")
                self._after_step(config.steps)

    def _demonstrations(self, env_id: str, renderer: Renderer) -> list[Sample]:
        """The demonstrations of the next task of an environment; none where the environment failed."""
        env, config, seed = self.envs[env_id], self.config.sft, self._next_task(env_id)
        budgets = self.budgets(env_id)
        budget = budgets[seed % len(budgets)]
        try:
            played = [
                demonstrate(
                    env,
                    env_id,
                    seed,
                    renderer,
                    by=config.by,
                    budgets=(limit_of(budget),),
                    cut_share=config.cut_share,
                    take=take,
                )
                for take in range(config.takes_per_task)
            ]
        except EnvironmentFault:
            self.state.add(left_out=1)
            return []
        return [Sample(trajectory, 1.0) for trajectory in played]

    # Reinforcement.

    async def _reinforce(self) -> None:
        config, state = self.config.grpo, self.state
        async with self._engine(config.prompts_per_step * config.group_size) as engine:
            with self.display.phase("GRPO", config.steps, state.step) as phase:
                while state.step < config.steps:
                    before = engine.metrics.to_dict()
                    with self._timed("roll_out"):
                        groups = await self._roll_out(engine)
                    with self._timed("learn"):
                        steps = self._learn(groups)
                    engine.load_weights(self.policy.model.state_dict(), state.policy_version)
                    state.step += 1
                    model_s = engine.metrics.model_s - before["model_s"] + sum(m.model_s for m in steps)
                    state.add(
                        sampled_tokens=engine.metrics.sampled_tokens - before["sampled_tokens"],
                        seconds_grpo_model=model_s,
                    )
                    rows = {env_id: environment_row([g for g in groups if g.env_id == env_id]) for env_id in self.envs}
                    self._log_step(rows, steps)
                    mean = np.mean([row["reward"] for row in rows.values() if "reward" in row])
                    phase.advance(f"mean reward {mean:.2f}", rows)
                    self._after_step(config.steps)

    async def _roll_out(self, engine: NativeEngine) -> list[Group]:
        """The groups of one step. Rollouts that faulted are left out of theirs; fewer than two left drop the group."""
        config, step = self.config.grpo, self.state.step
        renderer = make_renderer(self.policy)
        specs: list[list[RolloutSpec]] = []
        prompts = self._prompts()
        for number, (env_id, _, seed) in enumerate(prompts):
            budgets = self.budgets(env_id)
            budget = budgets[stream_seed(self.config.seed, "budget", step, number) % len(budgets)]
            specs.append([])
            for index in range(config.group_size):
                specs[-1].append(
                    RolloutSpec(
                        env_id=env_id,
                        task_seed=seed,
                        group=number,
                        rollout=index,
                        seed=stream_seed(self.config.seed, env_id, seed, step, number, index),
                        temperature=config.temperature,
                        max_new_tokens=self.config.generation.max_new_tokens,
                        budget=limit_of(budget),
                        grace=self.config.generation.budget_grace,
                        effort=effort_of(budget),
                        top_k=config.top_k,
                        top_p=config.top_p,
                    )
                )
        played = await asyncio.gather(
            *(rollout(self.pools[s.env_id], engine, renderer, s) for group in specs for s in group)
        )
        groups = []
        for number in range(len(specs)):
            rollouts = played[number * config.group_size : (number + 1) * config.group_size]
            env_id, task_number, seed = prompts[number]
            group = Group.of(env_id, seed, number, rollouts)
            if self.curriculum is not None:
                self.curriculum.update(env_id, task_number, [bool(reward >= 0.5) for reward in group.rewards])
            groups.append(group)
        return groups

    def _learn(self, groups: list[Group]) -> list[StepMetrics]:
        """The optimizer steps of one step's groups. Groups without differences are left out of loss and denominators."""
        config, state = self.config.grpo, self.state
        scored = [samples for group in groups if (samples := score_group(group))]
        order = np.random.default_rng(stream_seed(self.config.seed, "order", state.step)).permutation(len(scored))
        steps = []
        for part in np.array_split(order, config.updates_per_step):
            chosen = [scored[i] for i in part]
            if not chosen:
                continue
            fresh = -1 if steps else state.policy_version  # after one update no weights are those that sampled
            weight = total_weight(sample for samples in chosen for sample in samples)
            batches = [
                pack(part, weight, with_routes=config.replay_routes)
                for part in micro_batches(chosen, self.config.generation.micro_batch_tokens)
            ]
            metrics = self.learner.step(
                batches,
                PolicyLoss(config.clip_low, config.clip_high),
                lr_scale=_decay(state.step, config.steps, config.decay_share),
                observe=partial(self._observe, fresh),
            )
            self._guard(metrics)
            steps.append(metrics)
        state.policy_version += 1
        return steps

    def _observe(self, version: int, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
        """Show the monitor a batch; a new alarm is told at once and kept in the run folder."""
        known = len(self.monitor.alarms)
        self.monitor.observe(batch, logprobs_T, version, partial(self.learner.live_routes, batch))
        for alarm in list(self.monitor.alarms.values())[known:]:
            self.display.console.print(f"[yellow]engine and learner differ[/] {alarm}", highlight=False)
            self.folder.write_json("mismatch.json", self.monitor.report())

    def _log_step(self, rows: dict[str, dict[str, float]], steps: list[StepMetrics]) -> None:
        state = self.state
        mismatch = self.monitor.step_figures()
        state.counts["mismatch_max"] = max(state.counts.get("mismatch_max", 0.0), mismatch["max"])
        record: dict[str, Any] = {
            "phase": "grpo",
            "step": state.step - 1,
            "policy_version": state.policy_version,
            "environments": {env_id: {k: round(v, 6) for k, v in row.items()} for env_id, row in rows.items()},
            "loss": sum(m.loss for m in steps),
            "grad_norm": max((m.grad_norm for m in steps), default=0.0),
            "entropy": float(np.mean([m.entropy for m in steps])) if steps else 0.0,
            "max_violation": max((m.max_violation for m in steps), default=0.0),
            "idle_experts": max((m.idle_experts for m in steps), default=0.0),
            "trained_tokens": sum(m.num_trained_tokens for m in steps),
            "packed_tokens": sum(m.num_packed_tokens for m in steps),
            "mismatch": mismatch,
        }
        for row in rows.values():
            state.add(
                rollouts=row.get("rollouts", 0.0),
                budget_violations=row.get("budget_violations", 0.0),
                forced_in_loss=row.get("forced_in_loss", 0.0),
                left_out=row.get("left_out", 0.0),
            )
        self.folder.log(record)

    def _guard(self, metrics: StepMetrics) -> None:
        if metrics.skipped:
            self.state.add(skipped_steps=1)
            if self.state.counts["skipped_steps"] >= 10:
                raise RunError("10 steps had gradients that are not finite; the learning rate is the first suspect")

    # Evaluation.

    def _evaluate(self, when: str) -> None:
        """Sampled and greedy scores on held-out tasks, kept in evaluation-WHEN.json. Done once, also over a resume."""
        name, config = f"evaluation-{when}.json", self.config.evaluation
        if not config.num_tasks or self.folder.read_json(name) is not None:
            return
        with self._timed(f"evaluate_{when}"):
            scores: list[Score] = []
            total = 2 * config.num_tasks * len(self.envs)
            with self.display.phase(f"Held-out, {when}", total) as phase:
                for temperature in (1.0, 0.0):
                    scores += asyncio.run(self._scores(temperature, phase.advance))
        self.folder.write_json(name, [score.to_dict() for score in scores])

    async def _scores(self, temperature: float, on_episode: Any) -> list[Score]:
        async with self._engine(self.config.generation.num_slots) as engine:
            scores, _ = await evaluate(
                self.envs,
                self.pools,
                engine,
                make_renderer(self.policy),
                split=self.config.evaluation.split,
                num_tasks=self.config.evaluation.num_tasks,
                temperature=temperature,
                max_new_tokens=self.config.generation.max_new_tokens,
                budgets={env_id: evaluation_budget(self.budgets(env_id)) for env_id in self.envs},
                grace=self.config.generation.budget_grace,
                on_episode=on_episode,
            )
        return scores

    # Small things.

    def _engine(self, num_slots: int) -> NativeEngine:
        engine = make_engine(self.policy, num_slots=num_slots, capacity=self.config.generation.context_size)
        engine.policy_version = self.state.policy_version
        return engine

    def budgets(self, env_id: str) -> tuple[Budget, ...]:
        """The reasoning budgets that an environment's training samples from."""
        config = next(env for env in self.config.environments if env.id == env_id)
        declared: tuple[Budget, ...] = tuple(None if b == "unlimited" else b for b in config.reasoning_budgets)
        return declared or self.envs[env_id].limits.reasoning_budgets

    def _next_task(self, env_id: str) -> int:
        number = self.state.cursor[env_id]
        self.state.cursor[env_id] = number + 1
        return self._task_seed(env_id, number)

    def _task_seed(self, env_id: str, number: int) -> int:
        return task_seed(self.envs[env_id], env_id, "train", number, self.config.seed)

    def _prompts(self) -> list[tuple[str, int, int]]:
        """The prompts of this step: environment, the task's number in the curriculum (or -1), and its seed."""
        prompts, step = [], self.state.step
        for env_id, count in self.mixture.allot(self.config.grpo.prompts_per_step).items():
            if self.curriculum is None:
                prompts += [(env_id, -1, self._next_task(env_id)) for _ in range(count)]
                continue
            rng = np.random.default_rng(stream_seed(self.config.seed, "curriculum", env_id, step))
            numbers = self.curriculum.draw(env_id, step, count, rng)
            prompts += [(env_id, number, self._task_seed(env_id, number)) for number in numbers]
        return prompts

    @property
    def weights_hash(self) -> str:
        return weights_hash(self.policy.model.state_dict())


def evaluation_budget(budgets: tuple[Budget, ...]) -> Budget:
    """Evaluation reasons as much as it is ever allowed to."""
    limits = [budget for budget in budgets if isinstance(budget, int)]
    return None if None in budgets else max(limits) if limits else "low"


def _curriculum(config: RunConfig) -> Curriculum | None:
    chosen = config.curriculum
    if not chosen.enabled:
        return None
    values = chosen.model_dump(exclude={"enabled"})
    return Curriculum([env.id for env in config.environments], config.grpo.steps, CurriculumConfig(**values))


def _maker(env: EnvironmentConfig) -> Any:
    return lambda: make_environment(env)


def _decay(step: int, total: int, share: float) -> float:
    """1, then linearly down to 0 over the last share of the steps."""
    return min(1.0, (total - step) / max(share * total, 1e-9))


def resume_config(folder: RunFolder) -> dict[str, Any]:
    """The configuration that a run folder was started with."""
    values = folder.read_json("config.json")
    if not isinstance(values, dict):
        raise RunError(f"{folder.path / 'config.json'} holds no configuration")
    return json.loads(json.dumps(values))
