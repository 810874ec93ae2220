"""Hybrid against transformer: decoding by context, whole generations, prefill and training, and the law that predicts them.

    python benchmarks/policy.py [--only decode,generate,...] [--threads 1]

Pairs have equal parameters (within 5 %), the same experts, vocabulary, head and precision: only the mixers differ. Ratios are of CPU
time in one run. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from measure import cpu_s, report

from swannery.kernels.packing import Packing
from swannery.policies import GenerationRequest, HybridConfig, HybridModel, NativeEngine, preset
from swannery.policies.calculator import count_parameters, crossover, state_bytes
from swannery.policies.native import HybridDecoder
from swannery.rl.learner import Learner, RouterTraining
from swannery.rl.process import prepare

BARS = {
    "decode_1024_over_transformer": (">=", 1.3), "decode_4096_over_transformer": (">=", 2.1),
    "decode_16384_over_transformer": (">=", 4.0), "decode_16384_over_windows": (">=", 1.5),
    "generate_8k_16k_over_transformer": (">=", 3.3), "generate_1k_2k_over_transformer": (">=", 1.6),
    "crossover_over_predicted": ("<=", 2.0), "crossover_under_predicted": (">=", 0.5), "train_tiny_6m_cpu_s": ("<=", 2.3),
    "rescoring_replayed_max_difference": ("<=", 1e-4), "rescoring_replayed_flips": ("<=", 0),
}  # fmt: skip

SHARED: dict[str, Any] = dict(
    vocab_size=512, hidden_size=256, mamba_num_heads=6, ssm_state_size=64, chunk_size=32, num_attention_heads=8, head_dim=64,
    num_experts=16, expert_size=128, shared_expert_size=256, window_size=512,
)  # fmt: skip
PATTERNS: dict[str, dict[str, Any]] = {
    "hybrid": dict(pattern="MEMEME*EMEME", num_key_value_heads=1),
    "transformer": dict(pattern="*E*E*E*E*E*E", num_key_value_heads=2),
    "windows": dict(pattern="*EWEWEWE*EWE", num_key_value_heads=2),
    "hybrid_2kv": dict(pattern="MEMEME*EMEME", num_key_value_heads=2),
}
"""Nano's proportions: Mamba 1.5 times as wide as the model, one attention layer of twelve with half the key-value heads; the variant
with as many is beside it."""


@cache
def model(name: str) -> HybridModel:
    return HybridModel(HybridConfig(**SHARED, **PATTERNS[name]), seed=1).eval()


@cache
def step_s(name: str, batch: int, context: int) -> float:
    """CPU seconds of one decode step of `batch` rows that hold `context` tokens each."""
    pages = -(-(context + 1) // 64)
    decoder = HybridDecoder(model(name), num_rows=batch, num_pages=batch * pages, row_multiple=1)
    for layer in decoder.cache.layers:
        for tensor in layer.tensors() if layer is not None else ():
            tensor.normal_(0, 0.1)
    tables = np.arange(batch * pages).reshape(batch, pages)
    step = partial(decoder.step, np.arange(batch) + 5, tables, np.full(batch, context + 1))
    with torch.inference_mode():
        step()
        return cpu_s(step, 15 if context <= 4096 else 7)


def decode_figures() -> dict[str, float]:
    figures = {f"{name}_parameters_m": count_parameters(model(name).config).total / 1e6 for name in PATTERNS}
    for context, batch in ((64, 16), (256, 16), (1024, 16), (4096, 16), (16384, 16), (65536, 4)):
        hybrid = step_s("hybrid", batch, context)
        figures[f"decode_{context}_ms"] = hybrid * 1e3
        for name in ("transformer", "windows"):
            figures[f"decode_{context}_over_{name}"] = step_s(name, batch, context) / hybrid
        figures[f"decode_{context}_equal_kv_heads_over_transformer"] = step_s("transformer", batch, context) / step_s(
            "hybrid_2kv", batch, context
        )
    return figures


def crossover_figures() -> dict[str, float]:
    """Where a Mamba layer's step costs what an attention layer's does, and where the law says so."""
    layer = lambda letter, context: _layer_s(letter, context)  # noqa: E731
    mamba = layer("M", 64)
    contexts = [16, 32, 64, 128, 256, 512, 1024, 2048]
    costs = [layer("*", context) for context in contexts]
    above = next((i for i, cost in enumerate(costs) if cost > mamba), len(costs) - 1)
    low, high = max(above - 1, 0), above
    share = (mamba - costs[low]) / max(costs[high] - costs[low], 1e-9) if high > low else 0.0
    found = contexts[low] + min(max(share, 0.0), 1.0) * (contexts[high] - contexts[low])
    predicted = crossover(model("transformer").config, kv_itemsize=4)
    return {
        "crossover_measured": found,
        "crossover_predicted": predicted,
        "crossover_over_predicted": found / predicted,
        "crossover_under_predicted": found / predicted,
        "mamba_layer_ms": mamba * 1e3,
        "attention_layer_at_64_ms": layer("*", 64) * 1e3,
    }


@cache
def _layer_s(letter: str, context: int, batch: int = 64, num_layers: int = 6) -> float:
    """One layer's share of a step: a model of several of them, less one of none that matter."""
    pages = -(-(context + 1) // 64)
    made = HybridModel(
        HybridConfig(**{**SHARED, "pattern": letter * num_layers, "num_key_value_heads": 2}), seed=1
    ).eval()
    decoder = HybridDecoder(made, num_rows=batch, num_pages=batch * pages, row_multiple=1)
    for layer in decoder.cache.layers:
        for tensor in layer.tensors() if layer is not None else ():
            tensor.normal_(0, 0.1)
    tables = np.arange(batch * pages).reshape(batch, pages)
    step = partial(decoder.step, np.arange(batch) + 5, tables, np.full(batch, context + 1))
    with torch.inference_mode():
        step()
        return cpu_s(step, 15) / num_layers


def generate_figures() -> dict[str, float]:
    """8K in, 16K out by integrating the step curve; 1K in, 2K out really executed, batch 16."""
    grid = [8192, 12288, 16384, 20480, 24576]
    whole = {
        name: float(np.trapezoid([step_s(name, 16, context) for context in grid], grid)) + prefill_s(name, 8192) * 16
        for name in ("hybrid", "transformer", "windows")
    }
    executed = {name: _executed_s(name, 1024, 2048) for name in ("hybrid", "transformer")}
    return {
        "generate_8k_16k_over_transformer": whole["transformer"] / whole["hybrid"],
        "generate_8k_16k_over_windows": whole["windows"] / whole["hybrid"],
        "generate_1k_2k_over_transformer": executed["transformer"] / executed["hybrid"],
        "cache_at_24k_over_transformer": state_bytes(model("transformer").config, 24576, kv_itemsize=4)
        / state_bytes(model("hybrid").config, 24576, kv_itemsize=4),
    }


def _executed_s(name: str, num_in: int, num_out: int) -> float:
    prompts = np.random.default_rng(0).integers(1, 500, (16, num_in)).tolist()
    requests = [
        GenerationRequest(token_ids=p, max_new_tokens=num_out, stop_ids=(), seed=i) for i, p in enumerate(prompts)
    ]

    async def run() -> None:
        async with NativeEngine(
            model(name), stop_ids=[0], reasoning_tokens=None, num_slots=16, capacity=num_in + num_out, synchronous=False
        ) as engine:
            async for _ in engine.generate(requests):
                pass

    return cpu_s(lambda: asyncio.run(run()), 1)


@cache
def prefill_s(name: str, num_tokens: int) -> float:
    """CPU seconds of one prompt, in pieces of at most 4096 tokens as the engine computes them."""
    prompt = np.random.default_rng(0).integers(1, 500, num_tokens).tolist()
    request = GenerationRequest(token_ids=prompt, max_new_tokens=1, stop_ids=(), seed=0)

    async def run() -> None:
        async with NativeEngine(
            model(name), stop_ids=[0], reasoning_tokens=None, num_slots=1, capacity=num_tokens + 2, synchronous=False
        ) as engine:
            await engine.session().generate(request)

    return cpu_s(lambda: asyncio.run(run()), 2)


def losses_figures() -> dict[str, float]:
    """Where a hybrid does not win: short prompts, training on short sequences."""
    figures = {
        f"prefill_{n}_over_transformer": prefill_s("transformer", n) / prefill_s("hybrid", n) for n in (256, 1024, 4096)
    }
    return figures | {"train_256_over_transformer": train_s("transformer", 32, 256) / train_s("hybrid", 32, 256)}


@cache
def train_s(name: str, batch: int, length: int) -> float:
    """CPU seconds of a training step on `batch` sequences: forward, backward, AdamW."""
    config = preset(name) if name in ("tiny-6m", "tiny-1m") else model(name).config
    trained = HybridModel(config, seed=1)
    learner = Learner(trained, optimizer="adamw", lr=1e-4, routers=RouterTraining(weights=True))
    ids = torch.randint(1, config.vocab_size, (batch * length,), generator=torch.Generator().manual_seed(0))
    packing = Packing.build([length] * batch, chunk_size=config.chunk_size, conv_kernel=config.conv_kernel)
    ones = torch.ones(len(ids))

    def step() -> None:
        hidden, _ = trained(ids, packing)
        trained.weighted_logprobs(hidden, ids.roll(-1), ones, -ones / len(ones))[0].backward()
        for optimizer in learner.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    step()
    return cpu_s(step, 3)


def train_figures() -> dict[str, float]:
    """A training step of tiny-6m on 8192 tokens, and what its matrix products alone would take."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    gemm = 2 * 1024**3 / cpu_s(lambda: a @ b, 9)
    seconds = train_s("tiny-6m", 32, 256)
    config = preset("tiny-6m")
    products = 6 * (count_parameters(config).active) * 8192 / gemm
    return {
        "train_tiny_6m_cpu_s": seconds,
        "train_tiny_6m_gemm_s": products,
        "train_tiny_6m_of_limit": products / seconds,
        "gemm_gflops": gemm / 1e9,
    }


def rescoring_figures() -> dict[str, float]:
    """4,096 tokens that tiny-6m generated step by step, scored again in chunks: the largest difference of log-probabilities with the
    recorded routes and without, and how many routes differ."""
    made = HybridModel(preset("tiny-6m"), seed=1).eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(3.0)  # as sure as a trained policy
        for moe in made.routers():
            moe.gate.weight.mul_(8.0)
    prompts = np.random.default_rng(0).integers(1, 1000, (8, 16)).tolist()
    asked = [GenerationRequest(token_ids=p, max_new_tokens=513, stop_ids=(), seed=i) for i, p in enumerate(prompts)]
    results: dict[int, Any] = {}

    async def run() -> None:
        async with NativeEngine(made, stop_ids=[0], reasoning_tokens=None, num_slots=8, capacity=600) as engine:
            async for index, result in engine.generate(asked):
                results[index] = result

    asyncio.run(run())
    rows = [[*prompts[i], *results[i].token_ids] for i in range(8)]
    packing = Packing.build([len(row) - 1 for row in rows], chunk_size=made.config.chunk_size)
    ids = torch.tensor([token for row in rows for token in row[:-1]])
    targets = torch.tensor([token for row in rows for token in row[1:]])
    own = torch.tensor([at >= 15 for row in rows for at in range(len(row) - 1)])
    engine = torch.from_numpy(np.concatenate([results[i].logprobs for i in range(8)]))
    recorded = torch.from_numpy(np.concatenate([results[i].routes[: len(rows[i]) - 1] for i in range(8)])).long()
    figures: dict[str, float] = {"rescored_tokens": float(own.sum())}
    with torch.inference_mode():
        for name, routes in (("replayed", recorded), ("live", None)):
            hidden, taken = made(ids, packing, routes_NEK=routes)
            logprobs, _ = made.logprobs(hidden[own], targets[own], torch.ones(int(own.sum())))
            figures[f"rescoring_{name}_max_difference"] = float((logprobs - engine).abs().max())
            flips = (taken.sort(-1).values != recorded.sort(-1).values).any(-1)
            figures[f"rescoring_{name}_flips"] = float(flips.sum())
    return figures


CASES: dict[str, Callable[[], dict[str, float]]] = {
    "decode": decode_figures, "crossover": crossover_figures, "generate": generate_figures, "losses": losses_figures,
    "train": train_figures, "rescoring": rescoring_figures,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    prepare(options.threads)  # as a training run does
    figures: dict[str, float] = {}
    for name in options.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= CASES[name]()
    report("policy", figures, BARS)


if __name__ == "__main__":
    main()
