"""The Triton loss head and attention over windows against the torch forms, for triton_checks.py."""

# Shapes: N tokens, d model, V vocabulary, H query heads, J key-value heads, D head size, B rows of a step, w window.

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from swannery.kernels.attention import packed_attention
from swannery.kernels.backend import SETTING
from swannery.kernels.linear_logprobs import linear_logprobs, weighted_logprobs
from swannery.kernels.packing import Packing
from swannery.kernels.sliding_window import ring_decode_attention

DEVICE = "cpu"


def near(got: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 2e-5, least: float = 1e-3) -> None:
    """A result's largest error is measured against its largest number, or `least`."""
    for name, value in got.items():
        assert value.shape == wanted[name].shape, name
        error = (value.double() - wanted[name].double()).abs().max() / wanted[name].abs().max().clamp(min=least)
        assert float(error) < tolerance, f"{name} is off by {float(error):.1e}, {tuple(value.shape)}"


@contextmanager
def cut(module: ModuleType, **constants: int) -> Iterator[None]:
    """Smaller limits, so that small inputs reach them."""
    before = {name: getattr(module, name) for name in constants}
    for name, value in constants.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def head_inputs(N: int, d: int, V: int, scale: float = 1.0) -> list[Tensor]:
    x, weight = torch.randn(N, d), torch.randn(V, d) * scale * d**-0.5
    return [t.to(DEVICE) for t in (x, weight, torch.randint(0, V, (N,)), 0.5 + torch.rand(N))]


def head_results(form: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor]) -> dict[str, Tensor]:
    x, weight = (t.detach().clone().requires_grad_() for t in inputs[:2])
    logprobs, entropy = form(x, weight, *inputs[2:])
    assert not entropy.requires_grad
    slopes = torch.linspace(-1, 2, len(logprobs), device=DEVICE)
    dx, dweight = torch.autograd.grad((logprobs * slopes).sum(), [x, weight])
    return {"logprobs": logprobs.detach(), "entropy": entropy, "x": dx, "weight": dweight}


def compare_head(inputs: list[Tensor], tolerance: float = 2e-5, least: float = 1e-3) -> None:
    from swannery.kernels.linear_logprobs_triton import linear_logprobs_triton

    exact = [t.double() if t.is_floating_point() else t for t in inputs]
    near(head_results(linear_logprobs_triton, inputs), head_results(linear_logprobs, exact), tolerance, least)


def loss_head() -> None:
    """Sizes below a block and not whole; one token; one entry; one range of all tiles and many; slices of the vocabulary."""
    import swannery.kernels.linear_logprobs_backward_triton as backward
    import swannery.kernels.linear_logprobs_triton as forward

    for N, d, V in ((7, 24, 97), (70, 40, 150), (1, 5, 64), (3, 33, 1), (65, 16, 320)):
        compare_head(head_inputs(N, d, V))
    with cut(forward, MAX_RANGES=2), cut(backward, NARROWEST=64, HELD=1):
        compare_head(head_inputs(9, 20, 300))
    x, weight, targets, temperature = head_inputs(6, 18, 80, scale=60.0)  # nearly certain
    for chosen in (targets, (x @ weight.T).argmax(1)):  # differences of logits in the hundreds
        compare_head([x, weight, chosen, temperature], 1e-3, least=1.0)  # logits of hundreds have errors of 1e-5
    x, weight, targets, temperature = head_inputs(6, 18, 80)
    compare_head([x.half(), weight, targets, temperature], 1e-3)  # a head of a wider type than its input
    wide = torch.randn(6, 40, device=DEVICE)[:, :18]
    compare_head([wide, weight.T.contiguous().T, targets, temperature])


