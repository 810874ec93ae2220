"""One environment for TRL's GRPOTrainer: the prompts of its tasks, the rewards of completions, and rollouts of many turns.

    GRPOTrainer(model, episodes.reward, train_dataset=episodes.dataset(512), ...)       # TRL generates; one turn
    GRPOTrainer(..., rollout_func=episodes.rollout)                                     # our engine and runner; any environment

Either way it is the runner (runner.py) that plays: a completion that TRL sampled is given to it by an engine which says just that. So
tokens are parsed as in our own training, a fault is retried and then has no reward (None, which TRL leaves out of its baseline),
and never 0. TRL's tools and `environment_factory` are not used: they would parse text, keep no deadlines, and score what faulted.

Source: TRL 1.16, `GRPOTrainer` (`reward_funcs`, the experimental `rollout_func`). Nothing here imports it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers

from ..environments import Env
from ..environments import make as make_by_id
from ..messages import Message
from ..policies.engine import GenerationRequest, GenerationResult, StopReason
from ..policies.nemotron_template import CHAT_TEMPLATE
from ..policies.rendering import ChatRenderer, Renderer, TemplateRenderer
from ..policies.sampling import stream_seed
from ..policies.serving import reasoning_tokens
from ..policies.tokenizer import Tokenizer
from .demonstrations import demonstrate, training_text
from .runner import EnvironmentPool, RolloutSpec, rollout
from .tasks import Split, task_seed
from .trajectory import Trajectory

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-not-found]

MOST_SLOTS = 64
SEED = "task_seed"
"""The key of a prompt's messages that says which task it is: TRL hands a `rollout_func` the messages and nothing else."""


class Episodes:
    """Episodes of one environment (its id, and keywords of its constructor) for a GRPOTrainer with this tokenizer.

    `tokenizer` is the trainer's `processing_class`: a fast tokenizer with a chat template. `context_size` is how many tokens one
    conversation of `rollout` may have.
    """

    def __init__(self, env_id: str, tokenizer: Any, *, context_size: int = 1024, **options: Any) -> None:
        self.env_id, self.tokenizer, self.context_size = env_id, tokenizer, context_size
        self.renderer = _renderer(tokenizer)
        self.pool = EnvironmentPool(lambda: make_by_id(env_id, **options))
        self.num_calls = 0
        env = self.pool.take()
        self.single_turn = not (env.tool_schemas or env.responds or type(env).user is not None)
        self.pool.give_back(env)

    def close(self) -> None:
        self.pool.close()

    def dataset(self, num_tasks: int, *, split: Split = "train", seed: int = 0) -> Dataset:
        """Tasks of a split (tasks.py) as TRL's conversational prompts: a column "prompt" of messages with role, content and seed."""
        from datasets import Dataset  # type: ignore[import-not-found]

        env = self.pool.take()
        seeds = [task_seed(env, self.env_id, split, number, seed) for number in range(num_tasks)]
        rows = [{"prompt": _prompt(env, one)} for one in seeds]
        self.pool.give_back(env)
        return Dataset.from_list(rows)

    def demonstrations(self, num_tasks: int, *, seed: int = 0) -> Dataset:
        """Episodes of the environment's demonstrator for TRL's SFTTrainer, as it takes them without tokenizing anything: columns
        "input_ids" and "completion_mask", which is 1 on the demonstrator's tokens. A warm start for a policy that earns nothing yet."""
        from datasets import Dataset  # type: ignore[import-not-found]

        env = self.pool.take()
        played = [
            demonstrate(env, self.env_id, task_seed(env, self.env_id, "train", number, seed), self.renderer)
            for number in range(num_tasks)
        ]
        self.pool.give_back(env)
        return Dataset.from_list(
            [
                {"input_ids": one.token_ids.tolist(), "completion_mask": one.trained.astype(int).tolist()}
                for one in played
            ]
        )

    async def reward(
        self, prompts: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float | None]:
        """TRL's reward function: each completion's reward, None where its episode ended in a fault. Of `rollout`'s episodes the
        rewards are known; ValueError where an environment would go on after the one turn that TRL generated."""
        rewards: list[float | None]
        if "episode_reward" in columns:
            rewards = list(columns["episode_reward"])
        elif not self.single_turn:
            raise ValueError(
                f"{self.env_id} has tools or a user, and TRL generates one turn: pass rollout_func=episodes.rollout to GRPOTrainer"
            )
        else:
            rewards = await asyncio.gather(
                *(self._reward_of(*one) for one in zip(prompts, completion_ids, strict=True))
            )
        if "log_metric" in columns:
            columns["log_metric"]("faults", sum(reward is None for reward in rewards) / len(rewards))
            columns["log_metric"]("forked", sum(columns.get("episode_forked", ())) / len(rewards))
        return rewards

    async def _reward_of(self, prompt: Any, ids: Sequence[int]) -> float | None:
        engine: Any = _Said(list(ids), self.renderer.stop_ids)
        return _reward(await rollout(self.pool, engine, self.renderer, self._spec(prompt)))

    def rollout(self, prompts: Sequence[Any], trainer: Any) -> dict[str, list[Any]]:
        """TRL's `rollout_func`: one episode for each prompt, generated by the trainer's model behind our engine. A row's completion is
        all that came after the prompt; `env_mask` is 1 where the policy sampled.

        TRL trains one sequence a rollout. Where the chat template changed what was said (it drops old reasoning, say), the episode has
        several: the one with the most sampled tokens is trained, and the metric `forked` tells the share of such episodes."""
        self.num_calls += 1
        model = trainer.accelerator.unwrap_model(trainer.model)
        before, training = model.config._attn_implementation, model.training
        try:
            played = asyncio.run(self._play(model, prompts, trainer.args, trainer.accelerator.process_index))
        finally:  # the model is the trainer's again
            model.set_attn_implementation(before)
            model.train(training)
        return _columns([self._row(prompt, branches) for prompt, branches in zip(prompts, played, strict=True)])

    async def _play(self, model: Any, prompts: Sequence[Any], args: Any, rank: int) -> list[tuple[Trajectory, ...]]:
        from ..policies.transformers_engine import TransformersEngine

        settings = {
            "stop_ids": self.renderer.stop_ids,
            "num_slots": min(len(prompts), MOST_SLOTS),
            "capacity": self.context_size,
        }
        marks = reasoning_tokens(self.renderer, model.config.vocab_size)
        async with TransformersEngine(model, reasoning_tokens=marks, synchronous=True, **settings) as engine:
            specs = [
                self._spec(
                    prompt,
                    rollout=number,
                    seed=stream_seed(args.seed, self.num_calls, rank, number),
                    temperature=args.temperature,
                    top_k=args.top_k or 0,
                    top_p=args.top_p,
                    max_new_tokens=args.max_completion_length,
                )
                for number, prompt in enumerate(prompts)
            ]
            return list(await asyncio.gather(*(rollout(self.pool, engine, self.renderer, spec) for spec in specs)))

    def _spec(self, prompt: Any, **settings: Any) -> RolloutSpec:
        if not isinstance(prompt, list) or not prompt or SEED not in prompt[0]:
            raise ValueError(
                f"a prompt of {self.env_id} must say its task: take the trainer's dataset from episodes.dataset(...)"
            )
        return RolloutSpec(env_id=self.env_id, task_seed=prompt[0][SEED], **settings)

    def _row(self, prompt: Any, branches: tuple[Trajectory, ...]) -> dict[str, Any]:
        reward = _reward(branches)
        if (
            reward is None
        ):  # TRL wants a row all the same; with no reward and no token of the policy's it trains nothing
            ids = self.renderer.open([Message(message["role"], message["content"]) for message in prompt])
            return {"prompt_ids": ids, "completion_ids": [self.renderer.stop_ids[0]], "logprobs": [0.0], "env_mask": [0],
                    "episode_reward": None, "episode_forked": False}  # fmt: skip
        one = max(branches, key=lambda branch: branch.num_sampled)
        start = len(one.segments[0].token_ids)
        return {
            "prompt_ids": one.token_ids[:start].tolist(),
            "completion_ids": one.token_ids[start:].tolist(),
            "logprobs": one.logprobs[start:].tolist(),
            "env_mask": one.trained[start:].astype(int).tolist(),
            "episode_reward": reward,
            "episode_forked": len(branches) > 1,
        }


