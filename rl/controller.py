"""The controller: the one loop, and all that a run must remember.

    admit -> roll out -> commit groups -> advantages -> learner.step -> publish(v + 1)

It owns the data cursor, the versions and the random streams; engines and learners hold weights and a version. A snapshot
of (cursor, versions, weights, optimizer) therefore resumes a synchronous run bit for bit: every other number is a hash of
(run, task, group, rollout, turn).
"""

from __future__ import annotations

import asyncio
import copy
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import safetensors.torch

from ..environments import Env
from ..policies import (
    PauseMode,
    Policy,
    Renderer,
    TransformersPolicy,
    make_engine,
    make_renderer,
    open_policy,
    weights_hash,
)
from ..policies.batching import BatchingEngine
from ..policies.fetch import policy_folder
from ..policies.sampling import stream_seed
from ..policies.trainable import Trainable, frozen_copy
from ..policies.training import checkpoint_files, finished_files, trainable
from .admission import Admission, Prompt
from .batch import TrainBatch
from .beginning import new_critic, new_learner, new_policy
from .buffer import GroupBuffer, Trained
from .checkpoint import Checkpoints, configured, resume
from .comparing import compared, compares
from .config import EnvironmentConfig, RunConfig
from .critic import Critic
from .display import Display
from .explain import early_warnings
from .faults import fault
from .held_out import evaluate_run
from .learner import Learner, StepMetrics
from .metrics import environment_row, step_record
from .mismatch import MismatchMonitor
from .patience import watch_rollouts, watch_update
from .preflight import make_environment
from .run_folder import RunFolder, write_folder
from .runner import EnvironmentPool, rollout
from .scoring import informative
from .state import PHASES, State
from .trace import StepTrace, batch_bytes
from .trajectory import Group
from .update import PolicyUpdate
from .warm_start import decayed, warm_start


