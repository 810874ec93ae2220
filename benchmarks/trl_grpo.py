"""A whole GRPO step beside TRL's: 8 prompts x 8 rollouts of one environment, one optimizer step, in one process.

    python benchmarks/trl_grpo.py [--steps 3] [--peers llama,active,hybrid] [--lengths full,drawn]

Ours is tiny-1m, TRL's GRPOTrainer has, in turn, `llama`: a Llama of as many parameters; `active`: one of as many as tiny-1m uses for a
token; `hybrid`: tiny-1m's own layers, as transformers' NemotronH (its path without CUDA). Completions have 128 tokens each (`full`), or
lengths that are drawn (`drawn`: log-normal, median 48, sigma 0.7, at most 128), the same on both sides: ours is given each one's limit,
TRL's generation ends a row there with its end token, which no row may sample before.

Both: fp32, one thread, the same tasks, tokenizer, chat template, temperature, rate of learning and settings of the process. TRL takes
one batch of 64 to generate, SDPA, a cache, no checkpointing of gradients, and the fastest of three sizes of batch to train on; it does not
rescore (its steps are on policy), nor do we by default: what a pass of rescoring adds to ours stands apart. Episodes are played and graded
on both sides; as an untrained policy earns nothing, and we would leave out groups that agree, ours are then given drawn rewards, so
that every token is trained. CPU time, the best of the steps after a first one. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import report
from torch import Tensor

from swannery.environments import make
from swannery.policies import ChatRenderer, HybridModel, NativeEngine, Tokenizer, preset, reasoning_tokens
from swannery.rl import EnvironmentPool, Group, Learner, PolicyLoss, RolloutSpec, Trajectory, load_config, rollout
from swannery.rl.process import prepare
from swannery.rl.tasks import task_seed
from swannery.rl.trl import Episodes, chat_tokenizer
from swannery.rl.update import PolicyUpdate

BARS = {
    "full_ours_over_trl_llama": (">=", 3.0), "drawn_ours_over_trl_llama": (">=", 3.0), "full_ours_share_of_wall": (">=", 0.85),
    "drawn_ours_share_of_wall": (">=", 0.85),
}  # fmt: skip
ENV_ID, PROMPTS, GROUP, NEW, LR = "math/Arithmetic-v0", 8, 8, 128, 3e-4
CONFIG = {"name": "benchmark", "environments": [{"id": ENV_ID}], "rl": {"updates_per_step": 1}}
LAYERS = {"llama": (5, 328), "active": (3, 288)}
"""How many layers, and how wide their MLPs."""
TRAIN_BATCHES = (64, 16, 8)


def lengths_of(kind: str) -> list[int]:
    """The length of each completion."""
    if kind == "full":
        return [NEW] * (PROMPTS * GROUP)
    drawn = np.exp(np.random.default_rng(0).normal(np.log(48), 0.7, PROMPTS * GROUP))
    return np.clip(drawn, 2, NEW).astype(int).tolist()


class Clock:
    """CPU seconds of a step's parts, of the best step."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {"step": float("inf")}
        self.now: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.now[name] += time.process_time() - start

    def end_step(self, counts: bool) -> None:
        if counts and self.now["step"] < self.best["step"]:
            self.best = dict(self.now)
        self.now.clear()

    def figures(self, name: str, tokens: int) -> dict[str, float]:
        parts = {f"{name}_{part}_cpu_s": seconds for part, seconds in self.best.items()}
        return {**parts, f"{name}_us_per_token": self.best["step"] / tokens * 1e6}


