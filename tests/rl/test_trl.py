"""The door to TRL: rewards are the runner's, faults have none, what the policy did not sample is not trained, a step runs."""

from __future__ import annotations

import asyncio
import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pytest
import torch

from swannery.environments import Env, Task, Turn, make, register, reward
from swannery.policies import TransformersPolicy, make_engine
from swannery.policies.sampling import stream_seed
from swannery.rl import EnvironmentPool, RolloutSpec, rollout
from swannery.rl.trl import SEED, Episodes, chat_tokenizer

pytest.importorskip("trl")

EASY: dict[str, Any] = {"operations": ("add",), "level": 1}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return chat_tokenizer("math/Arithmetic-v0", 320, 30, **EASY)


def tiny_llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    marks = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=None, **sizes, **marks))


def prompts_of(*seeds: int) -> list[Any]:
    return [[{"role": "user", "content": "?", SEED: seed}] for seed in seeds]


class Trainer:
    """As much of a GRPOTrainer as a rollout function sees."""

    def __init__(self, model: Any, max_completion_length: int = 12) -> None:
        self.model = model
        self.accelerator = Namespace(unwrap_model=lambda model: model, process_index=0)
        self.args = Namespace(seed=0, temperature=1.0, top_k=0, top_p=1.0, max_completion_length=max_completion_length)


@register("test/Moody-v0")
class Moody(Env):
    """Its grader breaks on all words but one."""

    def task(self, rng: np.random.Generator) -> Task:
        return Task(f"Say a word, number {rng.integers(10**6)}.", "fine")

    @reward
    def said(self, turn: Turn) -> float:
        return 0.25 if turn.answer == self.task.answer else float("nan")


def test_rewards_are_the_runners(tokenizer: Any) -> None:
    episodes = Episodes("math/Arithmetic-v0", tokenizer, **EASY)
    renderer, env = episodes.renderer, make("math/Arithmetic-v0", **EASY)
    prompts, completions, expected = [], [], []
    for seed in range(12):
        env.reset(seed=seed)
        ids = renderer.completion(env.demonstrate(np.random.default_rng(seed)))
        ids = ids[: len(ids) - seed % 3]  # some run out of tokens
        prompts += prompts_of(seed)
        completions.append(ids)
        turn = renderer.parse(ids)
        expected.append(env.step(turn)[1])
    assert asyncio.run(episodes.reward(prompts, completions)) == expected
    assert {0.0, 1.0} == set(expected)


def test_a_fault_has_no_reward(tokenizer: Any) -> None:
    episodes = Episodes("test/Moody-v0", tokenizer)
    completions = [episodes.renderer.completion(Turn(word, reasoning="")) for word in ("fine", "broken", "fine")]
    logged: dict[str, float] = {}
    got = asyncio.run(episodes.reward(prompts_of(1, 2, 3), completions, log_metric=logged.__setitem__))
    assert got == [0.25, None, 0.25]
    assert logged == {"faults": pytest.approx(1 / 3), "forked": 0}


def test_a_faulted_rollout_trains_nothing(tokenizer: Any) -> None:
    out = Episodes("test/Moody-v0", tokenizer).rollout(prompts_of(1), Trainer(tiny_llama(tokenizer)))
    assert out["episode_reward"] == [None] and out["env_mask"] == [[0]]


def test_rollouts_of_many_turns_are_the_runners_and_mask_what_was_not_sampled(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer).train()
    before = model.config._attn_implementation
    episodes = Episodes("chat/Guess-v0", tokenizer)
    out = episodes.rollout(prompts_of(*range(6)), Trainer(model))
    assert model.training and model.config._attn_implementation == before
    again = Episodes("chat/Guess-v0", tokenizer).rollout(prompts_of(*range(6)), Trainer(model))
    assert out == again  # a seed fixes it
    for seed, ids, mask, value in zip(
        range(6), out["completion_ids"], out["env_mask"], out["episode_reward"], strict=True
    ):
        assert len(ids) == len(mask)
        turns = np.split(np.array(ids), np.flatnonzero(np.diff(mask)) + 1)[::2]  # policy, environment, policy ...
        env = make("chat/Guess-v0")
        env.reset(seed=seed)
        total = 0.0
        for turn in turns:
            read = episodes.renderer.parse(turn.tolist())
            total += env.step(read)[1]
        assert env.outcome is not None and value == total
    rewards = asyncio.run(
        episodes.reward(prompts_of(*range(6)), out["completion_ids"], episode_reward=out["episode_reward"])
    )
    assert rewards == out["episode_reward"]


def test_the_rollout_equals_our_own(tokenizer: Any) -> None:
    model = tiny_llama(tokenizer)
    episodes = Episodes("math/Arithmetic-v0", tokenizer, **EASY)
    out = episodes.rollout(prompts_of(5), Trainer(model))

    async def ours() -> Any:
        policy = TransformersPolicy(model, tokenizer)
        pool = EnvironmentPool(lambda: make("math/Arithmetic-v0", **EASY))
        async with make_engine(policy, num_slots=1, capacity=256) as engine:
            seed = stream_seed(0, 1, 0, 0)
            spec = RolloutSpec(env_id="math/Arithmetic-v0", task_seed=5, seed=seed, max_new_tokens=12)
            return (await rollout(pool, engine, episodes.renderer, spec))[0]

    one = asyncio.run(ours())
    assert [*out["prompt_ids"][0], *out["completion_ids"][0]] == one.token_ids.tolist()
    assert out["episode_reward"] == [one.reward]


def test_what_cannot_be_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"rollout_func=episodes\.rollout"):
        asyncio.run(Episodes("tools/Calculator-v0", tokenizer).reward(prompts_of(1), [[5]]))
    with pytest.raises(ValueError, match=r"episodes\.dataset"):
        asyncio.run(Episodes("math/Arithmetic-v0", tokenizer).reward(["What is 1 + 1?"], [[5]]))


@pytest.mark.parametrize("env_id", ["math/Arithmetic-v0", "tools/Calculator-v0"])
def test_grpo_trainer_takes_a_step(env_id: str, tokenizer: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import GRPOConfig, GRPOTrainer

        episodes, model = Episodes(env_id, tokenizer), tiny_llama(tokenizer)
        args = GRPOConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=8, num_generations=4, max_completion_length=8,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=1,
            scale_rewards="none", disable_tqdm=True, top_k=0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model, episodes.reward, args=args, train_dataset=episodes.dataset(4), processing_class=tokenizer,
            rollout_func=None if episodes.single_turn else episodes.rollout,
        )  # fmt: skip
        trainer.train()
    assert "faults" in trainer.state.log_history[0]
    assert 0 <= trainer.state.log_history[0]["rewards/reward/mean"] <= 1


def test_the_example_runs(tmp_path: Path) -> None:
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "trl_grpo.py"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rewards = example["main"](str(tmp_path), sft_steps=2, grpo_steps=2)
    assert len(rewards) == 2 and all(0 <= value <= 1 for value in rewards)
