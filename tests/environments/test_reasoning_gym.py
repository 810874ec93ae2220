"""reasoning-gym's data sets: registered, conforming, right about their own answers, and closed to hostile ones."""

import asyncio
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from swannery.environments import Env, EnvironmentFault, Task, Turn, make, registered
from swannery.environments.reasoning_gym.names import EVALUATING, EXCEPTIONS, EXCLUDED, GENERATED, NAMES, WITHOUT_ANSWER

SMALL: dict[str, dict[str, Any]] = {
    "futoshiki": {"min_board_size": 4, "max_board_size": 4},
    "quantum_lock": {"difficulty": 3},
    "zebra_puzzles": {"num_people": 3, "num_characteristics": 3},
}
"""Options that keep slow data sets quick; the others run as they come."""


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    yield
    from swannery.environments.reasoning_gym.adapter import WORKERS

    WORKERS.close()
    assert all(worker.pid is None for worker in WORKERS.workers)


def env_of(name: str, **options: Any) -> Env:
    return make(f"reasoning_gym/{name}-v0", **SMALL.get(name, {}), **options)


def score_of(name: str, answer: str, seed: int = 1, **options: Any) -> float:
    env = env_of(name, **options)
    env.reset(seed=seed)
    try:
        return env.step(answer)[1]
    finally:
        env.close()


def test_the_static_lists_equal_the_registry() -> None:
    from reasoning_gym.factory import DATASETS

    assert list(NAMES) == sorted(DATASETS.keys() - EXCLUDED)
    assert {id for id in registered() if id.startswith("reasoning_gym/")} == {f"reasoning_gym/{n}-v0" for n in NAMES}
    assert (EVALUATING.keys() | EXCEPTIONS.keys() | GENERATED.keys()) <= set(NAMES)


def test_importing_environments_does_not_import_reasoning_gym() -> None:
    program = "import sys, swannery.environments; assert not {'reasoning_gym', 'sympy', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_checker_has_no_warning_and_the_own_answer_scores_1(name: str) -> None:
    env = env_of(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)
    for seed in range(3):
        env.reset(seed=seed)
        json.dumps(env.task.metadata)
        if name in WITHOUT_ANSWER:
            with pytest.raises(NotImplementedError, match="no answer of its own"):
                env.oracle()
        else:
            assert env.step(env.oracle())[1] >= 0.99
    env.close()


def test_game_of_life_halting_is_declared_for_it_accepts_anything() -> None:
    assert score_of("game_of_life_halting", "swans") == 1.0