def ours(tokenizer: Any, lengths: Sequence[int], steps: int) -> dict[str, float]:
    chat = ChatRenderer(Tokenizer(tokenizer.backend_tokenizer))
    model = HybridModel(preset("tiny-1m", vocab_size=len(tokenizer)), seed=1)
    learner, config = Learner(model, optimizer="adamw", lr=LR), load_config(CONFIG)
    update, loss = PolicyUpdate(config, learner), PolicyLoss(config.algorithms, config.correction, config.kl)
    clock, shares, drawn = Clock(), [], np.random.default_rng(0)
    pool, env = EnvironmentPool(lambda: make(ENV_ID)), make(ENV_ID)
    seeds = [task_seed(env, ENV_ID, "train", number, 0) for number in range(PROMPTS)]

    async def play(engine: NativeEngine, step: int) -> list[Group]:
        numbered = [divmod(number, GROUP) for number in range(PROMPTS * GROUP)]
        specs = [
            RolloutSpec(env_id=ENV_ID, task_seed=seeds[g], group=g, rollout=r, seed=(step << 8 | g) << 8 | r, max_new_tokens=most)
            for (g, r), most in zip(numbered, lengths, strict=True)
        ]  # fmt: skip
        played = await asyncio.gather(*(rollout(pool, engine, chat, spec) for spec in specs))
        rewarded = [(with_reward(branches[0], float(drawn.random())),) for branches in played]
        return [Group.of(ENV_ID, seeds[g], g, rewarded[g * GROUP : (g + 1) * GROUP]) for g in range(PROMPTS)]

    async def run() -> None:
        marks = reasoning_tokens(chat, model.config.vocab_size)
        async with NativeEngine(model, stop_ids=(), reasoning_tokens=marks, num_slots=64, capacity=512) as engine:
            for step in range(steps + 1):
                began, in_model = time.perf_counter(), engine.metrics.model_s
                with clock.part("step"):
                    with clock.part("generation"):  # with rendering, parsing, stepping and grading
                        groups = await play(engine, step)
                    with clock.part("scoring"):
                        batches = update.pack(update.score(groups))
                    with clock.part("update"):
                        learning = time.perf_counter()
                        metrics = learner.step(batches, loss)
                        learning = time.perf_counter() - learning
                        engine.load_weights(model.state_dict(), step + 1)
                if step:
                    shares.append((engine.metrics.model_s - in_model + learning) / (time.perf_counter() - began))
                with clock.part("rescoring"):
                    for batch in batches:
                        learner.score(batch)
                assert metrics.num_trained_tokens == sum(lengths), metrics
                clock.end_step(step > 0)

    asyncio.run(run())
    pool.close()
    return {**clock.figures("ours", sum(lengths)), "ours_share_of_wall": float(np.median(shares))}


def with_reward(played: Trajectory, value: float) -> Trajectory:
    return replace(played, turns=(replace(played.turns[0], rewards={"drawn": value}),))


def peer(name: str, tokenizer: Any) -> Any:
    """TRL's model, made from scratch."""
    from transformers import LlamaConfig, LlamaForCausalLM, NemotronHConfig, NemotronHForCausalLM

    from swannery.policies.huggingface import config_to_nemotron_h

    torch.manual_seed(1)
    marks = {f"{mark}_token_id": getattr(tokenizer, f"{mark}_token_id") for mark in ("bos", "eos", "pad")}
    if name == "hybrid":
        shape = config_to_nemotron_h(preset("tiny-1m", vocab_size=len(tokenizer)))
        return NemotronHForCausalLM(NemotronHConfig(**{**shape, **marks}))
    layers, width = LAYERS[name]
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=width, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=False, **marks,
        )
    )  # fmt: skip


def end_at(lengths: Sequence[int], end_id: int, prompt: int, ids: Tensor, logits: Tensor) -> Tensor:
    """A logits processor: each row ends at its length, with `end_id`, and not before."""
    last = torch.tensor(lengths) <= ids.shape[1] - prompt + 1
    logits[:, end_id] = -torch.inf
    logits[last] = -torch.inf
    logits[last, end_id] = 0.0
    return logits


