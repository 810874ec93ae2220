"""MaxRL (https://arxiv.org/abs/2602.02710): maximum likelihood of success. Advantages are rewards less their mean over their mean, which
follows the log of the pass rate: of prompts that are rarely solved more is learnt."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..advantages import maximum_likelihood
from ..batch import Sample
from ..run_folder import RunError
from ..trajectory import Group
from .bundle import Clipped


class MaxRL(Clipped):
    """Maximum-likelihood reinforcement learning."""

    name: Literal["maxrl"] = "maxrl"

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        return maximum_likelihood(rewards_G)

    def score_group(self, group: Group, rewards_G: np.ndarray, overlong_filter: bool) -> list[Sample]:
        if (rewards_G < 0).any():
            raise RunError(
                f"{group.env_id} gave a reward of {float(rewards_G.min()):g}, and maxrl takes rewards as pass rates, at least 0. Give it "
                f'another algorithm: [[environments]] algorithm = {{ name = "grpo" }}'
            )
        return super().score_group(group, rewards_G, overlong_filter)