class Interrupted(Exception):
    """A signal asked the run to stop; it has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


class Controller:
    """One run, from its configuration to its report."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, display: Display, *, allow_config_change: bool = False
    ) -> None:
        self.config, self.folder, self.display = config, folder, display
        self.allow_config_change = allow_config_change
        self.checkpoints = Checkpoints(folder)
        self.monitor = MismatchMonitor(stale_states=config.rl.lookahead > 0 and config.rl.in_flight == "keep")
        self.envs: dict[str, Env] = {env.id: make_environment(env) for env in config.environments}
        self.pools = {env.id: EnvironmentPool(_maker(env)) for env in config.environments}
        self.state = State()
        self.admission = Admission(config, self.envs)
        self.policy: Policy | TransformersPolicy
        self.model: Trainable
        """The policy's, as the learner takes it."""
        self.learner: Learner
        self.critic: Critic | None = None
        self.reference: Trainable | None = None
        self.early: list[dict[str, Any]] = []
        """The first steps' records of this process."""
        self._stop: int | None = None

    # The whole run.

    def run(self) -> None:
        """Do what is left of the run. Raises Interrupted, after saving, when a signal asks."""
        with self._signals():
            self._prepare()
            if self.state.phase == "sft":
                warm_start(self)
                self._enter("rl")
            self.heed_signal()
            if self.state.phase == "rl":
                if self.config.rl.steps:
                    evaluate_run(self, "before")
                    asyncio.run(self._reinforce())
                    self.folder.write_json("mismatch.json", self.monitor.report())
                self._enter("done")
            self.heed_signal()
            evaluate_run(self, "after")
            self.checkpoints.wait()
            write_folder(self.folder.path / "policy", finished_files(self.policy))

    def close(self) -> None:
        with suppress(Exception):  # what was raised already is what matters
            self.checkpoints.wait()
        for pool in self.pools.values():
            pool.close()
        for env in self.envs.values():
            env.close()

    # Preparation and snapshots.

    def _prepare(self) -> None:
        found = resume(self.folder, self.config.model_dump(mode="json"), change=self.allow_config_change)
        if found is None:
            self._take(new_policy(self.config, self.envs, self.display.say))
            self._new_learners()
            self._save()
            self.checkpoints.wait()  # before anything is logged: a run with steps and no checkpoint is refused
            return
        path, state = found.path, found.state
        for line in found.aside:
            self.display.console.print(f"[yellow]{line}[/]")
        self.state = State(**{key: state[key] for key in asdict(self.state) if key in state})
        self.admission.load_state(self.state.data)
        self._take(open_policy(path))
        self._new_learners()
        self.learner.load_state(safetensors.torch.load_file(path / "optimizer.safetensors"))
        # Whole checkpoints lack these only where the configuration that made them had no such thing: then it begins here.
        if self.critic is not None and (path / "critic.safetensors").exists():
            self.critic.load_state(safetensors.torch.load_file(path / "critic.safetensors"))
        if self.reference is not None and (path / "reference.safetensors").exists():
            self.reference.load_state_dict(safetensors.torch.load_file(path / "reference.safetensors"))
        self.folder.forget_after(self.state.phase, self.state.step, PHASES)
        if not {prompt[0] for prompt in self.state.pending} <= set(self.envs):  # of an environment that was taken out
            self.state.pending, self.state.admitted = [], self.state.step
        if found.changed:  # a kill before the next checkpoint must not ask for leave again
            self._save()
            self.checkpoints.wait()

    def _take(self, policy: Policy | TransformersPolicy) -> None:
        self.policy, self.model = policy, trainable(policy)
        if isinstance(policy, Policy):
            policy.model.exact = self.config.policy.exact_replay

    def _new_learners(self) -> None:
        phase, config = self.state.phase, self.config
        self.learner = new_learner(config, phase, self.model)
        if phase == "rl":
            self.critic = new_critic(config, self.model)
            self.reference = frozen_copy(self.model) if config.kl.coefficient else None

    def _enter(self, phase: str) -> None:
        if phase == "rl" and self.config.sft.steps:
            write_folder(self.folder.path / "policy-sft", finished_files(self.policy))
        self.state.phase, self.state.step = phase, 0
        self._new_learners()
        self._save()

    def _save(self) -> None:
        state = self.state
        state.data = self.admission.state()
        number = PHASES.index(state.phase) * 1_000_000 + state.step
        base = str(policy_folder(self.config.policy.folder)) if self.config.policy.lora_rank else ""
        files = {
            **checkpoint_files(self.policy, base),
            "optimizer.safetensors": safetensors.torch.save(self.learner.state()),
        }
        if self.critic is not None:
            files["critic.safetensors"] = safetensors.torch.save(self.critic.state())
        if self.reference is not None:
            files["reference.safetensors"] = safetensors.torch.save(self.reference.state_dict())
        self.checkpoints.save(f"{number:07d}-{state.phase}", files, {**asdict(state), **configured(self.config)})

    def after_step(self, total: int) -> None:
        """Begin to save when it is time, and save at once when a signal came."""
        fault("step.end")
        stop = self._stop  # a signal that comes from here on finds the step saved or is the next step's
        if stop is not None or self.state.step % self.config.checkpoint_every == 0 or self.state.step == total:
            with self.timed("save"):
                self._save()
        if stop is not None:
            self.heed_signal()

    def heed_signal(self) -> None:
        """Where all that was done is saved: end the run if a signal asked for it."""
        if self._stop is not None:
            self.checkpoints.wait()
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
    def timed(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.state.add(**{f"seconds_{self.state.phase}_{part}": time.monotonic() - start})

    # Reinforcement.

    async def _reinforce(self) -> None:
        """The one loop. How far rollouts run ahead of the weights is the buffer's lookahead, nothing else."""
        config, state = self.config.rl, self.state
        async with self.engine(config.prompts_per_step * config.group_size, ahead=config.lookahead > 0) as engine:
            size = room = config.prompts_per_step
            if config.lookahead:  # as many groups as the engine has slots for, and one to come
                room = -(-self.config.generation.num_slots // config.group_size) + 1
            play = partial(self._play, engine, make_renderer(self.policy))
            buffer = GroupBuffer(
                play, lookahead=config.lookahead, room=room, version=state.policy_version, step_size=size
            )
            buffer.admit([Prompt(*prompt) for prompt in state.pending])
            try:
                with self.display.phase(self.config.algorithm.label.upper(), config.steps, state.step) as phase:
                    while state.step < config.steps:
                        await self._one_step(engine, buffer, phase)
                        self.after_step(config.steps)
            finally:
                await buffer.close()

    async def _one_step(self, engine: BatchingEngine, buffer: GroupBuffer, phase: Any) -> None:
        config, state = self.config.rl, self.state
        before = engine.metrics.to_dict()
        fault("step.begin")
        with self.timed("roll_out"):
            while state.admitted < min(state.step + config.lookahead + 1, config.steps):
                buffer.admit(self.admission.prompts(state.admitted, config.prompts_per_step))
                state.admitted += 1
            taken = await buffer.take(config.prompts_per_step)
            taken += await self._refilled(buffer, taken)
        for one in taken:
            self.admission.observe(one.prompt, one.group)
        groups = [one.group for one in taken]
        watch_rollouts(state, groups)
        with self.timed("learn"):
            steps = await asyncio.to_thread(self._learn, groups) if config.lookahead else self._learn(groups)
        await self._publish(engine)
        buffer.version = state.policy_version
        state.step += 1
        state.pending = [list(prompt) for prompt in buffer.pending]
        model_s = engine.metrics.model_s - before["model_s"] + sum(m.model_s for m in steps)
        state.add(sampled_tokens=engine.metrics.sampled_tokens - before["sampled_tokens"], seconds_rl_model=model_s)
        rows = {env_id: environment_row([one for one in taken if one.group.env_id == env_id]) for env_id in self.envs}
        self._log_step(rows, steps, taken)
        rewards = [row["reward"] for row in rows.values() if "reward" in row]
        phase.advance(f"mean reward {np.mean(rewards):.2f}" if rewards else "every rollout failed", rows)

    async def _refilled(self, buffer: GroupBuffer, taken: list[Trained]) -> list[Trained]:
        """Where an environment's algorithm says so, new prompts in place of those whose groups agree."""
        found: list[Trained] = []
        for attempt in range(max(self.config.refills.values(), default=0)):
            refilled = {env_id for env_id, refills in self.config.refills.items() if attempt < refills}
            lacking = sum(one.prompt.env_id in refilled for one in taken)
            lacking -= sum(one.prompt.env_id in refilled and informative(one.group) for one in [*taken, *found])
            if lacking <= 0:
                break
            prompts = self.admission.prompts(self.state.step, lacking, first=len(taken) + len(found), among=refilled)
            played = await asyncio.gather(*(buffer.play(prompt) for prompt in prompts))
            found += [Trained(prompt, group, 0) for prompt, group in zip(prompts, played, strict=True)]
        return found

    async def _play(self, engine: BatchingEngine, renderer: Renderer, prompt: Prompt) -> Group:
        """The group of a prompt. Rollouts that faulted are left out of it."""
        specs = self.admission.specs(prompt)
        played = await asyncio.gather(*(rollout(self.pools[s.env_id], engine, renderer, s) for s in specs))
        if compares(self.envs[prompt.env_id]):
            played = await compared(self.pools[prompt.env_id], prompt.task_seed, played)
        fault("rollout.deliver")
        return Group.of(prompt.env_id, prompt.task_seed, prompt.number, played)

    async def _publish(self, engine: BatchingEngine) -> None:
        """Give the engine the new weights, in the middle of what it samples."""
        fault("weights.publish")
        if self.config.rl.lookahead:
            await engine.pause(PauseMode(self.config.rl.in_flight))
        engine.load_weights(self.policy.model.state_dict(), self.state.policy_version)
        if self.config.rl.lookahead:
            engine.resume()

    def _learn(self, groups: list[Group]) -> list[StepMetrics]:
        """The optimizer steps of one step's groups."""
        config, state = self.config.rl, self.state
        update = PolicyUpdate(self.config, self.learner, self.critic, self.reference)
        every = self.config.trace_every
        trace = StepTrace(self.config, groups) if every and state.step % every == 0 else None

        def observe(number: int, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
            self._observe(number, batch, logprobs_T)
            if trace is not None:
                trace.observe(number, batch, logprobs_T)

        steps = update(
            groups,
            seed=stream_seed(self.config.seed, "order", state.step),
            lr_scale=decayed(state.step, config.steps, config.decay_share),
            observe=observe,
            skipped=self.dump,
        )
        if trace is not None:
            self.folder.write_trace(state.step, trace.to_bytes())
        for metrics in steps:
            watch_update(state, metrics)
        state.policy_version += 1
        return steps

    def dump(self, update: int, batches: list[TrainBatch]) -> None:
        """Keep what made a gradient that is not finite."""
        name = f"{self.state.phase}-{self.state.step:07d}-{update}.npz"
        path = self.folder.write_dump(name, batch_bytes(batches))
        self.display.console.print(f"[yellow]an update was skipped:[/] its gradient is not finite; its samples: {path}")

    def _observe(self, update: int, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
        """Show the monitor a batch; a new alarm is told at once and kept in the run folder."""
        known = len(self.monitor.alarms)
        version = -1 if update else self.state.policy_version  # after one update no weights are those that sampled
        compared = self.monitor.observe(batch, logprobs_T, version, partial(self.learner.live_routes, batch))
        self.state.add(compared_tokens=compared)
        for alarm in list(self.monitor.alarms.values())[known:]:
            self.display.console.print(f"[yellow]engine and learner differ[/] {alarm}", highlight=False)
            self.folder.write_json("mismatch.json", self.monitor.report())

    def _log_step(self, rows: dict[str, dict[str, float]], steps: list[StepMetrics], taken: list[Trained]) -> None:
        state = self.state
        mismatch = self.monitor.step_figures()
        state.counts["mismatch_max"] = max(state.counts.get("mismatch_max", 0.0), mismatch["max"])
        record = step_record(state.step - 1, state.policy_version, rows, steps, taken, mismatch)
        for row in rows.values():
            state.add(
                rollouts=row.get("rollouts", 0.0),
                budget_violations=row.get("budget_violations", 0.0),
                forced_in_loss=row.get("forced_in_loss", 0.0),
                left_out=row.get("left_out", 0.0),
            )
        self.folder.log(record)
        self.early.append(record)
        if len(self.early) == 5:
            for finding in early_warnings(self.config.model_dump(mode="json"), self.early):
                self.display.console.print(
                    f"[yellow]{finding.name}:[/] {finding.evidence}. {finding.cure}", highlight=False
                )

    # Small things.

    def engine(self, num_slots: int, *, ahead: bool = False) -> BatchingEngine:
        """An engine of the policy. One that samples while the learner works has weights of its own and waits for nobody."""
        policy, options = self.policy, {"synchronous": not ahead}
        if ahead:
            policy, num_slots = replace(policy, model=copy.deepcopy(policy.model)), self.config.generation.num_slots
        engine = make_engine(policy, num_slots=num_slots, capacity=self.config.generation.context_size, **options)
        engine.policy_version = self.state.policy_version
        return engine

    @property
    def weights_hash(self) -> str:
        return weights_hash(self.model.state_dict())


def _maker(env: EnvironmentConfig) -> Any:
    return lambda: make_environment(env)
