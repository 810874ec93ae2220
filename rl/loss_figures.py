"""What a loss did with its tokens, for the log: how far the learner is from rollouts and reference, and what was clipped or corrected away.

gen_kl     how far the rollout's policy is from the learner's, by what it sampled: the mean of exp(d) - 1 - d (k3), where d is the
           learner's log-probability of a token less the rollout's
policy_kl  the same with -d. One token that the learner finds 10 nats less likely counts 9 in the first and 22,015 in the second
"""

# Shapes: T trained tokens of a micro-batch.

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch

from .algorithms.bundle import Clipped
from .batch import TrainBatch
from .kl import kl_estimate
from .policy_loss import PolicyLoss, Streams, harmless


@dataclass
class LossFigures:
    """Means over the tokens that count, of one optimizer step."""

    loss: PolicyLoss
    sums: Counter[str] = field(default_factory=Counter)

    def observe(self, batch: TrainBatch, logprobs_T: np.ndarray) -> None:
        """A micro-batch, with the learner's log-probabilities before its update."""
        learner_T = torch.from_numpy(np.asarray(logprobs_T))
        learner_T, streams = harmless(learner_T, Streams.of(batch, learner_T.dtype))
        counts_T = streams.weights_T > 0
        if self.loss.old_policy == "learner" and not streams.has_old:
            old_T = learner_T
        else:
            old_T = streams.old_logprobs_T
        add = lambda name, values_T: self.sums.update({name: float(values_T[counts_T].sum())})  # noqa: E731
        add("tokens", torch.ones_like(learner_T))
        add("gen_kl", kl_estimate(streams.rollout_logprobs_T, learner_T, "k3"))
        add("policy_kl", kl_estimate(learner_T, streams.rollout_logprobs_T, "k3"))
        if streams.reference_logprobs_T is not None:
            add("kl", kl_estimate(learner_T, streams.reference_logprobs_T, self.loss.kl.value))
        algorithm = self.loss.algorithms[streams.algorithm]
        if isinstance(algorithm, Clipped):
            ratio_T = (learner_T - old_T).exp()
            up_T = streams.advantages_T > 0
            clipped_T = torch.where(up_T, ratio_T > 1 + algorithm.clip_high, ratio_T < 1 - algorithm.clip_low)
            add("clipped", (clipped_T & (streams.advantages_T != 0)).to(ratio_T.dtype))
        weights_T = self.loss.correction.weights(old_T, streams.rollout_logprobs_T, streams.sequence_T)
        add("corrected_away", (weights_T == 0).to(learner_T.dtype))

    def means(self) -> dict[str, float]:
        """Nothing where no token counted."""
        tokens = self.sums["tokens"]
        return {name: total / tokens for name, total in self.sums.items() if name != "tokens"} if tokens else {}
