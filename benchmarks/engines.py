"""Rollout engines: tokens per CPU-second against transformers and static batching, prefix sharing, scheduler, memory, limits.

    python benchmarks/engines.py [--only native,prefix,...] [--smollm2]

All ratios are of CPU time in one run on one thread. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from measure import cpu_s, in_child, peak_bytes, report

from swannery.policies import GenerationRequest, HybridModel, NativeEngine, preset
from swannery.policies.cache import cache_bytes

BARS = {
    "native_64_over_generate": (">=", 4.0), "native_16_over_static": (">=", 1.5),
    "native_64_over_static": (">=", 1.5), "prefix_prompts_computed": ("<=", 1.2),
    "prefix_cpu_prompts": ("<=", 1.2), "smollm2_over_generate": (">=", 1.5), "scheduler_share": ("<=", 0.05),
    "episodes_at_once": (">=", 512), "memory_over_calculated": ("<=", 1.1), "memory_under_calculated": (">=", 0.9),
}  # fmt: skip


def lengths(count: int, median: float, sigma: float, most: int) -> list[int]:
    drawn = np.exp(np.random.default_rng(0).normal(np.log(median), sigma, count))
    return np.clip(drawn, 2, most).astype(int).tolist()


def requests(prompts: Sequence[Sequence[int]], new: Sequence[int]) -> list[GenerationRequest]:
    return [
        GenerationRequest(token_ids=p, max_new_tokens=n, stop_ids=(), seed=i)
        for i, (p, n) in enumerate(zip(prompts, new, strict=True))
    ]


def serve(make: Callable[[], Any], batches: Sequence[Sequence[GenerationRequest]]) -> Any:
    """Serve batches one after the other; the engine, for its metrics."""

    async def run() -> Any:
        async with make() as engine:
            for batch in batches:
                async for _ in engine.generate(batch):
                    pass
        return engine

    return asyncio.run(run())


def native(model: HybridModel, num_slots: int, capacity: int = 1024, **options: Any) -> NativeEngine:
    settings = {"synchronous": False, "stop_ids": [0], "reasoning_tokens": None, **options}
    return NativeEngine(model, num_slots=num_slots, capacity=capacity, **settings)


def generate_in_batches(model: Any, prompts: Sequence[Sequence[int]], new: Sequence[int], size: int, pad: int) -> None:
    """transformers' `generate`, left-padded, each batch as long as its longest."""
    for start in range(0, len(prompts), size):
        batch, most = prompts[start : start + size], max(new[start : start + size])
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in batch])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch])
        options = {"min_new_tokens": most, "max_new_tokens": most, "do_sample": True, "top_k": 0, "top_p": 1.0}
        with torch.no_grad():
            model.generate(ids, attention_mask=mask, pad_token_id=pad, **options)


def native_figures() -> dict[str, float]:
    """64 requests with log-normal lengths (median 64, sigma 0.7), against `generate` of the same weights and against static
    batches of our own (a batch decodes until its longest is done), 16 and 64 at a time."""
    from transformers import NemotronHConfig, NemotronHForCausalLM

    from swannery.policies.huggingface import config_to_nemotron_h, weights_to_nemotron_h

    figures = {}
    model = HybridModel(preset("tiny-6m"), seed=1).eval()
    published = config_to_nemotron_h(model.config)
    theirs = NemotronHForCausalLM(NemotronHConfig(**published)).eval()
    theirs.load_state_dict(weights_to_nemotron_h(model.state_dict()))
    new = lengths(64, 64, 0.7, 400)
    prompts = np.random.default_rng(1).integers(1, model.config.vocab_size, (64, 64)).tolist()
    for size in (16, 64):
        batches = [range(i, i + size) for i in range(0, 64, size)]
        padded = [requests([prompts[i] for i in b], [max(new[i] for i in b)] * size) for b in batches]
        seconds = {
            "native": cpu_s(lambda n=size: serve(lambda: native(model, n), [requests(prompts, new)])),
            "static": cpu_s(lambda n=size, p=padded: serve(lambda: native(model, n), p), repeats=1),
            "generate": cpu_s(lambda n=size: generate_in_batches(theirs, prompts, new, n, pad=0), repeats=1),
        }
        figures |= {f"{name}_{size}_tokens_per_cpu_s": sum(new) / spent for name, spent in seconds.items()}
        for peer in ("generate", "static"):
            figures[f"native_{size}_over_{peer}"] = seconds[peer] / seconds["native"]
    return figures


