"""Why does a run not learn? Rules over its metrics, each with what was seen and the setting to change.

A rule looks at the last quarter of what was logged and says nothing unless it is sure: a healthy run has no findings. `swannery explain
RUN` shows them. At step 5 the run itself warns, by rules of its own that are quicker to speak: there is little to lose yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One reason, what shows it, and what would help."""

    name: str
    evidence: str
    cure: str


@dataclass(frozen=True)
class Seen:
    """A run's configuration, and its records by phase."""

    config: dict[str, Any]
    sft: Sequence[Record]
    rl: Sequence[Record]

    @property
    def env_ids(self) -> list[str]:
        return sorted({env_id for record in self.rl for env_id in record["environments"]})

    def series(self, env_id: str, key: str) -> np.ndarray:
        """An environment's figure at each step that has it."""
        return np.array([row[key] for r in self.rl if key in (row := r["environments"].get(env_id, {}))])

    def late(self, env_id: str, key: str) -> float:
        """The mean over the last quarter; NaN where there is none."""
        values = self.series(env_id, key)
        return float(values[-max(len(values) // 4, 1) :].mean()) if len(values) else float("nan")

    def mean(self, env_id: str, key: str) -> float:
        """The mean over all steps; NaN where there is none."""
        values = self.series(env_id, key)
        return float(values.mean()) if len(values) else float("nan")

    @property
    def moved(self) -> np.ndarray:
        """How far updates moved log-probabilities, at each step that trained anything."""
        return np.array([r["drift"] for r in self.rl if r.get("trained_tokens", 1) and "drift" in r])

    def of_step(self, key: str) -> np.ndarray:
        return np.array([record[key] for record in self.rl if key in record], float)


Rule = Callable[[Seen], "Finding | None"]
RULES: list[Rule] = []
EARLY_STEPS = 5


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


def explain(config: dict[str, Any], records: Sequence[Record]) -> list[Finding]:
    """All that is found in a run's records."""
    phases = [[record for record in records if record["phase"] == phase] for phase in ("sft", "rl")]
    seen = Seen(config, *phases)
    return [finding for one in RULES if (finding := one(seen)) is not None]


def uncompared(records: Sequence[Record]) -> bool:
    """Whether no token of the run could be compared between engine and learner: all were of older weights, or nothing was trained."""
    seen = [record["mismatch"]["max"] for record in records if "mismatch" in record]
    return bool(seen) and all(largest is None for largest in seen)


def early_warnings(config: dict[str, Any], records: Sequence[Record]) -> list[Finding]:
    """What the first five steps show already, of every environment concerned: most rollouts truncated, or most groups of one reward."""
    first = [record for record in records if record["phase"] == "rl"][:EARLY_STEPS]
    if len(first) < EARLY_STEPS:
        return []
    seen = Seen(config, (), first)
    told = [rule(seen, env_id) for rule in (_early_truncation, _early_agreement) for env_id in seen.env_ids]
    return [finding for finding in told if finding is not None]


def _early_truncation(seen: Seen, env_id: str) -> Finding | None:
    cut, truncated = (seen.mean(env_id, key) for key in ("cut", "truncated"))
    limit = seen.config["generation"]["max_new_tokens"]
    if cut > 0.5:
        return Finding(
            "truncated",
            f"{cut:.0%} of the first rollouts of {env_id} run out of tokens",
            f"raise generation.max_new_tokens, now {limit}, to {2 * limit} (and generation.context_size with it)",
        )
    if truncated > 0.5:
        return Finding(
            "truncated",
            f"{truncated:.0%} of the first rollouts of {env_id} are cut by a limit, {cut:.0%} by that of tokens",
            f"raise the environment's limits of turns, calls or time (its options), or generation.max_new_tokens, now {limit}",
        )
    return None


def _early_agreement(seen: Seen, env_id: str) -> Finding | None:
    share, reward, size = seen.mean(env_id, "agree"), seen.mean(env_id, "reward"), seen.config["rl"]["group_size"]
    if not share > 0.5 or not _compares_groups(seen.config, env_id):
        return None
    told = f"{share:.0%} of the first groups of {env_id} agree, at a mean reward of {reward:.2f}: there is nothing to tell apart"
    if reward < 0.1:
        steps = seen.config["sft"]["steps"]
        cure = f"warm-start it better (sft.steps, now {steps}), or make it easier (its options, curriculum.enabled)"
        return Finding("too hard", told, cure)
    if reward > 0.9:
        return Finding("too easy", told, "make it harder (its options), or leave it out")
    temperature = seen.config["rl"]["temperature"]
    return Finding(
        "groups agree",
        told,
        f"raise rl.group_size, now {size}, to {max(8, 2 * size)}, or rl.temperature, now {temperature:g}",
    )


def _compares_groups(config: dict[str, Any], env_id: str) -> bool:
    """Whether an environment is learnt by telling the rollouts of a group apart: not by PPO's critic, nor without a baseline."""
    own = next((env.get("algorithm") for env in config["environments"] if env["id"] == env_id), None)
    algorithm = own or config["algorithm"]
    return algorithm["name"] != "ppo" and algorithm.get("baseline") != "none" and config["rl"]["group_size"] > 1


@rule
def cut_short(seen: Seen) -> Finding | None:
    limit = seen.config["generation"]["max_new_tokens"]
    for env_id in seen.env_ids:
        if (share := seen.late(env_id, "cut")) > 0.5:
            return Finding(
                "truncated",
                f"{share:.0%} of the rollouts of {env_id} run out of tokens, and are graded on what they had no time to say",
                f"raise generation.max_new_tokens, now {limit}, to {2 * limit} (and generation.context_size with it)",
            )
    return None


@rule
def all_alike(seen: Seen) -> Finding | None:
    if len(seen.rl) < 5:
        return None
    for env_id in seen.env_ids:
        share, reward = seen.late(env_id, "agree"), seen.late(env_id, "reward")
        if share > 0.8 and reward < 0.1 and seen.config["rl"]["group_size"] > 3:
            return Finding(
                "too hard",
                f"{share:.0%} of the groups of {env_id} agree, at a mean reward of {reward:.2f}: there is nothing to tell apart",
                f"warm-start it better (sft.steps, now {seen.config['sft']['steps']}), or make it easier (its options, curriculum.enabled)",
            )
        alike, earned = seen.series(env_id, "agree")[:5], seen.series(env_id, "reward")[:5]
        if len(alike) == 5 and alike.mean() > 0.8 and earned.mean() > 0.9:
            return Finding(
                "too easy",
                f"{alike.mean():.0%} of the first groups of {env_id} agree, at a mean reward of {earned.mean():.2f}",
                "make it harder (its options), or leave it out",
            )
    return None


@rule
def one_of_a_group(seen: Seen) -> Finding | None:
    size = seen.config["rl"]["group_size"]
    if len(seen.rl) < 10 or size > 3:
        return None
    shares = [seen.late(env_id, "agree") for env_id in seen.env_ids]
    if shares and np.mean(shares) > 0.6:
        return Finding(
            "small groups",
            f"{np.mean(shares):.0%} of the groups of {size} agree",
            f"raise rl.group_size, now {size}, to 8 or more",
        )
    return None


@rule
def malformed(seen: Seen) -> Finding | None:
    for env_id in seen.env_ids:
        if (share := seen.late(env_id, "malformed")) > 0.3:
            return Finding(
                "malformed turns",
                f"{share:.0%} of the turns in {env_id} cannot be read: calls that do not close, reasoning that does not end",
                f"teach the format first: sft.steps, now {seen.config['sft']['steps']}; a policy of another format wants its own template",
            )
    return None


@rule
def faults(seen: Seen) -> Finding | None:
    for env_id in seen.env_ids:
        lost, kept = seen.series(env_id, "left_out").sum(), seen.series(env_id, "rollouts").sum()
        if lost > 0.2 * (lost + kept):
            rows = [r["environments"].get(env_id, {}) for r in seen.rl]
            kinds = {k.removeprefix("left_out_") for row in rows for k in row if k.startswith("left_out_")}
            return Finding(
                "faults",
                f"{lost / (lost + kept):.0%} of the rollouts of {env_id} were left out: {', '.join(sorted(kinds)) or 'faults'}",
                f"swannery check {env_id} says what fails",
            )
    return None


@rule
def budgets_too_small(seen: Seen) -> Finding | None:
    for env_id in seen.env_ids:
        if seen.late(env_id, "budget_hit") > 0.7 and seen.late(env_id, "reward") < 0.5:
            return Finding(
                "budgets too small",
                f"{seen.late(env_id, 'budget_hit'):.0%} of the turns in {env_id} are closed by their reasoning budget",
                "allow more in the environment's reasoning_budgets",
            )
    return None


@rule
def warm_start_failed(seen: Seen) -> Finding | None:
    losses = np.array([record["loss"] for record in seen.sft], float)
    if len(losses) < 20:
        return None
    first, last = losses[:5].mean(), losses[-5:].mean()
    if first > 0.5 and not last < 0.8 * first:  # below it a policy knew already
        return Finding(
            "warm start",
            f"the loss of the warm start went from {first:.2f} to {last:.2f} in {len(losses)} steps",
            f"sft.learning_rate is {seen.config['sft']['learning_rate']:g}: 0.01 suits a new policy, 1e-4 one that was trained",
        )
    return None


@rule
def not_finite(seen: Seen) -> Finding | None:
    skipped = sum(record.get("skipped", 0) for record in seen.rl)
    if skipped:
        rate = seen.config["rl"]["learning_rate"]
        return Finding(
            "not finite",
            f"{skipped} optimizer steps had gradients that were not finite",
            f"lower rl.learning_rate, now {rate:g}, to {rate / 10:g}",
        )
    return None


@rule
def collapsed(seen: Seen) -> Finding | None:
    """Rewards that were had and are gone: from the very first step, over all environments; or an environment's, averaged over a fifth of
    the run and against its noise, since a step has few prompts of it. A curriculum makes tasks harder as a policy
    becomes better: there the second says nothing."""
    if len(seen.rl) < 20:
        return None
    rate = seen.config["rl"]["learning_rate"]
    cure = f"lower rl.learning_rate, now {rate:g}, to {rate / 3:g}"
    first = [series[0] for env_id in seen.env_ids if len(series := seen.series(env_id, "reward"))]
    late = [seen.late(env_id, "reward") for env_id in seen.env_ids]
    if first and np.mean(first) > 0.1 and np.nanmean(late) < 0.2 * np.mean(first):
        return Finding("collapse", f"the mean reward began at {np.mean(first):.2f} and is {np.nanmean(late):.2f}", cure)
    for env_id in () if seen.config["curriculum"]["enabled"] else seen.env_ids:
        series = seen.series(env_id, "reward")
        width = max(5, len(series) // 5)
        if len(series) < 2 * width:
            continue
        rewards = np.convolve(series, np.ones(width) / width, "valid")
        noise = np.diff(series).std() / np.sqrt(2 * width)
        lost = rewards.max() - rewards[-1]
        if rewards.max() > 0.2 and lost > max(0.5 * rewards.max(), 5 * noise) and rewards[-1] < rewards[0] + 0.02:
            return Finding("collapse", f"the reward of {env_id} was {rewards.max():.2f} and is {rewards[-1]:.2f}", cure)
    return None


@rule
def nothing_moves(seen: Seen) -> Finding | None:
    rate = seen.config["rl"]["learning_rate"]
    drift = seen.moved
    if len(drift) >= 10 and seen.config["rl"]["updates_per_step"] > 1 and drift.mean() < 2e-4:
        return Finding(
            "learning rate too low",
            f"an update moves log-probabilities by {drift.mean():.1e} in the mean",
            f"raise rl.learning_rate, now {rate:g}, to {10 * rate:g}",
        )
    return None


@rule
def too_far(seen: Seen) -> Finding | None:
    drift, rate = seen.moved, seen.config["rl"]["learning_rate"]
    if seen.config["rl"]["lookahead"] or not len(drift):
        return None
    if drift.max() > 1 or (len(drift) >= 5 and drift.mean() > 0.5):  # one nat at once may ruin a policy for good
        return Finding(
            "learning rate too high",
            f"an update moves log-probabilities by {drift.mean():.2f} in the mean, by {drift.max():.2f} at most",
            f"lower rl.learning_rate, now {rate:g}, to {rate / 3:g}",
        )
    return None


@rule
def no_entropy(seen: Seen) -> Finding | None:
    entropy = np.array([r["entropy"] for r in seen.rl if r.get("trained_tokens", 1) and "entropy" in r])
    if len(entropy) < 10 or not entropy[-10:].mean() < 0.03:
        return None
    worst = min(seen.env_ids, key=lambda env_id: seen.late(env_id, "reward"))
    if seen.late(worst, "reward") > 0.9:
        return None
    return Finding(
        "no exploration",
        f"the policy is certain of every token (entropy {entropy[-10:].mean():.3f}) while {worst} earns {seen.late(worst, 'reward'):.2f}",
        f"raise algorithm.clip_high, or rl.temperature (now {seen.config['rl']['temperature']:g}); a shorter warm start explores more",
    )


@rule
def engine_differs(seen: Seen) -> Finding | None:
    largest = max((record["mismatch"]["max"] or 0.0 for record in seen.rl if "mismatch" in record), default=0.0)
    if largest > 1e-3:
        return Finding(
            "engine and learner differ",
            f"log-probabilities of one token differ by up to {largest:.2g}",
            "mismatch.json in the run folder names the likely cause and the worst tokens",
        )
    return None


@rule
def too_old(seen: Seen) -> Finding | None:
    lag = max((record["lag"]["mean"] for record in seen.rl if "lag" in record), default=0.0)
    if lag > 2 and seen.config["correction"]["kind"] == "off":
        return Finding(
            "old rollouts",
            f"groups are up to {lag:.1f} versions old in the mean of a step, and nothing corrects for it",
            'lower rl.lookahead, or set rl.old_policy = "learner" and correction.kind = "truncate"',
        )
    return None


@rule
def idle_experts(seen: Seen) -> Finding | None:
    idle = seen.of_step("idle_experts")
    if len(idle) >= 5 and idle[-5:].mean() > 0.5:
        return Finding(
            "idle experts",
            f"{idle[-5:].mean():.0%} of the experts are given no token",
            f"raise sft.balance_rate, now {seen.config['sft']['balance_rate']:g}, before reinforcement freezes the routers",
        )
    return None
