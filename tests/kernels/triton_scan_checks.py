"""The Triton scan against the torch form in float64, for triton_checks.py."""

# Shapes: C chunks, Q tokens of a chunk, H heads, P head size, G groups, N state size.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from swannery.kernels.packing import Packing
from swannery.kernels.ssd import ssd_chunks

DEVICE = "cpu"


def inputs_of(num_chunks: int, Q: int, H: int, P: int, G: int, N: int) -> list[Tensor]:
    x, dt, decay = torch.randn(num_chunks, Q, H, P), torch.rand(num_chunks, Q, H) * 0.5, -torch.arange(1.0, H + 1)
    dt[torch.rand(num_chunks, Q) < 0.2] = 0.0  # padding, and not at a chunk's end alone
    dt[0, Q // 2 :] = 0.0
    return [t.to(DEVICE) for t in (x, dt, decay, torch.randn(num_chunks, Q, G, N), torch.randn(num_chunks, Q, G, N))]


def run(form: Callable[..., Any], inputs: list[Tensor], *rest: Any) -> dict[str, Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y, states = form(*leaves, *rest)
    weights = torch.linspace(0, 99, y.numel(), device=y.device, dtype=torch.float64).sin().view(y.shape)
    grads = torch.autograd.grad((y * weights.to(y.dtype)).sum(), leaves)
    return {
        "y": y.detach(),
        "states": y.detach() if states is None else states,
        **dict(zip("x dt A B C".split(), grads, strict=True)),
    }


def compare(inputs: list[Tensor], *rest: Any, tolerance: float = 2e-5) -> None:
    """A result's largest error is measured against its largest number."""
    from swannery.kernels.ssd_triton import ssd_chunks_triton

    levels, initial, last = (*rest, None, None)[:3]
    got = run(ssd_chunks_triton, inputs, levels, initial, last)
    exact = [t.double() for t in inputs], levels, None if initial is None else initial.double(), last
    wanted = run(ssd_chunks, *exact)
    for name, value in got.items():
        error = float((value.double() - wanted[name]).abs().max() / wanted[name].abs().max().clamp(min=0.1))
        assert error < tolerance, f"{name} is off by {error:.1e} for x {tuple(inputs[0].shape)}"


def forests() -> None:
    """Branches, chains of one token, blocks and sizes that are not whole; from zeros and from other states."""
    for lengths, parents, Q, H, P, G, N in (
        ([5, 1, 9, 3, 8], [-1, 0, 0, -1, 2], 4, 4, 8, 2, 16),
        ([3], [-1], 4, 1, 5, 1, 7),
        ([1, 1], [-1, 0], 1, 3, 4, 3, 3),
        ([45, 7], [-1, -1], 40, 2, 20, 1, 70),
        ([35], [-1], 70, 1, 33, 1, 17),
    ):
        packing = Packing.build(lengths, parents, chunk_size=Q, device=DEVICE)
        inputs = inputs_of(len(packing.valid_CQ), Q, H, P, G, N)
        if len(lengths) > 2:
            compare(inputs, packing.levels)
        initial = torch.randn(len(lengths) + 1, H, P, N, device=DEVICE)
        levels = (packing.levels[0] + 1, *packing.levels[1:])
        compare(inputs, levels, initial, packing.last_chunk_S)


def parts_of_wider_rows() -> None:
    """As they come out of the convolution: x, B and C side by side."""
    packing = Packing.build([11, 6], chunk_size=8, device=DEVICE)
    x, dt, decay, b, c = inputs_of(len(packing.valid_CQ), 8, 4, 5, 2, 6)
    wide = torch.cat([t.flatten(2) for t in (x, b, c)], 2).split([20, 12, 12], dim=2)
    views = [t.unflatten(2, of.shape[2:]) for t, of in zip(wide, (x, b, c), strict=True)]
    from swannery.kernels.ssd_triton import ssd_chunks_triton

    inputs = [views[0], dt, decay, *views[1:]]
    wanted = ssd_chunks_triton(x, dt, decay, b, c, packing.levels)[0]
    assert torch.equal(ssd_chunks_triton(*inputs, packing.levels)[0], wanted)


def extreme_decays() -> None:
    """All is forgotten at once, or nothing ever. A sum of logarithms in the thousands has few digits left for small ones, in torch too."""
    packing = Packing.build([20], chunk_size=8, device=DEVICE)
    x, dt, decay, b, c = inputs_of(len(packing.valid_CQ), 8, 3, 4, 1, 8)
    dt[0, 3], dt[1, 7], dt[2, 0] = 60.0, 60.0, 30.0
    compare([x, dt, torch.tensor([-1.0, -16.0, -64.0], device=DEVICE), b, c], packing.levels, tolerance=5e-4)
    compare([x, dt * 1e-4, torch.tensor([-1e-4, -1.0, 0.0], device=DEVICE), b, c], packing.levels)


def repeats() -> None:
    """The same bits twice, and for a chunk in other company or with other tokens after it."""
    from swannery.kernels.ssd_triton import ssd_chunks_triton

    packing = Packing.build([13, 4, 9], [-1, 0, 0], chunk_size=8, device=DEVICE)
    inputs = inputs_of(len(packing.valid_CQ), 8, 4, 6, 2, 8)
    one, two = (run(ssd_chunks_triton, inputs, packing.levels, None, packing.last_chunk_S) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    x, dt, decay, b, c = (t.clone() if t.dim() == 1 else t[:1].clone() for t in inputs)
    x[:, 5:], b[:, 5:] = 7.0, -3.0
    y, _ = ssd_chunks_triton(x, dt, decay, b, c, packing.levels[:1])
    assert torch.equal(y[0, :5], one["y"][0, :5])


def half_precision() -> None:
    """x, B and C in bf16, dt and A in fp32."""
    packing = Packing.build([20, 5], [-1, 0], chunk_size=16, device=DEVICE)
    x, dt, decay, b, c = inputs_of(len(packing.valid_CQ), 16, 4, 16, 2, 16)
    x, b, c = (t.bfloat16() for t in (x, b, c))
    compare([x, dt, decay, b, c], packing.levels, None, packing.last_chunk_S, tolerance=2e-2)


scan_checks = [forests, parts_of_wider_rows, extreme_decays, repeats, half_precision]
