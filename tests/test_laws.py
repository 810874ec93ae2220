"""The laws of the design, each as a test that bears its name. Law 7, killed and resumed, is in test_resume.py."""

import ast
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from swannery.environments import Env, EnvironmentFault, Message, Task, ToolError, Turn, make, register, reward
from swannery.environments.tools.calculator import one_step
from swannery.policies import ChatRenderer, GenerationRequest, GenerationResult, Policy, StopReason, make_engine
from swannery.rl import (
    EnvironmentPool,
    Learner,
    PolicyLoss,
    RolloutSpec,
    Sample,
    Trajectory,
    micro_batches,
    pack,
    rollout,
    total_weight,
)  # fmt: skip
from swannery.rl.algorithms.grpo import GRPO
from swannery.rl.evaluation import budget_violations
from swannery.rl.policy_loss import Streams
from swannery.rl.trajectory import Group

OURS = ("math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0")
ROOT = Path(__file__).parents[1]
Played = list[tuple[Trajectory, ...]]


def play(policy: Policy, specs: list[RolloutSpec], **renderer: Any) -> tuple[Played, list[GenerationResult]]:
    """Roll out, and keep what the engine said."""
    results: list[GenerationResult] = []

    async def run() -> Played:
        pools = {spec.env_id: EnvironmentPool(lambda spec=spec: make(spec.env_id)) for spec in specs}
        async with make_engine(policy, num_slots=32, capacity=512) as engine:
            open_session = engine.session

            def recording(order: tuple[int, ...] = ()) -> Any:
                session = open_session(order)
                generate = session.generate

                async def recorded(request: GenerationRequest) -> GenerationResult:
                    results.append(await generate(request))
                    return results[-1]

                session.generate = recorded  # type: ignore[method-assign]
                return session

            engine.session = recording  # type: ignore[method-assign]
            chat = ChatRenderer(policy.tokenizer, **renderer)
            return list(await asyncio.gather(*(rollout(pools[s.env_id], engine, chat, s) for s in specs)))

    return asyncio.run(run()), results


def specs_of(num_groups: int = 6, group_size: int = 3, **changes: Any) -> list[RolloutSpec]:
    return [
        RolloutSpec(
            **{
                "env_id": OURS[group % 3],
                "task_seed": group,
                "group": group,
                "rollout": index,
                "seed": 100 * group + index,
                "max_new_tokens": 24,
                "budget": (None, 0, 5)[group % 3] if group < 3 else 5,
                **changes,
            }
        )
        for group in range(num_groups)
        for index in range(group_size)
    ]


def samples_of(played: Played, group_size: int = 3) -> list[list[Sample]]:
    rng = np.random.default_rng(0)
    flat = [[Sample(branch, float(rng.normal())) for branch in branches] for branches in played]
    return [sum(flat[i : i + group_size], []) for i in range(0, len(flat), group_size)]


@pytest.mark.parametrize("env_id", OURS)
@pytest.mark.filterwarnings("error")
def test_law_1_true_gymnasium(env_id: str) -> None:
    check_env(gymnasium.make(env_id).unwrapped)
    for mode in (None, "sync"):
        envs = gymnasium.make_vec(env_id, 3, vectorization_mode=mode)
        observations, _ = envs.reset(seed=1)
        alone, _ = make(env_id).reset(seed=2)
        assert observations[1] == alone
        _, rewards, *_ = envs.step(["naïve 数学 🦢"] * 3)
        assert rewards.shape == (3,)
        envs.close()


def test_law_1_observations_survive_as_unicode() -> None:
    @register("test/Echo-v0", max_turns=3)
    class Echo(Env):
        def sample_task(self, rng: np.random.Generator) -> Task:
            return Task("数学 🦢 naïve")

        def respond(self, turn: Turn) -> str:
            return turn.answer

        @reward
        def zero(self, turn: Turn) -> float:
            return 0.0

    envs = gymnasium.make_vec("test/Echo-v0", 2)
    (first, _), _ = envs.reset(seed=0)
    assert first == (Message("user", "数学 🦢 naïve"),)
    (said, _), *_ = envs.step(["<|im_end|> ünïcode \u200d", "x"])
    assert said[0].text == "<|im_end|> ünïcode \u200d"