def loss_head_repeats() -> None:
    """The same bits twice; a row's log-probability and gradient are those that it has alone."""
    from swannery.kernels.linear_logprobs_triton import linear_logprobs_triton

    inputs = head_inputs(80, 24, 200)
    one, two = (head_results(linear_logprobs_triton, inputs) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    x, weight, targets, temperature = inputs
    alone = linear_logprobs_triton(x[70:71], weight, targets[70:71], temperature[70:71])
    assert torch.equal(alone[0], one["logprobs"][70:71]) and torch.equal(alone[1], one["entropy"][70:71])


def head_dispatch() -> None:
    """Through the public functions: tokens that do not count, known coefficients, supports, none at all."""
    x, weight, targets, temperature = head_inputs(9, 12, 70)
    coefficients = torch.linspace(-1, 1, 9, device=DEVICE)  # the fifth is 0
    support = torch.tensor([[3, 5, -1]] * 9, device=DEVICE)
    found = []
    for form in ("torch", "triton"):
        os.environ[SETTING] = form
        a, b = (t.clone().requires_grad_() for t in (x, weight))
        value, logprobs, entropy = weighted_logprobs(a, b, targets, temperature, coefficients)
        assert not logprobs.requires_grad and not entropy.requires_grad
        both = dict(zip(("dx", "dweight"), torch.autograd.grad(value * 3, [a, b]), strict=True))
        counted = linear_logprobs(x, weight, targets, temperature, counted_N=coefficients > 0)[0]
        none = linear_logprobs(a, b, targets, temperature, counted_N=coefficients > 9)[0]
        (nothing,) = torch.autograd.grad(none.sum(), [b])
        assert float(none.detach().abs().sum()) == float(nothing.abs().sum()) == 0
        kept = linear_logprobs(x, weight, support[:, 0], temperature, support)[0]
        found.append(
            {
                "value": value.detach(),
                "logprobs": logprobs,
                "entropy": entropy,
                "counted": counted,
                "kept": kept,
                **both,
            }
        )
    os.environ[SETTING] = "torch"
    near(found[1], found[0])


def loss_head_in_half_precision() -> None:
    x, weight, targets, temperature = head_inputs(40, 48, 130)
    compare_head([x.bfloat16(), weight.bfloat16(), targets, temperature], 2e-2)


def attention_results(form: Callable[..., Tensor], inputs: list[Tensor], *rest: object) -> dict[str, Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y = form(*leaves, *rest)
    weights = torch.linspace(0, 99, y.numel(), device=DEVICE, dtype=torch.float64).sin().view(y.shape)
    grads = torch.autograd.grad((y * weights.to(y.dtype)).sum(), leaves)
    return {"y": y.detach(), **dict(zip("qkv", grads, strict=True))}


@contextmanager
def in_triton() -> Iterator[None]:
    os.environ[SETTING] = "triton"
    try:
        yield
    finally:
        os.environ[SETTING] = "torch"


def compare_attention(
    inputs: list[Tensor], packing: Packing, window: int | None, tolerance: float = 2e-5
) -> dict[str, Tensor]:
    with in_triton():
        got = attention_results(packed_attention, inputs, packing, window)
    near(got, attention_results(packed_attention, [t.double() for t in inputs], packing, window), tolerance, least=0.1)
    return got


def heads(N: int, H: int, J: int, D: int) -> list[Tensor]:
    return [torch.randn(N, each, D, device=DEVICE) for each in (H, J, J)]


def packed_windows() -> None:
    """Forests of segments of other lengths side by side; windows of one token, of more than a block, none."""
    for lengths, parents, H, J, D in (
        ([9, 4, 1, 3], [-1, 0, 0, -1], 4, 2, 6),
        ([1], [-1], 1, 1, 1),
        ([40, 37, 3], [-1, 0, -1], 2, 1, 24),
    ):
        packing = Packing.build(lengths, parents, num_buckets=2, device=DEVICE)
        inputs = heads(sum(lengths), H, J, D)
        for window in (1, 33, None):
            compare_attention(inputs, packing, window)


def long_windows() -> None:
    """Blocks that all queries see, between edges; the same bits twice, and whatever comes later; large scores."""
    packing = Packing.build([140], num_buckets=1, device=DEVICE)
    inputs = heads(140, 2, 1, 8)
    compare_attention(inputs, packing, None)
    one, two = (compare_attention(inputs, packing, 70) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = [t.clone() for t in inputs]
    for t in changed:
        t[130:] = 7.0
    with in_triton(), torch.no_grad():
        assert torch.equal(packed_attention(*changed, packing, 70)[:130], one["y"][:130])
    compare_attention([inputs[0] * 20, inputs[1], inputs[2]], packing, 70, 2e-4)


def windows_of_padding() -> None:
    """Queries of `last` 0 give zeros and take nothing, whatever lies in them."""
    from swannery.kernels.sliding_window_triton import window_attention_triton

    q, k, v = (torch.randn(2, each, size, 5, device=DEVICE) for each, size in ((4, 40), (2, 50), (2, 50)))
    last = torch.arange(11, 51, device=DEVICE).repeat(2, 1)
    last[0, 30:], last[1] = 0, 0
    q[0, :, 30:] = 1e4
    found = attention_results(lambda *qkv: window_attention_triton(*qkv, last, 8), [q, k, v])
    assert all(bool(torch.isfinite(t).all()) for t in found.values())
    assert not found["y"][1].any() and not found["y"][0, :, 30:].any() and not found["q"][0, :, 30:].any()
    assert not found["k"][1].any() and not found["v"][1].any() and not found["k"][0, :, 40:].any()
    alone = attention_results(
        lambda *qkv: window_attention_triton(*qkv, last[:1, :30], 8), [q[:1, :, :30], k[:1], v[:1]]
    )
    assert torch.equal(alone["y"], found["y"][:1, :, :30])


def rings() -> None:
    """Rings that are not full, that have gone round, of rows that are empty."""
    for B, H, J, D, w in ((3, 4, 2, 6, 9), (2, 3, 3, 16, 70), (1, 16, 1, 33, 130), (5, 2, 2, 1, 1)):
        q, keys, values = (torch.randn(*shape, device=DEVICE) for shape in ((B, H, D), (B, J, D, w), (B, J, w, D)))
        lengths = torch.tensor([2 * w, 0, w // 2 + 1, 1, w], device=DEVICE)[:B]
        with in_triton(), torch.no_grad():
            got = ring_decode_attention(q, keys, values, lengths)
        near({"y": got}, {"y": ring_decode_attention(q.double(), keys.double(), values.double(), lengths)})


def attention_in_half_precision() -> None:
    packing = Packing.build([50, 9], [-1, 0], num_buckets=2, device=DEVICE)
    compare_attention([t.bfloat16() for t in heads(59, 4, 2, 16)], packing, 20, 2e-2)
    q, keys, values = (
        torch.randn(*shape, device=DEVICE).bfloat16() for shape in ((2, 4, 8), (2, 2, 8, 40), (2, 2, 40, 8))
    )
    lengths = torch.tensor([33, 90], device=DEVICE)
    with in_triton(), torch.no_grad():
        got = ring_decode_attention(q, keys, values, lengths)
    near({"y": got}, {"y": ring_decode_attention(q.double(), keys.double(), values.double(), lengths)}, 2e-2)


head_checks = [
    loss_head, loss_head_repeats, head_dispatch, loss_head_in_half_precision,
    packed_windows, long_windows, windows_of_padding, rings, attention_in_half_precision,
]  # fmt: skip

if __name__ == "__main__":
    import time

    torch.manual_seed(0)
    for check in head_checks:
        began = time.perf_counter()
        check()
        print(check.__name__, f"{time.perf_counter() - began:.1f} s")
