"""What a step says of its loss."""

import dataclasses

import numpy as np
import pytest

from swannery.policies import preset
from swannery.rl.algorithms import ALGORITHMS
from swannery.rl.batch import TrainBatch, pack, total_weight
from swannery.rl.importance import Correction
from swannery.rl.loss_figures import LossFigures
from swannery.rl.policy_loss import PolicyLoss

from .made import made_groups


def batch_of() -> TrainBatch:
    samples = ALGORITHMS["grpo"]().score(made_groups(0, preset("tiny-100k", vocab_size=320), count=1))
    return pack(samples, total_weight(sample for group in samples for sample in group))


def test_a_token_ten_nats_off_counts_nine_one_way_and_twenty_two_thousand_the_other() -> None:
    batch = batch_of()
    learner_T = batch.rollout_logprobs_T.copy()
    learner_T[3] -= 10.0
    figures = LossFigures(PolicyLoss({"": ALGORITHMS["grpo"]()}))
    figures.observe(batch, learner_T)
    found, count = figures.means(), len(learner_T)
    assert found["gen_kl"] * count == pytest.approx(9.000045, rel=1e-5)
    assert found["policy_kl"] * count == pytest.approx(22015.47, rel=1e-4)


def test_what_was_clipped_and_corrected_away_is_told_and_what_is_left_out_is_in_no_mean() -> None:
    batch = batch_of()
    count = len(batch.advantages_T)
    weights_T, advantages_T = np.ones(count, np.float32), np.ones(count, np.float32)
    weights_T[0], advantages_T[1] = 0.0, -1.0
    batch = dataclasses.replace(
        batch, weights_T=weights_T, advantages_T=advantages_T, old_logprobs_T=batch.rollout_logprobs_T + 0.0,
        reference_logprobs_T=batch.rollout_logprobs_T + 0.5,
    )  # fmt: skip
    learner_T = batch.rollout_logprobs_T.copy()
    learner_T[:4] += np.array(
        [1.0, 1.0, 1.0, -1.0], np.float32
    )  # left out; down is clipped below only; clipped; up is not clipped below
    batch.rollout_logprobs_T[4] -= 10.0
    loss = PolicyLoss({"": ALGORITHMS["grpo"]()}, Correction(kind="mask"), old_policy="learner")
    figures = LossFigures(loss)
    figures.observe(batch, learner_T)
    found = figures.means()
    assert found["clipped"] * (count - 1) == pytest.approx(1)
    assert found["corrected_away"] * (count - 1) == pytest.approx(1)
    assert found["kl"] > 0
