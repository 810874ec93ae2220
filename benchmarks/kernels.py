"""Kernels against their plain forms: CPU time and memory.

    python benchmarks/kernels.py                      the loss head's time and memory on a CPU
    python benchmarks/kernels.py --parity             every operation in every form, against float64; timed on a GPU

Ratios are of CPU time in one run on one thread. Prints a table, and one JSON object on the last line. Parity takes the forms that can
run here: torch always, triton on a GPU or interpreted (TRITON_INTERPRET=1), external there too where its packages are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from kernel_cases import NANO, SMALL, cases
from measure import cpu_s, in_child, peak_bytes, report
from torch import Tensor

from swannery.kernels.backend import SETTING
from swannery.kernels.compiled import library
from swannery.kernels.external import has
from swannery.kernels.linear_logprobs import linear_logprobs, linear_logprobs_ref, weighted_logprobs

BARS = {
    "head_two_pass_mib": ("<=", 110.0), "head_one_pass_mib": ("<=", 110.0), "head_two_pass_over_naive": ("<=", 1.4),
    "head_half_masked_over_naive": ("<=", 1.0), "head_one_pass_over_naive": ("<=", 1.0), "head_gradient_error": ("<=", 1e-6),
}  # fmt: skip
TOKENS, HIDDEN, VOCAB = 4096, 256, 32_768


class Head:
    """The loss head's case: tokens of which some count, and a loss that is linear in their log-probabilities."""

    def __init__(self, share: float = 1.0) -> None:
        chance = torch.Generator().manual_seed(0)
        self.x = torch.randn(TOKENS, HIDDEN, generator=chance).requires_grad_()
        self.weight = (0.06 * torch.randn(VOCAB, HIDDEN, generator=chance)).requires_grad_()
        self.targets = torch.randint(0, VOCAB, (TOKENS,), generator=chance)
        self.temperature = torch.ones(TOKENS)
        counted = torch.rand(TOKENS, generator=chance) < share
        self.counted = None if share == 1.0 else counted
        self.coefficients = torch.where(counted, -1.0 / counted.sum(), 0.0)

    def naive(self) -> Tensor:
        logprobs, _ = linear_logprobs_ref(self.x, self.weight, self.targets, self.temperature)
        return (logprobs * self.coefficients).sum()

    def plain(self) -> Tensor:
        """The usual head: cross-entropy on the logits, no entropy."""
        logits = (self.x @ self.weight.T) / self.temperature.unsqueeze(1)
        return -(torch.nn.functional.cross_entropy(logits, self.targets, reduction="none") * self.coefficients).sum()

    def two_pass(self) -> Tensor:
        head = (self.x, self.weight, self.targets, self.temperature)
        logprobs, _ = linear_logprobs(*head, counted_N=self.counted)
        return (logprobs * self.coefficients).sum()

    def one_pass(self) -> Tensor:
        return weighted_logprobs(self.x, self.weight, self.targets, self.temperature, self.coefficients)[0]

    def step(self, form: str) -> tuple[Tensor, Tensor]:
        self.x.grad = self.weight.grad = None
        getattr(self, form)().backward()
        assert self.x.grad is not None and self.weight.grad is not None
        return self.x.grad, self.weight.grad


def oracle(case: Head) -> list[Tensor]:
    """Gradients in float64."""
    x, weight = (t.detach().double().requires_grad_() for t in (case.x, case.weight))
    logprobs, _ = linear_logprobs(x, weight, case.targets, case.temperature.double())
    return list(torch.autograd.grad((logprobs * case.coefficients.double()).sum(), [x, weight]))


def head_figures() -> dict[str, float]:
    """Forward and backward of the loss head at 4096 tokens, hidden size 256, vocabulary 32,768. Gradients are compared with those
    in float64, relative to the largest."""
    whole, half = Head(), Head(0.5)
    naive = cpu_s(lambda: whole.step("plain"))
    exact = oracle(whole)
    error = lambda form: max(  # noqa: E731
        float((got - wanted).abs().max() / wanted.abs().max())
        for got, wanted in zip(whole.step(form), exact, strict=True)
    )
    return {
        "head_naive_s": naive,
        "head_naive_with_entropy_s": cpu_s(lambda: whole.step("naive"), 1),
        "head_two_pass_over_naive": cpu_s(lambda: whole.step("two_pass")) / naive,
        "head_half_masked_over_naive": cpu_s(lambda: half.step("two_pass")) / naive,
        "head_one_pass_over_naive": cpu_s(lambda: whole.step("one_pass")) / naive,
        "head_gradient_error": max(error("two_pass"), error("one_pass")),
        "head_naive_gradient_error": error("plain"),
        **{f"head_{form}_mib": in_child(__file__, form)["mib"] for form in ("plain", "two_pass", "one_pass")},
    }


