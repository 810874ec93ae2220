"""The warm start: supervised fine-tuning on demonstrations of the run's own environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..environments import EnvironmentFault
from ..policies import Renderer, make_renderer
from .batch import Sample, micro_batches, pack, total_weight
from .demonstrations import demonstrate
from .patience import watch_update
from .policy_loss import negative_log_likelihood
from .runner import limit_of

if TYPE_CHECKING:
    from .controller import Controller


def warm_start(run: Controller) -> None:
    """The steps of the phase that are left."""
    config, state = run.config.sft, run.state
    renderer = make_renderer(run.policy)
    names = list(run.envs)
    with run.display.phase("Warm start (SFT)", config.steps, state.step) as phase:
        while state.step < config.steps:
            with run.timed("data"):
                env_ids = [names[i % len(names)] for i in range(-(-config.batch_size // config.takes_per_task))]
                groups = [found for env_id in env_ids if (found := demonstrations(run, env_id, renderer))]
                weight = total_weight(sample for group in groups for sample in group)
                batches = [
                    pack(part, weight, with_routes=False)
                    for part in micro_batches(groups, run.config.generation.micro_batch_tokens)
                ]
            with run.timed("learn"):
                scale = min(1.0, (state.step + 1) / max(config.warmup_steps, 1))
                scale *= decayed(state.step, config.steps, config.decay_share)
                metrics = run.learner.step(batches, negative_log_likelihood, lr_scale=scale)
            if metrics.skipped:
                run.dump(0, [batches[index] for index in metrics.suspects])
            watch_update(state, metrics)
            state.step += 1
            figures = {key: getattr(metrics, key) for key in ("loss", "grad_norm", "max_violation", "idle_experts")}
            run.folder.log({"phase": "sft", "step": state.step - 1, **figures})
            phase.advance(f"loss {metrics.loss:.3f}")
            run.after_step(config.steps)


def demonstrations(run: Controller, env_id: str, renderer: Renderer) -> list[Sample]:
    """The demonstrations of the next task of an environment; none where the environment failed."""
    config, seed = run.config.sft, run.admission.next_task(env_id)
    budgets = run.admission.budgets(env_id)
    budget = limit_of(budgets[seed % len(budgets)])
    try:
        played = [
            demonstrate(
                run.envs[env_id], env_id, seed, renderer,
                by=config.by, budgets=(budget,), cut_share=config.cut_share, take=take,
            )
            for take in range(config.takes_per_task)
        ]  # fmt: skip
    except EnvironmentFault:
        run.state.add(left_out=1)
        return []
    return [Sample(trajectory, 1.0) for trajectory in played]


def decayed(step: int, total: int, share: float) -> float:
    """1, then linearly down to 0 over the last share of the steps."""
    return min(1.0, (total - step) / max(share * total, 1e-9))
