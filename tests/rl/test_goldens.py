"""Numbers that published implementations agree on, and cases small enough to check by hand, for every part of the algorithms."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from swannery.environments import Curriculum, CurriculumConfig, Mixture
from swannery.policies import preset
from swannery.rl import Sample, clipped_surrogate, leave_one_out, token_mean_loss
from swannery.rl.advantages import (
    deviation,
    discounted,
    generalized,
    generalized_ref,
    maximum_likelihood,
    relative,
    relative_apart,
    whiten,
)
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.algorithms.cispo import CISPO
from swannery.rl.algorithms.grpo import GRPO
from swannery.rl.algorithms.gspo import GSPO
from swannery.rl.algorithms.ppo import PPO
from swannery.rl.algorithms.rloo import RLOO
from swannery.rl.batch import TrainBatch, pack, total_weight
from swannery.rl.critic import value_loss
from swannery.rl.importance import Correction
from swannery.rl.kl import KLPenalty, kl_estimate
from swannery.rl.policy_loss import PolicyLoss, Streams, negative_log_likelihood
from swannery.rl.scoring import samples_of
from swannery.rl.shaping import Shaping, length_reward, low_effort_reward, overlong_penalty, shortest_bonus
from swannery.rl.trajectory import Group
from swannery.rl.update import most_uncertain

from .made import made_groups

CONFIG = preset("tiny-100k")


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def streams_of(
    advantages: Tensor, old: Tensor, rollout: Tensor | None = None, sequences: tuple[int, ...] | None = None
) -> Streams:
    count = len(advantages)
    return Streams(
        advantages_T=advantages, rollout_logprobs_T=old if rollout is None else rollout, old_logprobs_T=old,
        reference_logprobs_T=None, weights_T=torch.ones(count), num_trained_tokens=count, has_old=True,
        sequence_T=torch.tensor(sequences or (0,) * count),
    )  # fmt: skip


# The loss. The base case: A = [1, -1, 2], ratios .5, 1, 1.5.
ADVANTAGES, OLD, NEW = tensor(1, -1, 2), tensor(-1, -1, -1), tensor(-1.69315, -1, -0.59453)


def test_reinforce() -> None:
    streams = streams_of(ADVANTAGES, OLD)
    objective = RLOO().objective(tensor(-0.5, -1, -1.5), streams)
    assert float(token_mean_loss(objective, streams.weights_T, num_trained_tokens=3)) == pytest.approx(
        0.83333, abs=1e-5
    )
    assert float(PolicyLoss({"": RLOO()})(tensor(-0.5, -1, -1.5), streams)) == pytest.approx(0.83333, abs=1e-5)


def test_cross_entropy() -> None:
    streams = dataclasses.replace(streams_of(tensor(0, 0, 0), OLD), weights_T=tensor(1, 0, 1), num_trained_tokens=2)
    assert float(negative_log_likelihood(tensor(-0.1, -0.5, -0.2), streams)) == pytest.approx(0.15)


def test_dual_clip() -> None:
    new, old, advantages = tensor(-1.69315, -1, -0.69741), tensor(-1, -1, -3), tensor(1, -1, -4)
    objective = clipped_surrogate(new, old, advantages, clip_low=0.2, clip_high=0.2, dual_clip=3.0)
    torch.testing.assert_close(-objective, tensor(-0.5, 1, 12), rtol=0, atol=1e-4)
    old = torch.zeros(3)
    objective = clipped_surrogate(
        tensor(2, 2, 0.5).log(), old, tensor(2, -2, 2), clip_low=0.2, clip_high=0.2, dual_clip=1.5
    )
    torch.testing.assert_close(-objective, tensor(-2.4, 3, -1))


def test_masked_importance_sampling() -> None:
    """IcePop: the middle token leaves the sum, and stays in the denominator."""
    streams = streams_of(ADVANTAGES, OLD, tensor(-0.5, -3.5, -0.8))
    correction = Correction(kind="mask", low=0.5, high=5.0)
    loss = PolicyLoss({"": GRPO(clip_high=0.2)}, correction, old_policy="learner")
    assert float(loss(OLD, streams)) == pytest.approx(-0.747997, abs=1e-6)


@pytest.mark.parametrize("unit", ["sequence", "outermost"])
def test_an_outlier_masks_its_sequence(unit: str) -> None:
    old, rollout = tensor(-1, -1, -1, -1), tensor(-1, -1, -6, -1)
    correction = Correction(kind="mask", unit=unit, low=1e-4, high=100.0)  # type: ignore[arg-type]
    assert correction.weights(old, rollout, torch.tensor([0, 0, 0, 1])).tolist() == [0, 0, 0, 1]


def test_truncation_and_error() -> None:
    old, rollout, sequence = tensor(-1, -1, -1), tensor(-3, -1, -1), torch.tensor([0, 0, 1])
    truncated = Correction(kind="truncate", high=2.0).weights(old, rollout, sequence)
    torch.testing.assert_close(truncated, tensor(2, 1, 1))
    geometric = Correction(kind="truncate", unit="geometric", high=9.0).weights(old, rollout, sequence)
    torch.testing.assert_close(geometric, tensor(np.e, np.e, 1))
    assert Correction(max_error=2.0).weights(old, rollout, sequence).tolist() == [0, 0, 1]  # (e^2 + 1) / 2


def test_cispo_keeps_the_gradient_of_clipped_tokens() -> None:
    logprobs = NEW.clone().requires_grad_()
    CISPO(weight_high=1.2).objective(logprobs, streams_of(ADVANTAGES, OLD)).sum().backward()
    torch.testing.assert_close(logprobs.grad, tensor(0.5, -1, 2.4), rtol=0, atol=1e-4)


def test_gspo_clips_a_sequence_as_one() -> None:
    streams = streams_of(tensor(1, 1, -1), tensor(-1, -1, -1), sequences=(0, 0, 1))
    objective = GSPO(clip_low=0.2, clip_high=0.2).objective(tensor(-1.1, -0.5, -1.1), streams)
    torch.testing.assert_close(objective, tensor(1.2, 1.2, -np.exp(-0.1)))  # exp(.2) is above 1.2


def test_masked_nan_never_leaks() -> None:
    nan = float("nan")
    streams = dataclasses.replace(streams_of(tensor(1, 1), tensor(-1, -1), tensor(-1, nan)), weights_T=tensor(1, 0))
    logprobs = tensor(-1, -1).requires_grad_()
    value = PolicyLoss({"": GRPO()}, Correction(kind="mask"), old_policy="learner")(logprobs, streams)
    value.backward()
    assert float(value.detach()) == -0.5 and logprobs.grad is not None and logprobs.grad.tolist() == [-0.5, 0]


def test_all_masked_is_zero() -> None:
    streams = dataclasses.replace(streams_of(ADVANTAGES, OLD), weights_T=torch.zeros(3))
    logprobs = NEW.clone().requires_grad_()
    value = PolicyLoss({"": GRPO()})(logprobs, streams)
    value.backward()
    assert float(value.detach()) == 0 and logprobs.grad is not None and not logprobs.grad.any()


# Divergence.


def test_kl_estimates() -> None:
    logprobs, reference = tensor(0.2, 0.3).double(), tensor(0.1, 0.2).double()
    for estimator, value in (("k1", 0.1), ("k2", 0.005), ("k3", 0.00483742)):
        got = kl_estimate(logprobs, reference, estimator)  # type: ignore[arg-type]
        torch.testing.assert_close(got, torch.full((2,), value).double(), rtol=0, atol=1e-6)


def test_a_gap_of_ten_nats_costs_little_one_way_and_much_the_other() -> None:
    """k3 of one token: e^-10 - 1 + 10 where the reference is far less sure of it, e^10 - 1 - 10 where it is far surer."""
    sure, unsure = tensor(-1).double(), tensor(-11).double()
    assert float(kl_estimate(sure, unsure, "k3")) == pytest.approx(9.000045, abs=1e-6)
    assert float(kl_estimate(unsure, sure, "k3")) == pytest.approx(22015.47, abs=5e-3)


def test_a_masked_nan_of_the_reference_costs_nothing() -> None:
    streams = dataclasses.replace(
        streams_of(tensor(0, 0), tensor(0.2, 0.3)),
        reference_logprobs_T=tensor(0.1, float("nan")), weights_T=tensor(1, 0), num_trained_tokens=1,
    )  # fmt: skip
    loss = PolicyLoss({"": GRPO()}, kl=KLPenalty(coefficient=1.0))
    assert float(loss(tensor(0.2, 0.3), streams)) == pytest.approx(0.00483742, abs=1e-6)


def test_the_gradient_of_the_divergence() -> None:
    """Over the whole vocabulary, in the mean under the policy: k2 and `score` have the divergence's own gradient, k1 has none."""
    logits = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    reference = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log_softmax(0)
    logprobs = logits.log_softmax(0)
    divergence = (logprobs.exp() * (logprobs - reference)).sum()
    (wanted,) = torch.autograd.grad(divergence, logits, retain_graph=True)
    for gradient, expected in (("k2", wanted), ("score", wanted), ("k1", torch.zeros(5).double())):
        penalty = KLPenalty(coefficient=1.0, gradient=gradient).penalty(logprobs, logprobs.detach(), reference)  # type: ignore[arg-type]
        mean = (logprobs.exp().detach() * penalty).sum()
        (got,) = torch.autograd.grad(mean, logits, retain_graph=True)
        torch.testing.assert_close(got, expected)
        assert float(mean.detach()) == pytest.approx(float(divergence.detach()))  # its value is k3's


