"""The Triton router and experts against the torch forms, for triton_checks.py."""

# Shapes: N tokens, E experts, K chosen experts of a token, d model, f expert width.

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from swannery.kernels.backend import SETTING
from swannery.kernels.experts import experts
from swannery.kernels.router import route

DEVICE = "cpu"


def near(got: list[Tensor], wanted: list[Tensor], tolerance: float = 2e-5) -> None:
    """Errors are measured against each result's largest number."""
    for number, (one, other) in enumerate(zip(got, wanted, strict=True)):
        error = (one.double() - other.double()).abs().max() / other.double().abs().max().clamp(min=1e-3)
        assert one.shape == other.shape and float(error) <= tolerance, f"result {number} is off by {float(error):.1e}"


def both(work: Callable[[], list[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    found = []
    for form in ("triton", "torch"):
        os.environ[SETTING] = form
        found.append(work())
    return found[0], found[1]


def mixtures() -> None:
    """Few rows and many; experts without a token, one with all; odd widths."""
    sizes = (
        (7, 6, 2, 24, 40, 6),
        (70, 4, 2, 33, 17, 4),
        (1, 3, 1, 8, 8, 3),
        (90, 5, 3, 20, 130, 3),
        (9, 1, 1, 16, 16, 1),
    )
    for N, E, K, d, f, crowd in sizes:
        chosen = torch.stack([torch.randperm(crowd)[:K] for _ in range(N)]).to(DEVICE)
        leaves = [torch.randn(*shape).to(DEVICE) for shape in ((N, d), (N, K), (E, f, d), (E, d, f))]

        def work(leaves: list[Tensor] = leaves, chosen: Tensor = chosen) -> list[Tensor]:
            x, gates, up, down = (t.clone().requires_grad_() for t in leaves)
            y = experts(x, gates, chosen, up, down)
            weights = torch.linspace(-1, 1, y.numel(), device=DEVICE).view(y.shape)
            return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, gates, up, down])]

        near(*both(work))
        os.environ[SETTING] = "triton"
        assert all(torch.equal(a, b) for a, b in zip(work(), work(), strict=True))
    os.environ[SETTING] = "torch"


def half_mixtures() -> None:
    x, gates = torch.randn(12, 32, device=DEVICE).bfloat16(), torch.rand(12, 2, device=DEVICE)
    up, down = (torch.randn(4, *shape, device=DEVICE).bfloat16() for shape in ((24, 32), (32, 24)))
    chosen = torch.stack([torch.randperm(4)[:2] for _ in range(12)]).to(DEVICE)
    os.environ[SETTING] = "triton"
    got = experts(x, gates, chosen, up, down)
    os.environ[SETTING] = "torch"
    near([got], [experts(x.float(), gates, chosen, up.float(), down.float())], 2e-2)


def routers() -> None:
    """Replayed wholly, in part and not; scores have a gradient of their own."""
    for N, E, K, d in ((7, 6, 2, 16), (5, 130, 32, 8), (1, 2, 1, 4), (9, 512, 6, 8)):
        bias = (torch.randn(E) * 0.1).to(DEVICE)
        leaves = [torch.randn(N, d).to(DEVICE), torch.randn(E, d).to(DEVICE)]
        replay = torch.stack([torch.randperm(E)[:K] for _ in range(N)]).to(DEVICE)
        partly = replay.clone()
        partly[::2] = -1
        for recorded in (None, replay, partly):

            def work(
                leaves: list[Tensor] = leaves, bias: Tensor = bias, recorded: Tensor | None = recorded, K: int = K
            ) -> list[Tensor]:
                x, weight = (t.clone().requires_grad_() for t in leaves)
                gates, chosen, scores = route(x, weight, bias, top_k=K, scale=2.5, replay_NK=recorded)
                slopes = torch.linspace(0.5, 2, scores.shape[1], device=DEVICE)
                loss = (gates * slopes[chosen]).sum() + 0.1 * (scores * slopes).sum()
                order = chosen.argsort(1)
                picked = [t.detach().gather(1, order) for t in (gates, chosen)]
                return [*picked, scores.detach(), *torch.autograd.grad(loss, [x, weight])]

            near(*both(work))
    os.environ[SETTING] = "triton"
    tied = route(
        torch.zeros(2, 4, device=DEVICE),
        torch.ones(5, 4, device=DEVICE),
        torch.zeros(5, device=DEVICE),
        top_k=3,
        scale=1.0,
    )[1]
    assert tied.tolist() == [[0, 1, 2]] * 2
    os.environ[SETTING] = "torch"


moe_checks = [mixtures, half_mixtures, routers]