def test_law_2_token_exact(policy: Policy) -> None:
    played, results = play(policy, specs_of())
    sampled = {tuple(result.token_ids) for result in results}
    count = 0
    for branches in played:
        for branch in branches:
            completions = [segment for segment in branch.segments if segment.sampled]
            assert all(tuple(segment.token_ids.tolist()) in sampled for segment in completions)
            expected = np.concatenate([np.full(len(s.token_ids), s.sampled) & ~s.forced for s in branch.segments])
            assert np.array_equal(branch.trained, expected)
            count += int(expected.sum())
    groups = samples_of(played)
    batch = pack(groups, total_weight(s for g in groups for s in g))
    assert len(batch.targets_T) == count
    # each trained token is predicted from the token before it, in its own segment or its shared prompt's child
    ids = [sample.trajectory.token_ids for group in groups for sample in group]
    trained = [sample.trajectory.trained for group in groups for sample in group]
    assert np.array_equal(batch.targets_T, np.concatenate([i[t] for i, t in zip(ids, trained, strict=True)]))
    before = np.concatenate([np.roll(i, 1)[t] for i, t in zip(ids, trained, strict=True)])
    assert np.array_equal(batch.token_ids_N[batch.positions_T], before)


def test_law_2_where_a_template_rewrites_history_the_rollout_forks_and_nothing_is_trained_twice(policy: Policy) -> None:
    specs = [
        RolloutSpec(env_id="chat/Guess-v0", task_seed=s, rollout=s, seed=s, max_new_tokens=180, budget=3)
        for s in range(24)
    ]
    played, results = play(policy, specs, drop_past_reasoning=True)
    forked = [branches for branches in played if len(branches) > 1]
    assert forked
    for branches in forked:
        for number, branch in enumerate(branches):
            assert (branch.branch, branch.num_branches, branch.rollout) == (number, len(branches), branches[0].rollout)
            if number:
                parent = branches[branch.branch_of or 0]
                common = slice(0, branch.branch_offset)
                assert np.array_equal(branch.token_ids[common], parent.token_ids[common])
        assert 0 < sum(len(b.turns) for b in branches[:-1]) < len(branches[-1].turns)  # the last one tells all turns
    sampled = sum(int((~result.forced).sum()) for result in results)
    assert sum(branch.num_sampled for branches in played for branch in branches) == sampled
    groups = [[Sample(branch, 1.0) for branch in branches] for branches in played]
    batch = pack(groups, total_weight(s for g in groups for s in g))
    learner = Learner(policy.model, optimizer="adamw", lr=1e-3)
    logprobs = learner.logprobs(batch)[0].detach()
    assert float((logprobs - torch.from_numpy(batch.rollout_logprobs_T)).abs().max()) <= 1e-4


def test_law_3_one_policy_one_probability(policy: Policy) -> None:
    played, _ = play(policy, specs_of())
    groups = samples_of(played)
    batch = pack(groups, total_weight(s for g in groups for s in g))
    learner = Learner(policy.model, optimizer="adamw", lr=1e-3)
    logprobs, _, routes = learner.logprobs(batch)
    assert float((logprobs.detach() - torch.from_numpy(batch.rollout_logprobs_T)).abs().max()) <= 1e-4
    assert len(logprobs) > 200
    assert np.array_equal(routes.numpy(), batch.routes_NEK)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_law_4_invariance_to_micro_batch_packing_prefix_sharing_and_order(
    policy: Policy, dtype: torch.dtype, bound: float
) -> None:
    played, _ = play(policy, specs_of())
    groups = samples_of(played)
    weight = total_weight(s for g in groups for s in g)
    policy.model.to(dtype)
    learner = Learner(policy.model, optimizer="adamw", lr=1e-3)
    alone = [[sample] for group in groups for sample in group]

    def loss_and_gradient(parts: list[Any]) -> tuple[float, torch.Tensor]:
        policy.model.zero_grad()
        total = 0.0
        for part in parts:
            batch = pack(part, weight)
            logprobs, _, _ = learner.logprobs(batch)
            value = PolicyLoss({"": GRPO()})(logprobs, Streams.of(batch, dtype))
            value.backward()
            total += value.item()
        return total, torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])

    whole, gradient = loss_and_gradient([groups])
    for parts in (micro_batches(groups, 200), micro_batches(alone, 64), [alone], [groups[::-1]], [[g] for g in alone]):
        other, other_gradient = loss_and_gradient(parts)
        assert abs(whole - other) <= bound
        torch.testing.assert_close(gradient, other_gradient, rtol=0, atol=bound)


