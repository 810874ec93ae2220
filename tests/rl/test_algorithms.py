"""Advantages, losses, packing, Muon: the golden cases and laws small enough to check by hand."""

import numpy as np
import pytest
import torch

from swannery.rl import centered, clipped_surrogate, leave_one_out, token_mean_loss, wilson
from swannery.rl.muon import Muon, orthogonalize

# The golden cases: A = [1, -1, 2], ratios .5, 1, 1.5.
ADVANTAGES, OLD = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([-1.0, -1.0, -1.0])
NEW = torch.tensor([-1.69315, -1.0, -0.59453])


@pytest.mark.parametrize(
    ("low", "high", "tokens", "loss"),
    [(0.2, 0.2, [0.5, -1.0, 2.4], -0.63333), (0.2, 0.28, [0.5, -1.0, 2.56], -0.686666)],
)
def test_golden_clipped_losses(low: float, high: float, tokens: list[float], loss: float) -> None:
    objective = clipped_surrogate(NEW, OLD, ADVANTAGES, clip_low=low, clip_high=high)
    torch.testing.assert_close(objective, torch.tensor(tokens), rtol=0, atol=1e-5)
    value = token_mean_loss(objective, torch.ones(3), num_trained_tokens=3)
    assert float(value) == pytest.approx(loss, abs=1e-5)


def test_golden_loss_on_policy() -> None:
    objective = clipped_surrogate(OLD, OLD, ADVANTAGES, clip_low=0.2, clip_high=0.2)
    assert float(token_mean_loss(objective, torch.ones(3), num_trained_tokens=3)) == pytest.approx(-2 / 3)


def test_golden_token_mean_over_ranks_and_micro_batches() -> None:
    ranks = [torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([7.0])]
    total = sum(float(token_mean_loss(x, torch.ones(len(x)), num_trained_tokens=6)) for x in ranks)
    assert -total == pytest.approx(22 / 6)


def test_golden_leave_one_out() -> None:
    np.testing.assert_allclose(leave_one_out(np.array([6.0, 3.0])), [3, -3])
    np.testing.assert_allclose(leave_one_out(np.array([9.0, 12.0])), [-3, 3])
    np.testing.assert_allclose(leave_one_out(np.array([1.0, 0, 0, 1, 1])), [0.5, -0.75, -0.75, 0.5, 0.5])
    assert leave_one_out(np.array([1.0])).tolist() == [0]


def test_golden_centered() -> None:
    np.testing.assert_allclose(centered(np.array([6.0, 3.0])), [1.5, -1.5])
    rewards = np.array([1.0, 0, 0, 1, 1])
    np.testing.assert_allclose(centered(rewards, normalize_std=True)[:2], [0.730295, -1.095443], atol=1e-5)


def test_advantages_of_a_group_sum_to_zero() -> None:
    rewards = np.random.default_rng(0).normal(size=12)
    assert abs(leave_one_out(rewards).sum()) < 1e-12 and abs(centered(rewards).sum()) < 1e-12


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    objective = clipped_surrogate(logprobs, logprobs.detach(), torch.tensor([2.0, 2.0]), clip_low=0.2, clip_high=0.28)
    token_mean_loss(objective, torch.ones(2), num_trained_tokens=2).backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, -1.0]))


def test_an_outlier_ratio_stays_finite() -> None:
    new = torch.tensor([0.0], requires_grad=True)
    objective = clipped_surrogate(new, torch.tensor([-300.0]), torch.tensor([-1.0]), clip_low=0.2, clip_high=0.28)
    objective.sum().backward()
    assert bool(torch.isfinite(objective).all() and torch.isfinite(new.grad).all())


def test_wilson_interval_of_half_of_a_hundred() -> None:
    low, high = wilson(50, 100)
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0, 0) == (0.0, 1.0) and wilson(10, 10)[1] == 1.0


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 8, 8)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), steps=5))
    assert 0.5 < float(values.min()) and float(values.max()) < 1.3


def test_muon_treats_a_stack_of_experts_as_its_matrices() -> None:
    torch.manual_seed(0)
    stack = torch.nn.Parameter(torch.randn(3, 4, 6))
    apart = [torch.nn.Parameter(m.detach().clone()) for m in stack]
    stack.grad = torch.randn(3, 4, 6)
    for parameter, grad in zip(apart, stack.grad, strict=True):
        parameter.grad = grad.clone()
    Muon([stack], lr=0.1).step()
    Muon(apart, lr=0.1).step()
    torch.testing.assert_close(stack, torch.stack(list(apart)))