def prefix_figures() -> dict[str, float]:
    """A group of 16 with a prompt of 256 tokens, against one request with it; and the same arriving one after the other."""
    model = HybridModel(preset("tiny-6m"), seed=1).eval()
    prompt = np.random.default_rng(1).integers(1, model.config.vocab_size, 256).tolist()
    one, group = requests([prompt], [1]), requests([prompt] * 16, [1] * 16)
    alone, together = (cpu_s(lambda b=b: serve(lambda: native(model, 16), [b]), repeats=7) for b in (one, group))
    step = cpu_s(lambda: serve(lambda: native(model, 16), [requests([[5]] * 16, [1] * 16)]), repeats=7)
    step_of_one = cpu_s(lambda: serve(lambda: native(model, 16), [requests([[5]], [1])]), repeats=7)
    engine = serve(lambda: native(model, 16), [group])
    late = serve(lambda: native(model, 16), [[request] for request in group])
    return {
        "prefix_prompts_computed": engine.metrics.prefill_tokens / 255,
        "prefix_prompts_computed_one_by_one": late.metrics.prefill_tokens / 255,
        "prefix_cpu_prompts": (together - step) / (alone - step_of_one),  # without the one decode step of each
    }


def smollm2_figures() -> dict[str, float]:
    """SmolLM2-135M on short questions, 16 at a time, against `generate` in padded batches of 16."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from swannery.policies.fetch import fetch
    from swannery.policies.transformers_engine import TransformersEngine

    folder = fetch("smollm2")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    asked = [[{"role": "user", "content": f"What is {a} + {b}?"}] for a, b in rng.integers(0, 100, (64, 2))]
    prompts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=False) for m in asked]
    new = lengths(64, 24, 0.7, 120)
    generated = cpu_s(lambda: generate_in_batches(model, prompts, new, 16, pad=2), repeats=1)
    make = lambda: TransformersEngine(model, stop_ids=[2], num_slots=16, capacity=256)  # noqa: E731
    ours = cpu_s(lambda: serve(make, [requests(prompts, new)]), repeats=1)
    return {
        "smollm2_tokens_per_cpu_s": sum(new) / ours,
        "smollm2_generate_tokens_per_cpu_s": sum(new) / generated,
        "smollm2_over_generate": generated / ours,
    }


def scheduler_figures() -> dict[str, float]:
    """The share of the time that is not the model's, with tiny-1m on 64 rows: while all decode, and with 512 requests that
    join and leave."""
    model = HybridModel(preset("tiny-1m"), seed=1).eval()
    prompts = np.random.default_rng(1).integers(1, model.config.vocab_size, (512, 24)).tolist()

    async def share(asked: Sequence[GenerationRequest]) -> float:
        async with native(model, 64) as engine:
            start = time.perf_counter()  # as the engine's own model_s is
            async for _ in engine.generate(asked):
                pass
            return 1 - engine.metrics.model_s / (time.perf_counter() - start)

    steady, changing = requests(prompts[:64], [256] * 64), requests(prompts, lengths(512, 64, 0.7, 300))
    return {
        "scheduler_share": min(asyncio.run(share(steady)) for _ in range(3)),
        "scheduler_share_with_arrivals": min(asyncio.run(share(changing)) for _ in range(3)),
    }


def episodes_figures() -> dict[str, float]:
    """512 conversations of four turns at once on 256 slots, each with a pause of 50 ms between turns."""
    model = HybridModel(preset("tiny-1m"), seed=1).eval()
    rng = np.random.default_rng(0)
    running = most = 0

    async def run() -> Any:
        async with native(model, 256) as engine:

            async def episode(number: int) -> None:
                nonlocal running, most
                running, most = running + 1, max(most, running + 1)
                session, ids = engine.session(), rng.integers(1, 500, 48).tolist()
                for turn in range(4):
                    new = int(np.clip(np.exp(rng.normal(3.2, 0.7)), 2, 120))
                    asked = GenerationRequest(token_ids=ids, max_new_tokens=new, stop_ids=(), seed=number * 4 + turn)
                    ids = [*ids, *(await session.generate(asked)).token_ids, 7, 8, 9]
                    await asyncio.sleep(0.05)
                session.close()
                running -= 1

            await asyncio.gather(*(episode(i) for i in range(512)))
            return engine.metrics

    start = time.process_time()
    metrics = asyncio.run(run())
    seconds = time.process_time() - start
    return {
        "episodes_at_once": float(most),
        "episodes_tokens_per_cpu_s": metrics.sampled_tokens / seconds,
        "episodes_recomputed": metrics.prefill_tokens / (512 * (47 + 3 * 4)) - 1,
        "episodes_left_in_cache_bytes": float(metrics.cache_bytes),
    }


def memory_figures() -> dict[str, float]:
    """Peak memory of a process that fills its cache, over what the calculator says of weights and cache."""
    found = in_child(__file__)
    ratio = found["grown"] / found["calculated"]
    return {
        "memory_over_calculated": ratio,
        "memory_under_calculated": ratio,
        "memory_calculated_mb": found["calculated"] / 1e6,
        "memory_grown_mb": found["grown"] / 1e6,
    }


def fill_a_cache() -> None:
    torch.set_num_threads(1)
    warm = HybridModel(preset("tiny-100k"), seed=1).eval()
    serve(lambda: native(warm, 4, capacity=128), [requests([[5] * 20], [4])])
    before = peak_bytes()
    model = HybridModel(preset("tiny-6m"), seed=1).eval()
    slots, capacity = 64, 4096
    prompts = np.random.default_rng(1).integers(1, 1000, (slots, capacity - 8)).tolist()

    async def run() -> int:
        async with native(model, slots, capacity, prefill_tokens=128) as engine:
            sessions = [engine.session() for _ in prompts]  # left open, so that all of their states stay
            await asyncio.gather(*map(lambda s, r: s.generate(r), sessions, requests(prompts, [8] * slots)))
            return engine.memory_bytes

    calculated = asyncio.run(run())
    grown = peak_bytes() - before
    print(json.dumps({"calculated": calculated, "grown": grown}))


def limit_figures() -> dict[str, float]:
    """How near a decode step comes to the time that its bytes and its FLOPs alone would take on this core."""
    from swannery.policies.native import HybridDecoder

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    gemm = 2 * 1024**3 / cpu_s(lambda: a @ b, 9)
    stream = torch.zeros(1 << 26)
    bandwidth = stream.nbytes / cpu_s(lambda: stream.sum(), 5)
    figures = {"gemm_gflops": gemm / 1e9, "read_gb_s": bandwidth / 1e9}
    for name in ("tiny-1m", "tiny-6m"):
        model = HybridModel(preset(name), seed=1).eval()
        config, B, length = model.config, 64, 256
        decoder = HybridDecoder(model, num_rows=B, num_pages=B * 4, row_multiple=1)
        tables = np.arange(B * 4).reshape(B, 4)
        step = partial(decoder.step, np.arange(B) + 5, tables, np.full(B, length))
        with torch.inference_mode():
            seconds = cpu_s(step, 30)
        row, page = cache_bytes(config)
        weights = sum(p.nbytes for p in model.state_dict().values())
        moved = weights + 2 * B * row + B * 4 * page
        experts = [t for n, t in model.state_dict().items() if ".experts." in n]
        idle = sum(t.numel() for t in experts) * (1 - config.experts_per_token / config.num_experts)
        active = sum(p.numel() for p in model.state_dict().values()) - idle - config.vocab_size * config.hidden_size
        figures |= {
            f"{name}_step_ms": seconds * 1e3,
            f"{name}_bytes_ms": moved / bandwidth * 1e3,
            f"{name}_gemm_ms": 2 * B * active / gemm * 1e3,
            f"{name}_of_limit": (moved / bandwidth + 2 * B * active / gemm) / seconds,
        }
    return figures


CASES = {
    "native": native_figures, "prefix": prefix_figures, "scheduler": scheduler_figures, "episodes": episodes_figures,
    "memory": memory_figures, "limit": limit_figures, "smollm2": smollm2_figures,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return fill_a_cache()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    figures: dict[str, float] = {}
    for name in options.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= CASES[name]()
    report("engines", figures, BARS)


if __name__ == "__main__":
    main()
