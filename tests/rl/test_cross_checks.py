"""Settings that do not fit each other are refused before anything starts, with what would do."""

from typing import Any

import pytest

from swannery.rl.config import ConfigError, load_config

GUESS, SUMS = {"id": "chat/Guess-v0"}, {"id": "math/Arithmetic-v0"}
REFUSED: dict[str, dict[str, Any]] = {
    "to correct: set rl.old_policy": {"correction": {"max_error": 2.0}},
    "dual_clip bounds ratios above 1": {"algorithm": {"dual_clip": 0.5}},
    "wants a scale": {"algorithm": {"rewards": "apart"}},
    "choose one": {"algorithm": {"rewards": "apart", "scale": "group", "credit": "turn"}},
    "weight_low .3.0. must not be above": {"algorithm": {"name": "cispo", "weight_low": 3.0}},
    "group_size must be at least 2 for reinforce_pp": {"rl": {"group_size": 1}, "algorithm": {"name": "reinforce_pp", "baseline": "mean"}},
    "no environment has .low.": {"shaping": {"low_effort": 0.5}},
    "shaping.reasoning_length makes some negative": {"algorithm": {"name": "maxrl"}, "shaping": {"reasoning_length": 0.3}},
    "one critic": {
        "environments": [
            {**GUESS, "algorithm": {"name": "ppo"}}, {**SUMS, "algorithm": {"name": "ppo", "critic_learning_rate": 1e-5}},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_it_is_refused(message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({"environments": [GUESS, SUMS], **REFUSED[message]})


def test_an_algorithm_that_no_environment_learns_by_is_not_asked() -> None:
    own = [{**env, "algorithm": {"name": "ppo"}} for env in (GUESS, SUMS)]
    config = load_config({"environments": own, "rl": {"group_size": 1}, "algorithm": {"name": "dapo"}})
    assert set(config.algorithms) == {"chat/Guess-v0", "math/Arithmetic-v0"} and config.refills == {}


def test_refills_are_of_the_environments_whose_algorithm_has_them() -> None:
    config = load_config({"environments": [{**GUESS, "algorithm": {"name": "dapo", "refills": 3}}, SUMS]})
    assert config.refills == {"chat/Guess-v0": 3}