class SilentEngine:
    """Ends each completion at once."""

    policy_version, capacity = 0, 4096

    def __init__(self, end_id: int) -> None:
        self.end_id = end_id

    def session(self, order: tuple[int, ...] = ()) -> "SilentEngine":
        return self

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        one = np.zeros(1, np.float32)
        return GenerationResult(
            token_ids=[self.end_id], logprobs=one, forced=one > 0, policy_versions=one.astype(int),
            stop_reason=StopReason.STOP, routes=np.zeros((len(request.token_ids), 1, 2), np.uint8),
        )  # fmt: skip


def test_law_5_no_fabricated_reward(policy: Policy) -> None:
    @register("test/Flaky-v0")
    class Flaky(Env):
        def sample_task(self, rng: np.random.Generator) -> Task:
            return Task("Say something.", metadata={"kind": ["fine", "nan", "raises", "none"][int(rng.integers(4))]})

        @reward
        def score(self, turn: Turn) -> Any:
            kind = self.task.metadata["kind"]
            if kind == "raises":
                raise RuntimeError("the grader's disk is gone")
            return {"fine": 1.0, "nan": float("nan"), "none": None}[kind]

    specs = [RolloutSpec(env_id="test/Flaky-v0", task_seed=seed, rollout=seed, budget=0) for seed in range(24)]
    chat = ChatRenderer(policy.tokenizer)
    pool, engine = EnvironmentPool(lambda: make("test/Flaky-v0")), SilentEngine(chat.end_id)

    async def run() -> Played:
        return list(await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs)))  # type: ignore[arg-type]

    played = asyncio.run(run())
    outcomes = [branches[0].outcome for branches in played]
    kinds = {outcome.reason for outcome in outcomes if outcome.kind == "fault"}
    assert kinds == {"bad_reward", "grader_crash"}
    for branches in played:
        if branches[0].outcome.kind == "fault":
            with pytest.raises(ValueError, match="a fault has no reward"):
                _ = branches[0].reward
    whole = tuple(b for b in played if b[0].outcome.kind != "fault")
    faults = tuple(b[0].outcome.reason for b in played if b[0].outcome.kind == "fault")
    group = Group(env_id="test/Flaky-v0", task_seed=0, number=0, rollouts=whole, faults=faults)
    assert set(group.rewards) <= {0.0, 1.0} and len(group.rewards) + len(faults) == 24
    assert GRPO().score([Group(env_id="x", task_seed=0, number=0, rollouts=whole[:1])]) == []

    envs = gymnasium.make_vec("test/Flaky-v0", 8)
    envs.reset(seed=0)
    _, rewards, _, truncated, infos = envs.step(["x"] * 8)
    assert (
        np.array_equal(np.isnan(rewards), infos["_fault"])
        and truncated[infos["_fault"]].all()
        and infos["_fault"].any()
    )