# Advantages.


def test_group_relative() -> None:
    rewards = np.array([1.0, 0, 0, 1, 1])
    np.testing.assert_allclose(relative(rewards, "mean", "group")[:2], [0.730295, -1.095443], atol=2e-6)
    np.testing.assert_allclose(relative(rewards, "mean", "population")[:2], [0.816495, -1.224742], atol=2e-6)
    np.testing.assert_allclose(relative(rewards, "leave_one_out")[:2], [0.5, -0.75])
    np.testing.assert_allclose(deviation(np.array([6.0, 3.0]), "leave_one_out"), [1, 1])
    np.testing.assert_allclose(deviation(rewards, "leave_one_out")[0], np.std([0, 0, 1, 1], ddof=1), atol=2e-6)
    np.testing.assert_allclose(relative(np.array([9.0, 12.0]), "mean"), [-1.5, 1.5])
    assert not relative(np.ones(3), "mean", "group").any()


def test_each_rollout_against_the_others_of_its_prompt() -> None:
    groups = [np.array([6.0, 3]), np.array([9.0, 12]), np.array([1.0])]
    assert np.concatenate([leave_one_out(group) for group in groups]).tolist() == [3, -3, -3, 3, 0]
    assert np.concatenate([relative(group, "leave_one_out", "group") for group in groups])[-1] == 0
    assert np.concatenate([relative(group, "mean") for group in groups]).tolist() == [1.5, -1.5, -1.5, 1.5, 0]


