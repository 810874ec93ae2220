"""Law 4 for every algorithm: micro-batches, packing, prefix sharing, ranks and order change neither loss nor gradient."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.policies import HybridModel, preset
from swannery.rl import Group, Learner, PolicyLoss, TrainBatch, Trajectory, load_config
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.algorithms.ppo import PPO
from swannery.rl.bins import RowCost, balanced
from swannery.rl.critic import Critic
from swannery.rl.policy_loss import Streams
from swannery.rl.update import PolicyUpdate, Scored

from .made import VOCAB, made_groups

ENVIRONMENTS = ("chat/Guess-v0", "math/Arithmetic-v0")
LEARNER: dict[str, Any] = {"old_policy": "learner"}
VARIED: dict[str, dict[str, Any]] = {
    **{name: {"algorithm": {"name": name}} for name in ALGORITHMS},
    "nano's grpo": {
        "algorithm": {"name": "grpo", "scale": "leave_one_out"},
        "correction": {"kind": "mask", "low": 0.02, "max_error": 90.0},
        "rl": LEARNER,
    },
    "grpo of turns, prompts' means": {"algorithm": {"credit": "turn", "average": "prompt", "dual_clip": 3.0}},
    "rewards apart, shaped": {
        "algorithm": {"rewards": "apart", "scale": "group", "average": "sequence"},
        "shaping": {
            "overlong_buffer": 4, "reasoning_length": 0.5, "answer_length": 0.2, "shortest_bonus": 0.1, "low_effort": 0.5,
        },
    },
    "with a reference and sequence masks": {
        "kl": {"coefficient": 0.1, "gradient": "score"},
        "correction": {"kind": "mask", "unit": "geometric", "low": 0.05, "high": 90.0},
        "rl": LEARNER,
        "shaping": {"overlong_filter": True},
    },
    **{
        f"{kind} by {unit}": {
            "algorithm": {"name": algorithm},
            "correction": {"kind": kind, "unit": unit, "low": 1 / bound, "high": bound},
            "rl": LEARNER | {"updates_per_step": updates},
        }
        for kind, updates in (("truncate", 1), ("mask", 2))
        for unit, algorithm, bound in (
            ("token", "rloo", 1.5), ("sequence", "gspo", 3.0), ("geometric", "cispo", 1.2), ("outermost", "dapo", 1.75),
        )
    },
    **{f"divergence by {g}": {"kl": {"coefficient": 0.1, "gradient": g}} for g in ("k1", "k2", "k3", "score")},
    **{f"{average} means": {"algorithm": {"average": average}} for average in ("token", "sequence", "prompt", "constant")},
    "whitened after the group's mean": {"algorithm": {"name": "reinforce_pp", "baseline": "mean", "gamma": 0.9}},
    "uncertain tokens alone": {"rl": {"entropy_share": 0.5}},
    "uncertain tokens of sequences' means": {"algorithm": {"average": "sequence"}, "rl": {"entropy_share": 0.3}},
    "grpo beside gspo": {"own": {"name": "gspo"}},
    "ppo beside grpo": {"algorithm": {"name": "ppo"}, "own": {"name": "grpo"}},
    "reinforce_pp beside ppo": {"algorithm": {"name": "reinforce_pp"}, "own": {"name": "ppo", "lam": 0.8}},
}  # fmt: skip
MODEL = HybridModel(preset("tiny-100k", vocab_size=VOCAB), seed=1)
REFERENCE = HybridModel(MODEL.config, seed=2)
NUM_GROUPS = 5


@dataclass(frozen=True)
class Cut:
    """How the groups of a step are ordered and cut up."""

    num_ranks: int = 1
    max_tokens: int = 10**6
    alone: bool = False
    """Every sample by itself, so that no prefix is shared."""
    order: tuple[int, ...] = tuple(range(NUM_GROUPS))


CUTS = st.builds(
    Cut,
    num_ranks=st.integers(1, 4),
    max_tokens=st.integers(64, 320),
    alone=st.booleans(),
    order=st.permutations(range(NUM_GROUPS)).map(tuple),
)


def groups_of(seed: int, near: bool, max_branches: int) -> list[Group]:
    """Made-up groups, perhaps sampled by almost the learner's policy, so that clips and masks let most through."""

    def made(trajectory: Trajectory) -> tuple[Trajectory, ...]:
        segments = trajectory.segments
        if near:  # an untrained policy gives every token about 1 / VOCAB, -5.8
            segments = tuple(
                dataclasses.replace(s, logprobs=s.logprobs / 5 - 5.2) if s.sampled else s for s in segments
            )
        num_branches = 1 + trajectory.rollout % max_branches  # so that weights differ
        whole = dataclasses.replace(trajectory, segments=segments, num_branches=num_branches)
        return tuple(dataclasses.replace(whole, branch=branch) for branch in range(num_branches))

    groups = made_groups(seed, MODEL.config, ENVIRONMENTS, count=NUM_GROUPS)
    return [dataclasses.replace(g, rollouts=tuple(made(t) for (t,) in g.rollouts)) for g in groups]


