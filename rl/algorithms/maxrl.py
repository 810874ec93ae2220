"""MaxRL (https://arxiv.org/abs/2602.02710): maximum likelihood of success. Advantages are rewards less their mean over their mean, which
follows the log of the pass rate: of prompts that are rarely solved more is learnt."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..advantages import maximum_likelihood
from .bundle import Clipped


class MaxRL(Clipped):
    """Maximum-likelihood reinforcement learning."""

    name: Literal["maxrl"] = "maxrl"

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        return maximum_likelihood(rewards_G)