def test_maxrl_is_the_gradient_of_the_log_of_the_pass_rate() -> None:
    np.testing.assert_allclose(maximum_likelihood(np.array([1.0, 0, 0, 0])), [3, -1, -1, -1])
    assert not maximum_likelihood(np.zeros(3)).any()
    with pytest.raises(ValueError, match="at least 0; got -1.0"):
        maximum_likelihood(np.array([-1.0, 1.0]))


def test_rewards_apart_tell_parts_from_totals() -> None:
    parts = np.array([[1.0, 0], [0, 1], [0, 0], [0, 1]])
    assert relative(parts.sum(1), "mean")[0] == relative(parts.sum(1), "mean")[1]
    apart = relative_apart(parts, "mean", "group")
    assert apart[0] > apart[1] > apart[2]  # the rarer reward says more


def test_generalized_advantages_and_returns() -> None:
    rewards, values = np.array([1.0, 2, 3]), np.array([0.5, 1, 1.5, 0])
    for gamma, lam, returns in ((1, 1, [6, 5, 3]), (0.5, 1, [2.75, 3.5, 3]), (1, 0.5, [3.625, 4.25, 3])):
        np.testing.assert_allclose(generalized(rewards, values, gamma, lam) + values[:-1], returns)
    np.testing.assert_allclose(discounted(rewards, 0.5), [2.75, 3.5, 3])
    cut = generalized(rewards, np.array([0.5, 1, 1.5, 2]), 1, 1)  # what is cut short is worth its last value besides
    np.testing.assert_allclose(cut + values[:-1], [8, 7, 5])


