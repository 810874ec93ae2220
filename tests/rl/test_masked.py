"""A token that is left out stays out whatever its numbers are, forward and backward, for every algorithm and option."""

import dataclasses
import itertools
from typing import Literal

import pytest
import torch

from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.importance import Correction
from swannery.rl.kl import KLPenalty
from swannery.rl.policy_loss import PolicyLoss, Streams

STREAMS = ("advantages_T", "rollout_logprobs_T", "old_logprobs_T", "reference_logprobs_T")
CORRECTIONS = (
    Correction(), Correction(kind="truncate"), Correction(kind="mask", unit="geometric"), Correction(kind="truncate", unit="sequence"),
    Correction(kind="mask", unit="outermost"), Correction(max_error=2.0),
)  # fmt: skip
GRADIENTS: tuple[Literal["k1", "k2", "k3", "score"], ...] = ("k1", "k2", "k3", "score")
LEFT_OUT = 2


def streams() -> tuple[torch.Tensor, Streams]:
    logprobs_T = -torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    weights_T = torch.ones(6, dtype=torch.float64)
    weights_T[LEFT_OUT] = 0
    return logprobs_T, Streams(
        advantages_T=torch.tensor([1.0, -1, 1, 2, -2, 1], dtype=torch.float64), rollout_logprobs_T=logprobs_T + 0.01,
        old_logprobs_T=logprobs_T + 0.02, reference_logprobs_T=logprobs_T - 0.1, weights_T=weights_T,
        sequence_T=torch.tensor([0, 0, 0, 1, 1, 1]), num_trained_tokens=5.0, has_old=True,
    )  # fmt: skip


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_not_finite_never_leaks(name: str, bad: float) -> None:
    for field, gradient, correction in itertools.product(STREAMS, GRADIENTS, CORRECTIONS):
        logprobs_T, whole = streams()
        logprobs_T.requires_grad_()
        values_T = getattr(whole, field).clone()
        values_T[LEFT_OUT] = bad
        loss = PolicyLoss(
            {"": ALGORITHMS[name]()}, correction, KLPenalty(coefficient=0.1, gradient=gradient), "learner"
        )
        value = loss(logprobs_T, dataclasses.replace(whole, **{field: values_T}))
        value.backward()
        assert logprobs_T.grad is not None
        assert value.isfinite() and logprobs_T.grad.isfinite().all(), (field, gradient, correction)


def test_nor_do_log_probabilities_of_the_learner() -> None:
    logprobs_T, whole = streams()
    logprobs_T[LEFT_OUT] = float("nan")
    logprobs_T.requires_grad_()
    PolicyLoss({"": ALGORITHMS["grpo"]()}, kl=KLPenalty(coefficient=0.1))(logprobs_T, whole).backward()
    assert logprobs_T.grad is not None and logprobs_T.grad.isfinite().all() and logprobs_T.grad[LEFT_OUT] == 0