def test_law_6_budget_is_law(policy: Policy) -> None:
    specs = specs_of(num_groups=24, budget=3, max_new_tokens=20)
    played, results = play(policy, specs)
    assert sum(budget_violations(branch) for branches in played for branch in branches) == 0
    assert any(result.budget_hit for result in results)
    think_end = policy.tokenizer.control["</think>"]
    for result in results:
        ids = np.array(result.token_ids)
        assert result.num_reasoning_tokens <= 3
        if result.budget_hit:
            assert think_end in ids[result.forced] and (result.logprobs[result.forced] == 0).all()
    forced = [np.concatenate([s.forced for s in b.segments]) for branches in played for b in branches]
    trained = [b.trained for branches in played for b in branches]
    assert sum(int((f & t).sum()) for f, t in zip(forced, trained, strict=True)) == 0
    assert sum(int(f.sum()) for f in forced) > 0


def test_law_8_nothing_evaluates_or_unpickles_model_text() -> None:
    banned = {"eval", "exec", "compile", "__import__"}
    attributes = {("pickle", "loads"), ("pickle", "load"), ("torch", "load"), ("yaml", "load"), ("os", "system")}
    checked = 0
    for path in ROOT.rglob("*.py"):
        if {".venv", "build", "tests"} & set(path.relative_to(ROOT).parts):
            continue
        checked += 1
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "dill", "cloudpickle", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                function = node.func
                assert not (isinstance(function, ast.Name) and function.id in banned), f"{path}:{node.lineno}"
                if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                    assert (function.value.id, function.attr) not in attributes, f"{path}:{node.lineno}"
                assert not any(k.arg == "shell" for k in node.keywords), f"{path}:{node.lineno}"
    assert checked > 40


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')",
        "9**9",
        "1+1; 2+2",
        "(1).__class__",
        "1 + 1 + 1",
        "１ + １",
        "9" * 30 + " * 2",
        "1/0",
        "",
    ],
)
def test_law_8_the_calculator_reads_and_never_evaluates(text: str) -> None:
    with pytest.raises(ToolError):
        one_step(text)


def test_law_5_a_conversation_that_outgrows_the_context_is_cut_and_a_prompt_that_does_is_left_out(
    policy: Policy,
) -> None:
    async def run(capacity: int) -> tuple[Trajectory, ...]:
        async with make_engine(policy, num_slots=16, capacity=capacity) as engine:
            pool = EnvironmentPool(lambda: make("chat/Guess-v0"))
            spec = RolloutSpec(env_id="chat/Guess-v0", task_seed=1, seed=4, max_new_tokens=60, budget=3)
            return await rollout(pool, engine, ChatRenderer(policy.tokenizer), spec)

    prompt = len(asyncio.run(run(500))[0].segments[0].token_ids)
    assert str(asyncio.run(run(prompt))[0].outcome) == "fault(prompt_too_long)"
    (cut,) = asyncio.run(run(prompt + 6))
    assert cut.outcome.kind == "truncated" and cut.reward == 0 and len(cut.token_ids) <= prompt + 6


def test_law_9_a_seed_fixes_tasks_across_processes_and_hash_seeds() -> None:
    code = (
        "import json, numpy as np; from swannery.environments import make; from swannery.rl.tasks import task_seed\n"
        f"out = []\nfor env_id in {OURS!r}:\n"
        "    env = make(env_id); out.append([task_seed(env, env_id, 'train', i, 3) for i in range(5)])\n"
        "    env.reset(seed=7); out.append([env.task.prompt, env.task.answer])\n"
        "    out.append(str(env.demonstrate(np.random.default_rng(3))))\n"
        "print(json.dumps(out))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "77")
    }
    assert len(said) == 1


def test_law_9_rollouts_do_not_depend_on_what_runs_beside_them(policy: Policy) -> None:
    together, _ = play(policy, specs_of())
    again, _ = play(policy, specs_of())
    for one, two in zip(together, again, strict=True):
        assert all(np.array_equal(a.token_ids, b.token_ids) for a, b in zip(one, two, strict=True))
        assert all(np.array_equal(a.logprobs, b.logprobs) for a, b in zip(one, two, strict=True))


