"""The controller: the one loop, and all that a run must remember.

    admit -> roll out -> commit groups -> advantages -> learner.step -> publish(v + 1)

It owns the data cursor, the versions and the random streams; engines and learners hold weights and a version. A snapshot
of (cursor, versions, weights, optimizer) therefore resumes a synchronous run bit for bit: every other number is a hash of
(run, task, group, rollout, turn).
"""

from __future__ import annotations

import asyncio
import copy
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import safetensors.torch

from ..environments import Env
from ..policies import (
    HybridModel,
    PauseMode,
    Policy,
    Renderer,
    Tokenizer,
    TransformersPolicy,
    lora,
    make_engine,
    make_renderer,
    open_policy,
    preset,
    weights_hash,
)
from ..policies.batching import BatchingEngine
from ..policies.fetch import policy_folder
from ..policies.sampling import stream_seed
from ..policies.trainable import Trainable, frozen_copy
from ..policies.training import checkpoint_files, finished_files, trainable
from .admission import Admission, Prompt
from .algorithms.ppo import PPO
from .batch import TrainBatch
from .buffer import GroupBuffer, Trained
from .config import EnvironmentConfig, RunConfig
from .critic import Critic
from .demonstrations import training_text
from .display import Display
from .evaluation import Score, evaluate, evaluation_budget
from .explain import early_warnings
from .learner import Learner, RouterTraining, StepMetrics
from .metrics import environment_row, step_record
from .mismatch import MismatchMonitor
from .preflight import make_environment
from .run_folder import RunError, RunFolder, write_folder
from .runner import EnvironmentPool, rollout
from .scoring import informative
from .state import PHASES, State
from .trajectory import Group
from .update import PolicyUpdate
from .warm_start import decayed, warm_start

TOKENIZER_EPISODES = 300


