"""Splits share no prompt; demonstrations are what they say."""

import numpy as np
import pytest

from swannery.environments import make
from swannery.policies import ChatRenderer, Tokenizer
from swannery.rl import Sample, demonstrate, micro_batches, pack, total_weight
from swannery.rl.tasks import SPLITS, split_of, task_seed


def test_splits_share_no_prompt_and_test_tasks_do_not_depend_on_the_run() -> None:
    env = make("math/Arithmetic-v0", level=1)
    prompts = {split: set() for split in SPLITS}
    for split in SPLITS:
        for number in range(80):
            env.reset(seed=task_seed(env, "math/Arithmetic-v0", split, number, run_seed=number % 2))
            assert split_of(env) == split
            prompts[split].add(env.task.prompt)
    assert not prompts["train"] & prompts["test"] and not prompts["train"] & prompts["validation"]
    assert task_seed(env, "x", "test", 3, run_seed=0) == task_seed(env, "x", "test", 3, run_seed=9)
    assert task_seed(env, "x", "train", 3, run_seed=0) != task_seed(env, "x", "train", 3, run_seed=9)


@pytest.mark.parametrize("env_id", ["math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0"])
def test_a_demonstration_is_the_conversation_as_it_would_be_rendered(tokenizer: Tokenizer, env_id: str) -> None:
    env, chat = make(env_id), ChatRenderer(tokenizer)
    for seed in range(20):
        played = demonstrate(env, env_id, seed, chat, by="oracle", budgets=(None,))
        assert played.reward == 1.0
        ids = played.token_ids.tolist()
        tools = [tool.schema for tool in env.tools.values()]
        through = [*chat.open([m if m.role != "assistant" else m for m in played.messages[:-1]], tools)]
        assert ids[: len(through)] == through or env_id == "tools/Calculator-v0"
        assert played.trained.sum() == sum(len(s.token_ids) for s in played.segments if s.sampled)


def test_cut_reasoning_is_closed_by_tokens_that_are_not_trained(tokenizer: Tokenizer) -> None:
    env, chat = make("math/Arithmetic-v0"), ChatRenderer(tokenizer)
    played = [
        demonstrate(env, "math/Arithmetic-v0", s, chat, by="oracle", budgets=(8,), cut_share=1.0) for s in range(20)
    ]
    for trajectory in played:
        (completion,) = [s for s in trajectory.segments if s.sampled]
        assert tokenizer.decode(completion.token_ids[completion.forced].tolist()) == "\n</think>\n"
        assert chat.parse(completion.token_ids.tolist()).answer == env_answer(trajectory.task_seed)


def env_answer(seed: int) -> str:
    env = make("math/Arithmetic-v0")
    env.reset(seed=seed)
    return env.task.answer


def test_a_prompt_that_samples_share_is_packed_once(tokenizer: Tokenizer) -> None:
    env, chat = make("math/Arithmetic-v0"), ChatRenderer(tokenizer)
    group = [Sample(demonstrate(env, "a", 5, chat, take=take), 1.0) for take in range(4)]
    alone = [[sample] for sample in group]
    together = pack([group], total_weight(group), with_routes=False)
    apart = pack(alone, total_weight(group), with_routes=False)
    prompt = len(group[0].trajectory.segments[0].token_ids)
    assert len(apart.token_ids_N) - len(together.token_ids_N) == 3 * (prompt - 1)
    assert np.array_equal(apart.targets_T, together.targets_T)
    assert sum(len(b) for b in micro_batches(alone, 60)) == 4 and len(micro_batches(alone, 60)) > 1