def update_of(changes: dict[str, Any], dtype: torch.dtype) -> PolicyUpdate:
    model = copy.deepcopy(MODEL).to(dtype)
    own = changes.get("own")
    first, second = ({"id": env_id, "reasoning_budgets": ["unlimited", "low"]} for env_id in ENVIRONMENTS)
    environments = [first, second | ({"algorithm": own} if own else {})]
    generation = {"max_new_tokens": 16, "micro_batch_tokens": changes["micro_batch_tokens"]}
    sections = {"rl": {"updates_per_step": 1, **changes.get("rl", {})}, "generation": generation}
    rest = {key: value for key, value in changes.items() if key not in ("rl", "own", "micro_batch_tokens")}
    config = load_config({"environments": environments, **rest, **sections})
    update = PolicyUpdate(config, Learner(model, optimizer="adamw", lr=1e-3))
    if any(isinstance(algorithm, PPO) for algorithm in config.algorithms.values()):
        update.critic = Critic(model, lr=1e-3, value_clip=0.2)
        update.critic.head.to(dtype)
        torch.manual_seed(0)
        torch.nn.init.normal_(update.critic.head.weight, std=0.1)
    if config.kl.coefficient:
        update.reference = copy.deepcopy(REFERENCE).to(dtype)
    return update


def loss_and_gradient(update: PolicyUpdate, batches: list[TrainBatch]) -> tuple[float, torch.Tensor]:
    model, config = update.learner.model, update.config
    model.zero_grad()
    loss, total = PolicyLoss(config.algorithms, config.correction, config.kl, config.rl.old_policy), 0.0
    for batch in batches:
        logprobs_T, _, _ = update.learner.logprobs(batch)
        value = loss(logprobs_T, Streams.of(batch, logprobs_T.dtype))
        value.backward()
        total += value.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def batches_of(name: str, dtype: torch.dtype, groups: list[Group], cut: Cut) -> tuple[PolicyUpdate, list[TrainBatch]]:
    update = update_of(VARIED[name] | {"micro_batch_tokens": cut.max_tokens}, dtype)
    scored = update.score([groups[index] for index in cut.order])
    if cut.alone and "own" not in VARIED[name]:  # an algorithm's share of the groups would be one of all samples
        scored = [Scored(s.algorithm, [sample]) for s in scored for sample in s.samples]
    (batches,) = update.prepare([update.pack(scored)])
    return update, batches


def summed(update: PolicyUpdate, ranks: list[list[TrainBatch]]) -> tuple[float, torch.Tensor]:
    """What the ranks' losses and gradients add up to."""
    parts = [loss_and_gradient(update, rank) for rank in ranks if rank]
    return sum(value for value, _ in parts), torch.stack([gradient for _, gradient in parts]).sum(0)


def assert_same(found: tuple[float, torch.Tensor], expected: tuple[float, torch.Tensor], bound: float) -> None:
    (value, gradient), (other, other_gradient) = expected, found
    assert torch.isfinite(gradient).all()  # all may be masked
    assert abs(value - other) <= bound * max(1.0, abs(value))
    torch.testing.assert_close(gradient, other_gradient, rtol=0, atol=bound * max(1.0, float(gradient.abs().max())))


PRECISIONS = pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])


@pytest.mark.parametrize("name", VARIED)
@PRECISIONS
@settings(max_examples=9, deadline=None)
@given(seed=st.integers(0, 10**6), near=st.booleans(), max_branches=st.sampled_from([1, 3]), cut=CUTS)
def test_every_algorithm_is_the_same_however_it_is_batched(
    name: str, dtype: torch.dtype, bound: float, seed: int, near: bool, max_branches: int, cut: Cut
) -> None:
    groups = groups_of(seed, near, max_branches)
    update, whole = batches_of(name, dtype, groups, Cut())
    if not whole:
        return
    cut_update, batches = batches_of(name, dtype, groups, cut)
    ranks = [batches[rank :: cut.num_ranks] for rank in range(cut.num_ranks)]
    assert_same(summed(cut_update, ranks), summed(update, [whole]), bound)


@PRECISIONS
@settings(max_examples=24, deadline=None)
@given(name=st.sampled_from(sorted(VARIED)), seed=st.integers(0, 10**6), cut=CUTS)
def test_ranks_that_are_balanced_by_cost_add_up_to_the_same(
    dtype: torch.dtype, bound: float, name: str, seed: int, cut: Cut
) -> None:
    groups, cost = groups_of(seed, near=True, max_branches=3), RowCost.of(MODEL.config)
    update, whole = batches_of(name, dtype, groups, Cut())
    if not whole:
        return
    cut_update, batches = batches_of(name, dtype, groups, cut)
    shares = balanced([sum(cost(length) for length in batch.lengths) for batch in batches], cut.num_ranks)
    assert sorted(index for share in shares for index in share) == list(range(len(batches)))
    ranks = [[batches[index] for index in share] for share in shares]
    assert_same(summed(cut_update, ranks), summed(update, [whole]), bound)
