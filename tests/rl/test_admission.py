"""What admission hands out."""

from swannery.rl.admission import Admission
from swannery.rl.config import load_config
from swannery.rl.preflight import make_environment

ENVS = ("chat/Guess-v0", "math/Arithmetic-v0", "tools/Calculator-v0")


def test_a_step_s_refills_may_be_fewer_than_the_environments_and_keep_the_mixture() -> None:
    config = load_config({"environments": [{"id": env_id} for env_id in ENVS], "rl": {"prompts_per_step": 3}})
    admission = Admission(config, {env.id: make_environment(env) for env in config.environments})
    assert sorted(prompt.env_id for prompt in admission.prompts(0, 3)) == sorted(ENVS)
    refills = [prompt for step in range(30) for prompt in admission.prompts(step, 1, first=3)]
    assert [prompt.number for prompt in refills] == [3] * 30
    assert {env_id: sum(p.env_id == env_id for p in refills) for env_id in ENVS} == dict.fromkeys(ENVS, 10)
    assert len({(prompt.env_id, prompt.task_seed) for prompt in refills}) == 30


def test_refills_come_of_the_environments_that_are_asked_for() -> None:
    config = load_config({"environments": [{"id": env_id} for env_id in ENVS], "rl": {"prompts_per_step": 3}})
    admission = Admission(config, {env.id: make_environment(env) for env in config.environments})
    refills = admission.prompts(0, 5, first=3, among={ENVS[1]})
    assert [(prompt.env_id, prompt.number) for prompt in refills] == [(ENVS[1], number) for number in range(3, 8)]
    assert len({prompt.task_seed for prompt in refills}) == 5