def trl_clock(name: str, tokenizer: Any, lengths: Sequence[int], batch: int, steps: int) -> Clock:
    """GRPOTrainer's steps, training on `batch` rollouts at a time."""
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]

    clock, episodes, model = Clock(), Episodes(ENV_ID, tokenizer), peer(name, tokenizer)
    if min(lengths) < NEW:
        generate = model.generate

        def ending(input_ids: Tensor, **options: Any) -> Any:
            process = partial(end_at, lengths, tokenizer.eos_token_id, input_ids.shape[1])
            return generate(input_ids=input_ids, logits_processor=[process], **options)

        model.generate = ending

    class Timed(GRPOTrainer):
        def _generate(self, *args: Any) -> Any:  # type: ignore[override]
            with clock.part("generation"):
                found = super()._generate(*args)
            assert [len(ids) for ids in found[1]] == list(lengths)
            return found

        def _generate_and_score_completions(self, *args: Any) -> Any:  # type: ignore[override]
            with clock.part("rollout"):
                return super()._generate_and_score_completions(*args)

    class Steps(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.process_time()

        def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            now = clock.now
            now["step"] = time.process_time() - self.start
            rolled = now.pop("rollout")
            now["scoring"], now["update"] = rolled - now["generation"], now["step"] - rolled
            clock.end_step(state.global_step > 1)

    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(
            output_dir=folder, max_steps=steps + 1, learning_rate=LR, lr_scheduler_type="constant", num_generations=GROUP, use_cpu=True,
            per_device_train_batch_size=batch, gradient_accumulation_steps=PROMPTS * GROUP // batch, max_completion_length=NEW,
            num_iterations=1, temperature=1.0, top_k=0, top_p=1.0, beta=0.0, bf16=False, gradient_checkpointing=False, report_to="none",
            generation_kwargs={"min_new_tokens": NEW} if min(lengths) == NEW else {}, save_strategy="no", logging_strategy="no",
        )  # fmt: skip
        scored: Any = episodes.reward
        trainer = Timed(
            model, scored, args=args, train_dataset=episodes.dataset(PROMPTS), processing_class=tokenizer, callbacks=[Steps()]
        )  # fmt: skip
        trainer.train()
    episodes.close()
    return clock


def trl_figures(name: str, tokenizer: Any, lengths: Sequence[int], steps: int) -> dict[str, float]:
    clocks = {batch: trl_clock(name, tokenizer, lengths, batch, steps) for batch in TRAIN_BATCHES}
    batch, clock = min(clocks.items(), key=lambda found: found[1].best["step"])
    return {f"trl_{name}_train_batch": batch, **clock.figures(f"trl_{name}", sum(lengths))}


def figures_of(kind: str, tokenizer: Any, peers: Sequence[str], steps: int) -> dict[str, float]:
    lengths = lengths_of(kind)
    figures: dict[str, float] = {"tokens": sum(lengths), **ours(tokenizer, lengths, steps)}
    for name in peers:
        print(f"{kind}: {name} ...", file=sys.stderr, flush=True)
        figures |= trl_figures(name, tokenizer, lengths, steps)
    again = ours(tokenizer, lengths, steps)  # others' work on the machine comes and goes
    if again["ours_step_cpu_s"] < figures["ours_step_cpu_s"]:
        figures |= again
    with_rescoring = 1 + figures["ours_rescoring_cpu_s"] / figures["ours_step_cpu_s"]
    for name in peers:
        figures[f"ours_over_trl_{name}"] = figures[f"trl_{name}_step_cpu_s"] / figures["ours_step_cpu_s"]
        figures[f"ours_with_rescoring_over_trl_{name}"] = figures[f"ours_over_trl_{name}"] / with_rescoring
    return {f"{kind}_{name}": value for name, value in figures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after a first one")
    parser.add_argument("--peers", default="llama,active,hybrid", help="TRL's models, with commas between")
    parser.add_argument("--lengths", default="full,drawn", help="of completions, with commas between")
    options = parser.parse_args(arguments)
    prepare(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    tokenizer, peers = chat_tokenizer("banking/Support-v0", 512, 60), options.peers.split(",")
    figures: dict[str, float] = {"vocabulary": len(tokenizer)}
    models = {"ours": HybridModel(preset("tiny-1m", vocab_size=len(tokenizer)), seed=1)}
    for name, model in (models | {f"trl_{name}": peer(name, tokenizer) for name in peers}).items():
        figures[f"{name}_parameters"] = sum(p.numel() for p in model.parameters())
    for kind in options.lengths.split(","):
        figures |= figures_of(kind, tokenizer, peers, options.steps)
    report("trl_grpo", figures, BARS)


if __name__ == "__main__":
    main()