@pytest.mark.parametrize("length", [0, 1, 2, 127, 128, 129, 300])
@pytest.mark.parametrize(("gamma", "lam"), [(1, 1), (0.99, 0.95), (1, 0), (1e-300, 0.5)])
def test_advantages_by_chunks_are_those_token_by_token(length: int, gamma: float, lam: float) -> None:
    rng = np.random.default_rng(length)
    rewards, values = rng.normal(size=length).astype(np.float32), rng.normal(size=length + 1)
    with np.errstate(over="raise", invalid="raise"):
        found = generalized(rewards, values, gamma, lam)
    np.testing.assert_allclose(found, generalized_ref(rewards, values, gamma, lam), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("gamma", "lam"), [(1, 1), (1, 0.95), (0.999, 0.999)])
def test_advantages_of_long_rollouts_by_chunks(gamma: float, lam: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        rewards, values = rng.normal(size=131_072), rng.normal(size=131_073)
        found = generalized(rewards, values, gamma, lam)
        np.testing.assert_allclose(found, generalized_ref(rewards, values, gamma, lam), rtol=0, atol=1e-5)


def test_whitening_is_weighted() -> None:
    values, weights = np.array([1.0, 3, 100]), np.array([1.0, 1, 0])
    np.testing.assert_allclose(whiten(values, weights)[:2], [-1, 1], atol=1e-5)
    assert whiten(np.full(3, 2.0)).tolist() == [0, 0, 0]


# Averages.


def averaged(
    average: str,
    rows: list[list[float]],
    prompts: list[int],
    *,
    constant: float = 1.0,
    ranks: list[list[int]] | None = None,
) -> float:
    """The loss's mean of numbers given token by token, through weights, packing and loss. `ranks`: the rows of each; every rank takes
    its sum over the whole step's mass times their number, and the ranks' mean is the result."""
    groups = made_groups(0, CONFIG, count=max(prompts) + 1)
    samples: list[Sample] = []
    for group, count in zip(groups, np.bincount(prompts), strict=True):
        mine = rows[len(samples) : len(samples) + count]
        whole = dataclasses.replace(group, rollouts=tuple((with_tokens(group, len(row)),) for row in mine))
        samples += samples_of(whole, np.zeros(count), average, constant=constant)  # type: ignore[arg-type]
    mass, ranks = total_weight(samples), ranks or [list(range(len(rows)))]
    losses = []
    for mine in ranks:
        batch = pack([[samples[index]] for index in mine], mass, with_routes=False)
        numbers = tensor(*(x for index in mine for x in rows[index]))
        weights = torch.from_numpy(batch.weights_T)
        losses.append(token_mean_loss(numbers, weights, num_trained_tokens=batch.num_trained_tokens) * len(ranks))
    return -float(torch.stack(losses).mean())


def with_tokens(group: Group, count: int):  # type: ignore[no-untyped-def]
    trajectory = group.rollouts[0][0]
    given, sampled = trajectory.segments[:2]
    n = np.zeros(count)
    written = dataclasses.replace(
        sampled,
        token_ids=n.astype(int),
        forced=n > 0,
        logprobs=n.astype(np.float32),
        policy_versions=n.astype(np.int32),
    )
    return dataclasses.replace(trajectory, segments=(given, written))


def test_means_over_tokens_sequences_and_prompts() -> None:
    assert averaged("token", [[1, 2], [4, 5, 6]], [0, 0]) == pytest.approx(3.6)
    assert averaged("sequence", [[1, 2], [3]], [0, 0]) == pytest.approx(2.25)
    assert averaged("prompt", [[1, 2], [3], [5, 6], [7, 8]], [0, 0, 1, 1]) == pytest.approx(4.25)
    doubled = [[2, 4], [6], [10, 12], [14, 16]]
    for ranks in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):  # a mean of micro-batches' means would be 8.5
        assert averaged("token", doubled, [0, 0, 1, 1], ranks=ranks) == pytest.approx(64 / 7)
    assert averaged("constant", [[1, 2], [3]], [0, 0], constant=4.0) == pytest.approx((3 / 4 + 3 / 4) / 2)


