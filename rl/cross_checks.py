"""Settings of reinforcement learning that do not fit each other, refused before anything starts. Each ValueError says what came and what
would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import RunConfig


def check_rl(config: RunConfig) -> None:
    """Everything about [rl], the algorithms, the correction and the shaping."""
    _sizes(config)
    _correction(config)
    _shaping(config)
    _critic(config)


def _sizes(config: RunConfig) -> None:
    rl, num_environments = config.rl, len(config.environments)
    if rl.steps and rl.prompts_per_step < num_environments:
        raise ValueError(
            f"rl.prompts_per_step ({rl.prompts_per_step}) must be at least the number of environments ({num_environments}), so that each "
            f"step trains on all of them"
        )
    if rl.updates_per_step > rl.prompts_per_step:
        raise ValueError(
            f"rl.updates_per_step ({rl.updates_per_step}) cannot exceed rl.prompts_per_step ({rl.prompts_per_step})"
        )
    relative = [
        a.name
        for a in config.algorithms.values()
        if a.name != "ppo" and not (a.name == "reinforce_pp" and a.baseline == "none")
    ]
    if relative and rl.group_size < 2:
        raise ValueError(
            f"rl.group_size must be at least 2 for {relative[0]} (an advantage compares rollouts of one prompt with each other), got "
            f"{rl.group_size}"
        )


def _correction(config: RunConfig) -> None:
    correction = config.correction
    given = {"kind": correction.kind != "off", "max_error": correction.max_error > 0}
    for setting in (name for name, wanted in given.items() if wanted and config.rl.old_policy == "rollout"):
        raise ValueError(
            f'correction.{setting} is {getattr(correction, setting)!r}, but with rl.old_policy = "rollout" there is nothing to correct: '
            f'set rl.old_policy = "learner"'
        )


def _shaping(config: RunConfig) -> None:
    shaping, limit = config.shaping, config.generation.max_new_tokens
    if shaping.overlong_buffer >= limit:
        raise ValueError(
            f"shaping.overlong_buffer ({shaping.overlong_buffer}) must be below generation.max_new_tokens ({limit}), whose last tokens it "
            f"is"
        )
    if shaping.low_effort and not any("low" in env.reasoning_budgets for env in config.environments):
        raise ValueError(
            'shaping.low_effort is for rollouts of low effort, and no environment has "low" among its reasoning_budgets'
        )
    below_zero = [n for n in ("overlong_buffer", "reasoning_length", "answer_length") if getattr(shaping, n)]
    if below_zero and any(a.name == "maxrl" for a in config.algorithms.values()):
        raise ValueError(
            f"maxrl takes rewards as pass rates, at least 0, and shaping.{below_zero[0]} makes some negative: choose one"
        )


def _critic(config: RunConfig) -> None:
    ppo = [a for a in config.algorithms.values() if a.name == "ppo"]
    critics = sorted({(a.critic_learning_rate, a.critic_updates, a.value_clip) for a in ppo})
    if len(critics) > 1:
        raise ValueError(
            f"a run has one critic, so that all its ppo share critic_learning_rate, critic_updates and value_clip; got {critics}"
        )