def test_law_10_a_fault_in_reset_is_told_with_its_cause() -> None:
    @register("test/Broken-v0")
    class Broken(Env):
        def sample_task(self, rng: np.random.Generator) -> Task:
            return Task("x")

        def respond(self, turn: Turn) -> str:
            raise KeyError("order")

        @reward
        def zero(self, turn: Turn) -> float:
            return 0.0

    env = make("test/Broken-v0")
    env.reset(seed=0)
    with pytest.raises(EnvironmentFault, match="respond raised KeyError"):
        env.step("hello")
    assert env.outcome is not None and env.outcome.kind == "fault"


def run_cli(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swannery", *arguments],
        cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


BAD = {
    "unknown verb": (["trian"], "", "Did you mean 'train'?"),
    "unknown environment": (["train", "c.toml"], '[[environments]]\nid = "math/Arithmatic-v0"', "Did you mean 'math/Arithmetic-v0'?"),
    "misspelt key": (["train", "c.toml"], '[[environments]]\nid = "chat/Guess-v0"\n[rl]\ngruop_size = 3', "Did you mean 'group_size'?"),
    "misspelt option": (["train", "quickstart", "--rl.gruop-size", "3"], "", "group-size"),
    "wrong type": (["train", "c.toml"], '[[environments]]\nid = "chat/Guess-v0"\n[sft]\nsteps = "many"', "sft.steps"),
    "not finite": (["train", "c.toml"], '[[environments]]\nid = "chat/Guess-v0"\n[sft]\nlearning_rate = nan', "sft.learning_rate"),
    "group of one": (["train", "quickstart", "--rl.group-size", "1"], "", "group_size must be at least 2"),
    "budget too large": (["train", "quickstart", "--environments.0.reasoning-budgets", "4000"], "", "the reasoning budget 4000"),
    "context too small": (["train", "quickstart", "--generation.context-size", "64"], "", "must be below generation.context_size"),
    "misspelt environment option": (
        ["train", "c.toml"],
        '[[environments]]\nid = "math/Arithmetic-v0"\noptions = { levle = 2 }',
        "Did you mean 'level'?",
    ),
    "bad environment option": (
        ["train", "c.toml"],
        '[[environments]]\nid = "math/Arithmetic-v0"\noptions = { level = 0 }',
        "level of 1 to 9",
    ),
    "no demonstrator": (
        ["train", "c.toml"],
        '[[environments]]\nid = "reasoning_gym/rubiks_cube-v0"',
        "has no demonstrator",
    ),
    "no policy folder": (["train", "quickstart", "--policy.folder", "nowhere"], "", "no folder nowhere"),
    "no such file": (["train", "quickstrat.toml"], "", "Did you mean 'quickstart'?"),
    "no such run": (["train", "--resume", "nowhere"], "", "is no run folder"),
    "broken TOML": (["train", "c.toml"], "name = ", "is no TOML"),
    "no such policy": (["eval", "nowhere"], "", "no folder nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_law_10_a_mistake_gets_one_message_and_exit_code_2(case: str, tmp_path: Path) -> None:
    arguments, config, expected = BAD[case]
    (tmp_path / "c.toml").write_text(config)
    done = run_cli(*arguments, cwd=tmp_path)
    said = " ".join((done.stderr + done.stdout).replace("│", " ").split())
    assert done.returncode == 2, said
    assert expected in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()  # refused before anything starts


def test_law_10_a_run_folder_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    done = run_cli("train", "quickstart", "--output", "mine", cwd=tmp_path)
    assert done.returncode == 2 and "exists" in done.stderr and "--resume" in done.stderr
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_law_10_json_comes_last_off_a_terminal(tmp_path: Path) -> None:
    done = run_cli(
        "train", "quickstart", "--policy.preset", "tiny-100k", "--policy.vocab-size", "320", "--sft.steps", "1",
        "--rl.steps", "0", "--evaluation.num-tasks", "1", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run"] == "runs/quickstart-001"