def chat_tokenizer(env_id: str, vocab_size: int = 512, num_episodes: int = 300, **options: Any) -> Any:
    """A transformers tokenizer that needs no download: trained on an environment's own demonstrations (policies/tokenizer.py), with our
    chat template."""
    from transformers import PreTrainedTokenizerFast

    env = make_by_id(env_id, **options)
    trained = Tokenizer.train(training_text({env_id: env}, num_episodes), vocab_size)
    env.close()
    marks = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=trained.backend, chat_template=CHAT_TEMPLATE, padding_side="left", **marks
    )


class _Said:
    """An engine and its one session: it says a completion that was sampled elsewhere."""

    capacity, policy_version = 1 << 30, 0

    def __init__(self, ids: list[int], stop_ids: Sequence[int]) -> None:
        self.ids, self.stopped = ids, bool(ids) and ids[-1] in stop_ids

    def session(self, order: tuple[int, ...] = ()) -> _Said:
        return self

    def close(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> GenerationResult:
        count = len(self.ids)
        return GenerationResult(
            token_ids=self.ids, logprobs=np.zeros(count, np.float32), forced=np.zeros(count, bool),
            policy_versions=np.zeros(count, np.int32), stop_reason=StopReason.STOP if self.stopped else StopReason.LENGTH,
        )  # fmt: skip


def _renderer(tokenizer: Any) -> Renderer:
    """Ours for our own template: it goes on from what was sampled, whatever that was. Any other template decides itself."""
    if tokenizer.chat_template == CHAT_TEMPLATE:
        own = tokenizers.Tokenizer.from_str(
            tokenizer.backend_tokenizer.to_str()
        )  # transformers changes its own as it encodes
        return ChatRenderer(Tokenizer(own))
    return TemplateRenderer(tokenizer)


def _prompt(env: Env, seed: int) -> list[dict[str, Any]]:
    messages, _ = env.reset(seed=seed)
    return [{"role": message.role, "content": message.text, SEED: seed} for message in messages]


def _reward(branches: Sequence[Trajectory]) -> float | None:
    """The episode's reward; None where it ended in a fault."""
    return None if branches[-1].outcome.kind == "fault" else branches[-1].reward


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