def test_ranks_of_unlike_lengths_give_the_mean_over_all_tokens() -> None:
    rows: list[list[float]] = [[1, 2], [3, 4, 5], [7]]
    assert averaged("token", rows, [0, 0, 0], ranks=[[0, 1], [2]]) == pytest.approx(22 / 6)


def test_the_most_uncertain_tokens_of_a_step() -> None:
    groups = GRPO().score(made_groups(3, CONFIG, count=6))
    batch = pack([sum(groups, [])], 1.0, with_routes=False)
    streams = {f.name: getattr(batch, f.name) for f in dataclasses.fields(TrainBatch)}
    first = {k: v[:6] if isinstance(v, np.ndarray) and k.endswith("_T") else v for k, v in streams.items()}
    rest = {k: v[6:10] if isinstance(v, np.ndarray) and k.endswith("_T") else v for k, v in streams.items()}
    entropies = np.arange(1, 11) / 10
    kept = most_uncertain([TrainBatch(**first), TrainBatch(**rest)], [entropies[:6], entropies[6:]], 0.2)
    assert np.flatnonzero(np.concatenate([b.weights_T for b in kept])).tolist() == [8, 9]  # 0.9 and 1.0
    assert kept[0].num_trained_tokens == pytest.approx(0.2)


# Shaping.


def test_lengths() -> None:
    lengths, rewards = np.array([10.0, 20, 30, 40]), np.array([1.0, 1, 0, 0])
    np.testing.assert_allclose(overlong_penalty(lengths, 40, 20), [0, 0, -0.5, -1])
    np.testing.assert_allclose(length_reward(lengths), [0.5, 1 / 6, -1 / 6, -0.5])
    assert length_reward(np.ones(3)).tolist() == [0, 0, 0]
    assert shortest_bonus(lengths, rewards).tolist() == [1, 0, 0, 0]
    assert shortest_bonus(lengths, rewards[::-1]).tolist() == [0, 0, 0, 0]  # the shortest is not good enough
    assert shortest_bonus(np.array([0.0, 20]), np.ones(2)).tolist() == [0, 1]  # one that wrote nothing is none
    np.testing.assert_allclose(low_effort_reward(rewards, lengths, 40, 0.5), [0.875, 0.75, 0, 0])


