"""The model on a GPU: equal to itself on a CPU in every form of its kernels, and how fast it prefills, decodes and trains.

    python benchmarks/gpu_policy.py [--preset ladder-1b]

Prints a table, and one JSON object on the last line. Needs nothing but torch and triton.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import report

from swannery.kernels.backend import SETTING
from swannery.kernels.packing import Packing
from swannery.kernels.paged_attention import DecodeLayout
from swannery.policies.cache import PAGE_SIZE, Cache
from swannery.policies.hybrid import CachePlace, HybridModel
from swannery.policies.precision import cast
from swannery.policies.presets import preset

FORMS = ("torch", "triton")


def equality() -> dict[str, float]:
    """tiny-6m with windows: log-probabilities and gradients on the GPU against the CPU's, in fp32."""
    config = preset("tiny-6m", pattern="MEM*EMWE", window_size=40)
    ids, packing = torch.randint(1, config.vocab_size, (300,)), ([150, 60, 90], [-1, 0, 0])
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for place in ("cpu", *FORMS):
        os.environ[SETTING] = "torch" if place == "cpu" else place
        device = "cpu" if place == "cpu" else "cuda"
        model = HybridModel(config, seed=1).to(device)
        plan = Packing.build(*packing, chunk_size=config.chunk_size, conv_kernel=config.conv_kernel, device=device)
        hidden, _ = model(ids.to(device), plan)
        logprobs, _ = model.logprobs(hidden, ids.roll(-1).to(device), torch.ones(300, device=device))
        logprobs.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[place] = logprobs.detach().cpu(), gradient.cpu()
    return {
        f"{form}_{name}_difference": float((got - wanted).abs().max())
        for form in FORMS
        for name, got, wanted in zip(("logprobs", "gradient"), found[form], found["cpu"], strict=True)
    }


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[2:])


def speed(form: str, name: str) -> dict[str, float]:
    """Tokens a second of a bf16 model in one form: a training step and a prefill of 8,192 tokens, and decoding in a batch of 64."""
    os.environ[SETTING] = form
    config, length, batch = preset(name), 2048, 64
    model = cast(HybridModel(config, seed=0), torch.bfloat16).to("cuda")
    ids = torch.randint(1, config.vocab_size, (4 * length,), device="cuda")
    ones = torch.ones(len(ids), device="cuda")
    packed = {"chunk_size": config.chunk_size, "conv_kernel": config.conv_kernel, "device": "cuda"}
    whole, new = Packing.build([length] * 4, **packed), np.full(4, length)

    def train() -> None:
        hidden, _ = model(ids, whole)
        model.weighted_logprobs(hidden, ids.roll(-1), ones, -ones / len(ones))[0].backward()
        model.zero_grad(set_to_none=True)

    figures = {"train_tokens_s": len(ids) / seconds(train), "train_peak_gib": torch.cuda.max_memory_allocated() / 2**30}
    with torch.inference_mode():
        pages = -(-(length + 64) // PAGE_SIZE)
        cache = Cache(config, batch, batch * pages, dtype=torch.bfloat16, device="cuda")
        tables = np.arange(batch * pages).reshape(batch, pages)
        plan = Packing.build(new.tolist(), **packed)
        place = CachePlace.build(cache, np.arange(4), tables[:4], np.zeros(4, int), new)
        figures["prefill_tokens_s"] = len(ids) / seconds(lambda: model(ids, plan, place=place))
        layout = DecodeLayout.build(tables, np.full(batch, length + 1), PAGE_SIZE, torch.device("cuda"))
        figures["decode_tokens_s"] = batch / seconds(lambda: model.step(ids[:batch], cache, layout))
    return {f"{form}_{key}": value for key, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ladder-1b")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU is to be found")
    torch.manual_seed(0)
    figures = equality()
    for form in FORMS:
        figures |= speed(form, options.preset)
        torch.cuda.empty_cache()
    report("policy on a GPU", figures, {})


if __name__ == "__main__":
    main()