def head_memory(form: str) -> dict[str, float]:
    """The peak of one step over a process that holds inputs and gradients' room already."""
    torch.set_num_threads(1)
    case = Head()
    (case.x[:8] @ case.weight[:8].T).sum().backward()  # what the libraries take once
    case.x.grad = case.weight.grad = None
    before = peak_bytes()
    case.step(form)
    return {"mib": (peak_bytes() - before) / 2**20}


IN_C = ("packed_attention", "ssd_chunks", "linear", "experts", "linear_logprobs", "weighted_logprobs")
"""What has a form in C; a decode step and the sampling behind it have tests of their own."""
LIMITS = {"H100": (3.35e12, 989e12), "H200": (4.8e12, 989e12), "A100": (2.04e12, 312e12)}
"""Bytes and bf16 FLOPs a second of GPUs, by their data sheets."""


def parity_figures() -> dict[str, float]:
    """The largest difference from the torch form in float64, over outputs and gradients, relative to each one's largest number. On a
    GPU also milliseconds of forward, forward and backward, and how near the forward pass is to the limit of bytes or FLOPs."""
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    forms = ["torch"] + (["triton"] if on_gpu or os.environ.get("TRITON_INTERPRET") == "1" else [])
    figures: dict[str, float] = {}
    in_c = IN_C if library() and not on_gpu else ()
    for name, case in cases(SMALL, device, torch.float32).items():
        exact = case.run(dtype=torch.float64)
        external = ["external"] if has(name) and len(forms) > 1 else []
        for form in [*forms, *(["c"] if name in in_c else []), *external]:
            with taking(form):
                got = case.run()
            figures[f"{name}_{form}_error"] = max(_error(a, b) for a, b in zip(got, exact, strict=True))
    if on_gpu:
        figures |= gpu_figures(forms)
    return figures


def gpu_figures(forms: list[str]) -> dict[str, float]:
    """Nano's dimensions in bf16 where the model is bf16."""
    described = torch.cuda.get_device_name()
    bytes_s, flops_s = next((limit for name, limit in LIMITS.items() if name in described), (1e12, 1e14))
    figures: dict[str, float] = {}
    for name, case in cases(NANO, "cuda", torch.bfloat16).items():
        least_ms = 1e3 * max(case.moved / bytes_s, case.flops / flops_s)
        for form in [*forms, *(["external"] if has(name) else [])]:
            try:
                with taking(form):
                    forward = _ms(lambda case=case: case.run(backward=False)) - _ms(case.clone)
                    figures[f"{name}_{form}_ms"] = forward
                    figures[f"{name}_{form}_of_limit"] = least_ms / forward
                    if case.differentiable:
                        figures[f"{name}_{form}_both_ms"] = _ms(case.run) - _ms(case.clone)
            except torch.cuda.OutOfMemoryError:
                print(f"{name} {form}: out of memory", file=sys.stderr)
            torch.cuda.empty_cache()
    return figures


def _ms(work: Callable[[], object]) -> float:
    from triton.testing import do_bench

    return float(do_bench(work))  # type: ignore[arg-type]


def _error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30))


@contextmanager
def taking(form: str) -> Iterator[None]:
    """Operations take this form."""
    before = os.environ.get(SETTING)
    os.environ[SETTING] = form
    try:
        yield
    finally:
        if before is None:
            del os.environ[SETTING]
        else:
            os.environ[SETTING] = before


CASES: dict[str, Callable[[], dict[str, float]]] = {"head": head_figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas between")
    parser.add_argument("--parity", action="store_true", help="every operation in every form")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.child:
        print(json.dumps(head_memory(options.child)))
        return
    torch.set_num_threads(1)
    if options.parity:
        report("kernel parity", parity_figures(), {})
        return
    figures: dict[str, float] = {}
    for name in options.only.split(","):
        print(f"{name} ...", file=sys.stderr, flush=True)
        figures |= CASES[name]()
    report("kernels", figures, BARS)


if __name__ == "__main__":
    main()