def test_truncated_rollouts_stay_in_the_baseline_alone() -> None:
    for seed in range(9):
        for group in made_groups(seed, CONFIG):
            whole, kept = (GRPO().score([group], Shaping(overlong_filter=f)) for f in (False, True))
            cut = [b[0].rollout for b in group.rollouts if b[0].outcome.kind == "truncated"]
            by_rollout = {s.trajectory.rollout: s.advantage for s in sum(whole, [])}
            left = {s.trajectory.rollout: s.advantage for s in sum(kept, [])}
            assert left == {rollout: a for rollout, a in by_rollout.items() if rollout not in cut}


# A critic's rewards, values and returns.


def test_ppo_pays_a_turn_at_its_last_token_and_bootstraps_what_was_cut() -> None:
    algorithm = PPO(gamma=0.9, lam=0.8)
    for seed in range(5):
        samples = sum(algorithm.score(made_groups(seed, CONFIG)), [])
        batch = pack([[s] for s in samples], 1.0, with_routes=False)
        assert batch.rewards_T is not None and batch.goes_on_S is not None
        rng = np.random.default_rng(seed)
        values_T, ends_S = rng.normal(size=len(batch.targets_T)), rng.normal(size=len(samples))
        (found,) = algorithm.estimate([batch], [(values_T, ends_S)])
        assert found.returns_T is not None
        for index, sample in enumerate(samples):
            here = batch.sample_T == index
            assert batch.rewards_T[here].sum() == pytest.approx(sample.trajectory.reward)
            cut = sample.trajectory.outcome.kind == "truncated"
            assert batch.goes_on_S[index] == cut
            last = batch.rewards_T[here][-1] + (0.9 * ends_S[index] if cut else 0.0)
            assert found.returns_T[here][-1] == pytest.approx(last)
        assert abs((found.advantages_T * batch.weights_T).sum()) < 1e-4


def test_value_loss() -> None:
    values, old, returns = tensor(1, 0.1), tensor(0, 0), tensor(1, 1)
    torch.testing.assert_close(value_loss(values, old, returns, 0.0), tensor(0, 0.405))
    torch.testing.assert_close(value_loss(values, old, returns, 0.2), tensor(0.32, 0.405))


def test_bundles_are_small_and_named() -> None:
    for name, kind in ALGORITHMS.items():
        assert kind().label == name and len(kind.model_fields) <= 12, name


def test_a_sample_counts_by_itself() -> None:
    assert float(token_mean_loss(tensor(1, 2), tensor(1, 1), num_trained_tokens=2)) == -1.5
    assert Sample(made_groups(0, CONFIG)[0].rollouts[0][0], 1.0).weight == 1


# What comes next.


def test_a_reloaded_curriculum_draws_what_it_would_have_drawn() -> None:
    rng, config = np.random.default_rng(0), CurriculumConfig(pool_size=8, min_tries=4)
    curriculum, resumed = Curriculum(["x"], 10, config), Curriculum(["x"], 10, config)

    def drawn(source: Curriculum, steps: range, rng: np.random.Generator) -> list[int]:
        found = []
        for step in steps:
            found += source.draw("x", step, 1, rng)
            source.update("x", found[-1], [True] * 4 if found[-1] % 2 else [True, False])
        return found

    drawn(curriculum, range(3), rng)
    saved = json.dumps([curriculum.state_dict(), rng.bit_generator.state])
    state, bits = json.loads(saved)
    resumed.load_state_dict(state)
    same = np.random.default_rng(9)
    same.bit_generator.state = bits
    assert drawn(resumed, range(3, 7), same) == drawn(curriculum, range(3, 7), rng)
    assert resumed.state_dict() == curriculum.state_dict() and resumed.dropped["x"] > 0


def test_a_reloaded_mixture_goes_on_with_what_it_owes() -> None:
    mixture, resumed = (Mixture({"a": 1, "b": 2, "c": 0.7}) for _ in range(2))
    for _ in range(3):
        mixture.allot(4)
    resumed.load_state_dict(json.loads(json.dumps(mixture.state_dict())))
    assert [resumed.allot(4) for _ in range(4)] == [mixture.allot(4) for _ in range(4)]