class Interrupted(Exception):
    """A signal asked the run to stop; it has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 128 + signal_number


class Controller:
    """One run, from its configuration to its report."""

    def __init__(self, config: RunConfig, folder: RunFolder, display: Display) -> None:
        self.config, self.folder, self.display = config, folder, display
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
            if self.state.phase == "rl":
                if self.config.rl.steps:
                    self._evaluate("before")
                    asyncio.run(self._reinforce())
                    self.folder.write_json("mismatch.json", self.monitor.report())
                self._enter("done")
            self._evaluate("after")
            write_folder(self.folder.path / "policy", finished_files(self.policy))

    def close(self) -> None:
        for pool in self.pools.values():
            pool.close()
        for env in self.envs.values():
            env.close()

    # Preparation and snapshots.

    def _prepare(self) -> None:
        found = self.folder.load_checkpoint()
        if found is None:
            self._take(self._new_policy())
            self.learner = self._new_learner()
            self._save()
            return
        path, state, aside = found
        for line in aside:
            self.display.console.print(f"[yellow]{line}[/]")
        self.state = State(**{key: state[key] for key in asdict(self.state) if key in state})
        self.admission.load_state(self.state.data)
        self._take(open_policy(path))
        self.learner = self._new_learner()
        self.learner.load_state(safetensors.torch.load_file(path / "optimizer.safetensors"))
        if self.critic is not None:
            self.critic.load_state(safetensors.torch.load_file(path / "critic.safetensors"))
        if self.reference is not None:
            self.reference.load_state_dict(safetensors.torch.load_file(path / "reference.safetensors"))
        self.folder.forget_after(self.state.phase, self.state.step, PHASES)

    def _take(self, policy: Policy | TransformersPolicy) -> None:
        self.policy, self.model = policy, trainable(policy)
        if isinstance(policy, Policy):
            policy.model.exact = self.config.policy.exact_replay

    def _new_policy(self) -> Policy | TransformersPolicy:
        config = self.config.policy
        if config.folder:
            policy = open_policy(policy_folder(config.folder))
            if config.lora_rank:
                lora.add_lora(policy.model, rank=config.lora_rank, alpha=config.lora_alpha, seed=self.config.seed)
            return policy
        self.display.say("Training the tokenizer on the environments' own text ...")
        texts = training_text(self.envs, TOKENIZER_EPISODES)
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        model = HybridModel(preset(config.preset, vocab_size=config.vocab_size), seed=self.config.seed)
        return Policy(model, tokenizer)

    def _new_learner(self) -> Learner:
        if self.state.phase == "sft":
            sft = self.config.sft
            routers = RouterTraining(weights=True, bias_rate=sft.balance_rate, aux_loss=sft.aux_loss)
            optimizer = (
                "muon" if isinstance(self.policy, Policy) else "adamw"
            )  # muon is for weights that begin at random
            return Learner(self.model, optimizer=optimizer, lr=sft.learning_rate, routers=routers)
        rl, model = self.config.rl, self.model
        chosen = [algorithm for algorithm in self.config.algorithms.values() if isinstance(algorithm, PPO)]
        if chosen and self.state.phase == "rl":
            self.critic = Critic(model, lr=chosen[0].critic_learning_rate, value_clip=chosen[0].value_clip)
        if self.config.kl.coefficient and self.state.phase == "rl":
            self.reference = frozen_copy(model)
        return Learner(model, optimizer="adamw", lr=rl.learning_rate, routers=RouterTraining(bias_rate=rl.balance_rate))

    def _enter(self, phase: str) -> None:
        if phase == "rl" and self.config.sft.steps:
            write_folder(self.folder.path / "policy-sft", finished_files(self.policy))
        self.state.phase, self.state.step = phase, 0
        self.learner = self._new_learner()
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
        self.folder.save_checkpoint(f"{number:07d}-{state.phase}", files, asdict(state))

    def after_step(self, total: int) -> None:
        """Save when it is time, and at once when a signal came."""
        if self._stop is not None or self.state.step % self.config.checkpoint_every == 0 or self.state.step == total:
            with self.timed("save"):
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
        async with self._engine(config.prompts_per_step * config.group_size, ahead=config.lookahead > 0) as engine:
            room = config.prompts_per_step
            if config.lookahead:  # as many groups as the engine has slots for, and one to come
                room = -(-self.config.generation.num_slots // config.group_size) + 1
            play = partial(self._play, engine, make_renderer(self.policy))
            buffer = GroupBuffer(play, lookahead=config.lookahead, room=room, version=state.policy_version)
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
        with self.timed("roll_out"):
            while state.admitted < min(state.step + config.lookahead + 1, config.steps):
                buffer.admit(self.admission.prompts(state.admitted, config.prompts_per_step))
                state.admitted += 1
            taken = await buffer.take(config.prompts_per_step)
            taken += await self._refilled(buffer, taken)
        for one in taken:
            self.admission.observe(one.prompt, one.group)
        groups = [one.group for one in taken]
        with self.timed("learn"):
            steps = await asyncio.to_thread(self._learn, groups) if config.lookahead else self._learn(groups)
        await self._publish(engine)
        buffer.version = state.policy_version
        state.step += 1
        state.pending = [list(prompt) for prompt in buffer.pending]
        model_s = engine.metrics.model_s - before["model_s"] + sum(m.model_s for m in steps)
        state.add(sampled_tokens=engine.metrics.sampled_tokens - before["sampled_tokens"], seconds_rl_model=model_s)
        rows = {env_id: environment_row([g for g in groups if g.env_id == env_id]) for env_id in self.envs}
        self._log_step(rows, steps, taken)
        mean = np.mean([row["reward"] for row in rows.values() if "reward" in row])
        phase.advance(f"mean reward {mean:.2f}", rows)

    async def _refilled(self, buffer: GroupBuffer, taken: list[Trained]) -> list[Trained]:
        """Where the algorithm says so, new prompts in place of those whose groups agree."""
        found: list[Trained] = []
        for _ in range(self.config.refills):
            lacking = self.config.rl.prompts_per_step - sum(informative(one.group) for one in [*taken, *found])
            if lacking <= 0:
                break
            prompts = self.admission.prompts(self.state.step, lacking, first=len(taken) + len(found))
            played = await asyncio.gather(*(buffer.play(prompt) for prompt in prompts))
            found += [Trained(prompt, group, 0) for prompt, group in zip(prompts, played, strict=True)]
        return found

    async def _play(self, engine: BatchingEngine, renderer: Renderer, prompt: Prompt) -> Group:
        """The group of a prompt. Rollouts that faulted are left out of it."""
        specs = self.admission.specs(prompt)
        played = await asyncio.gather(*(rollout(self.pools[s.env_id], engine, renderer, s) for s in specs))
        return Group.of(prompt.env_id, prompt.task_seed, prompt.number, played)

    async def _publish(self, engine: BatchingEngine) -> None:
        """Give the engine the new weights, in the middle of what it samples."""
        if self.config.rl.lookahead:
            await engine.pause(PauseMode(self.config.rl.in_flight))
        engine.load_weights(self.policy.model.state_dict(), self.state.policy_version)
        if self.config.rl.lookahead:
            engine.resume()

    def _learn(self, groups: list[Group]) -> list[StepMetrics]:
        """The optimizer steps of one step's groups."""
        config, state = self.config.rl, self.state
        update = PolicyUpdate(self.config, self.learner, self.critic, self.reference)
        steps = update(
            groups,
            seed=stream_seed(self.config.seed, "order", state.step),
            lr_scale=decayed(state.step, config.steps, config.decay_share),
            observe=self._observe,
        )
        for metrics in steps:
            self.guard(metrics)
        state.policy_version += 1
        return steps

    def _observe(self, update: int, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
        """Show the monitor a batch; a new alarm is told at once and kept in the run folder."""
        known = len(self.monitor.alarms)
        version = -1 if update else self.state.policy_version  # after one update no weights are those that sampled
        self.monitor.observe(batch, logprobs_T, version, partial(self.learner.live_routes, batch))
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

    def guard(self, metrics: StepMetrics) -> None:
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
        with self.timed(f"evaluate_{when}"):
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
                budgets={env_id: evaluation_budget(self.admission.budgets(env_id)) for env_id in self.envs},
                grace=self.config.generation.budget_grace,
                on_episode=on_episode,
            )
        return scores

    # Small things.

    def _engine(self, num_slots: int, *, ahead: bool = False) -> BatchingEngine:
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


def resume_config(folder: RunFolder) -> dict[str, Any]:
    """The configuration that a run folder was started with."""
    values = folder.read_json("config.json")
    if not isinstance(values, dict):
        raise RunError(f"{folder.path / 'config.json'} holds no configuration")
    return json.loads(json.dumps(values))