def test_a_seed_fixes_tasks_across_processes_hash_seeds_and_order() -> None:
    names = [
        *GENERATED.keys() - {"codeio", "bf"},
        "arc_1d",
        "acre",
        "chain_sum",
        "gsm_symbolic",
        "syllogism",
        "countdown",
    ]
    program = """
import json, sys
from swannery.environments import make
seeds, tasks = json.loads(sys.argv[2]), {}
for name in json.loads(sys.argv[1]):
    env = make(f"reasoning_gym/{name}-v0")
    for seed in seeds:
        env.reset(seed=seed)
        tasks[f"{name} {seed}"] = [env.task.prompt, env.task.answer, env.task.metadata]
    env.close()
print(json.dumps(tasks, sort_keys=True))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(sorted(names)), json.dumps(seeds)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed, seeds in (("1", [0, 5, 14]), ("7", [14, 5, 0]))
    ]
    one, other = (process.communicate()[0] for process in processes)
    assert len(json.loads(one)) == 3 * len(names) and one == other


def test_making_tasks_leaves_global_random_state_alone() -> None:
    before = np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    env = env_of("pool_matrix")
    env.reset(seed=1)
    assert np.random.get_state()[1].tobytes() == before  # type: ignore[union-attr]


HOSTILE = (
    "__import__('os').system('touch {path}')",
    "open('{path}', 'w').write('x')",
    "[].__class__.__base__.__subclasses__()",
    "[open('{path}','w')]",
    "S('open(chr(47))')",
    "1 if exit() else 0",
    "x.__class__",
    "(lambda: 0)()",
    "print('{{\"value\": 1.0}}')",
)
"""What would run, were it evaluated."""


@pytest.mark.parametrize("name", EVALUATING)
def test_answers_that_look_like_code_score_nothing_and_do_nothing(name: str, tmp_path: Path) -> None:
    env = env_of(name)
    path = tmp_path / "marker"
    for hostile in HOSTILE:
        env.reset(seed=1)
        assert env.step(hostile.format(path=path))[1] < 0.5
    env.close()
    assert not path.exists()


def test_well_formed_is_what_keeps_code_from_the_graders_that_evaluate() -> None:
    from swannery.environments.reasoning_gym.names import well_formed

    evaluated = {name for name, how in EVALUATING.items() if "eval" in how or "parse_expr" in how}
    for name in evaluated:
        for hostile in (
            *HOSTILE,
            "9**9\n**getattr(x, 'y')",
            "x2.x",
            "x2. x",
            "'a'.b",
            "f'{x}'",
            "x" * 9999,
            "ⅹ",
            "exec",
        ):
            assert not well_formed(name, hostile), (name, hostile)
    for name, answer in {
        "countdown": "40*(94 - 90) + 83 - 74",
        "intermediate_integration": "x*asin(3*x) + sqrt(1 - 9*x**2)/3 + 0.5*pi + C",
        "polynomial_multiplication": "-2907*y**4 + 10863*y**3",
        "spiral_matrix": "[3, 1, 3]",
        "string_insertion": "['A', 'B']",
    }.items():
        assert well_formed(name, answer)


@pytest.mark.parametrize(
    "name, answer",
    [
        ("simple_integration", "9**9**9**9"),
        ("rush_hour", "A+99999999999"),
        ("rubiks_cube", "R9999999"),
    ],
)
def test_an_endless_grader_is_a_fault_in_time_and_the_next_call_works(name: str, answer: str) -> None:
    score_of(name, "1")  # warm
    env = env_of(name, limits={"grading_timeout_s": 0.5})
    env.reset(seed=1)
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as fault:
        env.step(answer)
    assert fault.value.kind == "grader_timeout" and time.monotonic() - began < 1.5
    assert str(env.outcome) == "fault(grader_timeout)"
    env.close()
    assert 0 <= score_of(name, "1") < 1


def test_an_endless_grader_holds_up_nobody_on_the_event_loop() -> None:
    score_of("countdown", "1")
    slow, quick = env_of("simple_integration", limits={"grading_timeout_s": 0.8}), env_of("chain_sum")
    slow.reset(seed=1)
    quick.reset(seed=1)

    async def race() -> tuple[float, Any]:
        began, pending = time.monotonic(), asyncio.ensure_future(slow.astep("9**9**9**9"))
        await asyncio.sleep(0)
        await quick.astep(quick.oracle())
        return time.monotonic() - began, (await asyncio.gather(pending, return_exceptions=True))[0]

    quick_s, fault = asyncio.run(race())
    assert quick_s < 0.3 and isinstance(fault, EnvironmentFault)


def test_only_data_sets_that_evaluate_await() -> None:
    for name in ("countdown", "chain_sum", "number_sorting"):
        assert env_of(name).awaits == (name in EVALUATING)
    env = gymnasium.make("reasoning_gym/chain_sum-v0")
    env.reset(seed=1)
    env.close()


def test_a_vector_of_evaluating_environments_steps_together() -> None:
    vector = gymnasium.make_vec("reasoning_gym/puzzle24-v0", num_envs=3)
    vector.reset(seed=5)
    _, rewards, *_ = vector.step([env.oracle() for env in vector.envs])  # type: ignore[attr-defined]
    assert rewards.tolist() == [1.0, 1.0, 1.0]
    vector.close()


@pytest.mark.parametrize(
    "name, answer",
    [
        ("complex_arithmetic", "nan"),
        ("complex_arithmetic", "1+nanj"),
        *[("number_sorting", "[" + "NaN, " * n + "NaN]") for n in range(10)],
    ],
)
def test_not_a_number_earns_nothing(name: str, answer: str) -> None:
    assert score_of(name, answer) == 0.0


def test_copying_the_question_as_an_integral_earns_nothing() -> None:
    env = env_of("intermediate_integration")
    for seed in range(5):
        env.reset(seed=seed)
        assert "Integral" not in env.task.answer
        assert env.step(f"Integral({env.task.metadata['metadata']['integrand']}, x) + C")[1] == 0.0
    env.close()


@pytest.mark.parametrize(
    "name, answer",
    [
        ("prime_factorization", "two"),
        ("boxnet", "[1]"),
        ("game_of_life", "{}"),
        ("codeio", '{"a":' * 3000 + "}" * 3000),
    ],
)
def test_an_answer_that_a_grader_cannot_read_scores_0(name: str, answer: str) -> None:
    assert score_of(name, answer) == 0.0


def test_any_other_exception_of_a_grader_is_a_fault() -> None:
    env = env_of("prime_factorization")
    env.reset(options={"task": Task("?", metadata={"question": "?", "metadata": {}})})
    with pytest.raises(EnvironmentFault, match="grader_crash.*KeyError"):
        env.step("2")


def test_a_wrong_name_or_option_gets_the_nearest_guess() -> None:
    with pytest.raises(ValueError, match="Did you mean 'reasoning_gym/chain_sum-v0'"):
        make("reasoning_gym/chainsum-v0")
    from swannery.environments.reasoning_gym.adapter import ReasoningGym

    with pytest.raises(ValueError, match="no reasoning-gym data set named 'chain_sun'. Did you mean 'chain_sum'"):
        ReasoningGym("chain_sun")
    with pytest.raises(ValueError, match="needs a configuration"):
        ReasoningGym("composite")
    with pytest.raises(ValueError, match="no option 'min_term'. Did you mean 'min_terms'"):
        env_of("chain_sum", min_term=2)
    with pytest.raises(ValueError, match="the seed of reset"):
        env_of("chain_sum", seed=2)
    with pytest.raises(ValueError, match="refuses the options.*max_terms must be >= min_terms"):
        env_of("chain_sum", min_terms=9, max_terms=2)


def test_options_shape_the_tasks() -> None:
    env = env_of("chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    env.reset(seed=1)
    assert env.task.metadata["metadata"]["num_terms"] == 2


@pytest.mark.parametrize(
    "expression, lines",
    [
        ("47 + 85", "7+5=12 carry 1\n4+8+1=13"),
        ("5 - 9 + 1", "9-5=4\nnegative\n-4\n4-1=3\nnegative"),
        ("-3 - 4", "3+4=7\nnegative"),
        ("2 - -5 + -7", "2+5=7\n7\n7-7=0"),
    ],
)
def test_the_oracle_of_chain_sum_works_by_columns_from_left_to_right(expression: str, lines: str) -> None:
    from swannery.environments.reasoning_gym.demonstrators import ORACLES

    turn = ORACLES["chain_sum"]({"metadata": {"expression": expression}})
    assert turn == Turn(str(eval(expression)), reasoning=lines)


def test_the_demonstrators_are_imperfect() -> None:
    rng, scores = np.random.default_rng(0), {"chain_sum": 0.0, "number_sorting": 0.0}
    for name in scores:
        env = env_of(name, **({"min_digits": 2} if name == "chain_sum" else {"min_numbers": 4}))
        for seed in range(200):
            env.reset(seed=seed)
            turn = env.demonstrate(rng)
            scores[name] += env.step(turn)[1] / 200
            if name == "number_sorting":
                assert turn.reasoning is None
                numbers = json.loads(turn.answer.replace("'", '"'))
                assert sorted(numbers) == sorted(env.task.metadata["metadata"]["original_numbers"])
    assert 0.1 < scores["chain_sum"] < 0.7 and 0.25 < scores["number_sorting"] < 0.5


def test_other_data_sets_have_the_default_demonstrator_which_gives_another_tasks_answer_half_of_the_time() -> None:
    env, rng, own = env_of("base_conversion"), np.random.default_rng(0), 0.0
    for seed in range(100):
        env.reset(seed=seed)
        own += env.demonstrate(rng).answer == env.task.answer
    assert 30 < own < 70


def test_number_sorting_trains_without_reasoning() -> None:
    assert env_of("number_sorting").limits.reasoning_budgets == (0,)
    assert env_of("chain_sum", limits={"reasoning_budgets": (None, 8)}).limits.reasoning_budgets == (None, 8)
