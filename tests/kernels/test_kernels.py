"""Each kernel against its reference in float64, its gradients, and packed against separate."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from swannery.kernels.attention import attention_ref, packed_attention
from swannery.kernels.conv1d import causal_conv1d_chunks, causal_conv1d_ref, causal_conv1d_step
from swannery.kernels.experts import experts, experts_ref
from swannery.kernels.gather import gather_rows, gather_rows_ref
from swannery.kernels.linear_logprobs import linear_logprobs, linear_logprobs_ref, weighted_logprobs
from swannery.kernels.norm import gated_rms_norm, rms_norm, rms_norm_ref
from swannery.kernels.packing import Packing
from swannery.kernels.router import route
from swannery.kernels.ssd import ssd_chunks, ssd_ref, ssd_step

FOREST = dict(lengths=[11, 1, 7, 9, 3], parents=[-1, 0, 0, 2, -1])


def paths(rows: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each segment's whole sequence, and which of its rows are the segment's own."""
    starts = torch.tensor([0, *FOREST["lengths"]]).cumsum(0)
    index: list[Tensor] = []
    found = []
    for s, parent in enumerate(FOREST["parents"]):
        own = torch.arange(int(starts[s]), int(starts[s + 1]))
        index.append(torch.cat([index[parent], own]) if parent >= 0 else own)
        found.append((rows[index[s]], own))
    return found


@pytest.mark.parametrize("chunk_size", [4, 8, 16, 64])
@pytest.mark.parametrize("groups", [1, 2])
def test_chunked_scan_of_a_packed_forest_equals_the_recurrence(chunk_size: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    N, H, P, S = sum(FOREST["lengths"]), 4, 3, 5
    rand = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    x, dt, A = rand(N, H, P), rand(N, H).abs() * 3, -rand(H).abs() * 4
    B, C = rand(N, groups, S), rand(N, groups, S)
    packing = Packing.build(**FOREST, chunk_size=chunk_size)
    chunked = [gather_rows(t.flatten(1), packing.taps_CX[:, 3:]).unflatten(2, t.shape[1:]) for t in (x, dt, B, C)]
    chunked[1] = chunked[1] * packing.valid_CQ.unsqueeze(2)
    y, after = ssd_chunks(
        chunked[0], chunked[1], A, chunked[2], chunked[3], packing.levels, last_S=packing.last_chunk_S
    )
    assert after is not None
    y = y.reshape(-1, H, P)[packing.token_slots_N]
    index_paths = paths(torch.arange(N))
    for s, (path, own) in enumerate(index_paths):
        expected, state = ssd_ref(x[path], dt[path], A, B[path], C[path])
        torch.testing.assert_close(y[own], expected[-len(own) :], rtol=0, atol=1e-12)
        torch.testing.assert_close(after[s], state, rtol=0, atol=1e-12)


def test_scan_step_equals_the_recurrence() -> None:
    x, dt, A = torch.randn(6, 2, 3).double(), torch.rand(6, 2).double(), -torch.rand(2).double()
    B, C = torch.randn(6, 1, 4).double(), torch.randn(6, 1, 4).double()
    expected, final = ssd_ref(x, dt, A, B, C)
    state = torch.zeros(1, 2, 3, 4).double()
    steps = [ssd_step(x[t : t + 1], dt[t : t + 1], A, B[t : t + 1], C[t : t + 1], state) for t in range(6)]
    torch.testing.assert_close(torch.cat(steps), expected)
    torch.testing.assert_close(state[0], final)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_extreme_decays_stay_finite(scale: float) -> None:
    packing = Packing.build([40], chunk_size=8)
    x, dt = torch.randn(5, 8, 2, 3, requires_grad=True), torch.full((5, 8, 2), scale, requires_grad=True)
    B, C = torch.randn(5, 8, 1, 4), torch.randn(5, 8, 1, 4)
    y, _ = ssd_chunks(x, dt, torch.tensor([-1.0, -16.0]), B, C, packing.levels)
    y.sum().backward()
    assert bool(torch.isfinite(y).all() and torch.isfinite(x.grad).all() and torch.isfinite(dt.grad).all())


@pytest.mark.parametrize("groups", [1, 2])
def test_scan_gradients(groups: int) -> None:
    torch.manual_seed(0)
    packing = Packing.build([5, 3, 6], [-1, 0, 0], chunk_size=4)
    C = len(packing.taps_CX)
    shapes = [(C, 4, 4, 3), (C, 4, 4), (4,), (C, 4, groups, 2), (C, 4, groups, 2)]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    inputs[1], inputs[2] = inputs[1].abs(), -inputs[2].abs()
    assert gradcheck(lambda *a: ssd_chunks(*a, packing.levels)[0], [t.requires_grad_() for t in inputs])


def test_convolution_of_a_packed_forest_equals_each_sequence_alone_and_its_steps() -> None:
    torch.manual_seed(0)
    N, D = sum(FOREST["lengths"]), 5
    x, weight, bias = torch.randn(N, D).double(), torch.randn(D, 4).double(), torch.randn(D).double()
    packing = Packing.build(**FOREST, chunk_size=4)
    taps = torch.where(packing.taps_CX < N, packing.taps_CX, -1)
    y = causal_conv1d_chunks(gather_rows(x, taps), weight, bias).reshape(-1, D)[packing.token_slots_N]
    for rows, own in paths(x):
        expected = causal_conv1d_ref(rows, weight, bias)
        torch.testing.assert_close(y[own], expected[-len(own) :])
        inputs = torch.zeros(1, 3, D).double()
        steps = [causal_conv1d_step(row.unsqueeze(0), weight, bias, inputs) for row in rows]
        torch.testing.assert_close(torch.cat(steps), expected)


def test_convolution_gradients() -> None:
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 7, 5), (5, 4), (5,))]
    assert gradcheck(causal_conv1d_chunks, inputs)


def test_attention_of_a_packed_forest_equals_each_sequence_alone() -> None:
    torch.manual_seed(0)
    N = sum(FOREST["lengths"])
    q, k, v = torch.randn(N, 4, 8).double(), torch.randn(N, 2, 8).double(), torch.randn(N, 2, 8).double()
    y = packed_attention(q, k, v, Packing.build(**FOREST, num_buckets=3)).view(N, 4, 8)
    for path, own in paths(torch.arange(N)):
        expected = attention_ref(q[path], k[path], v[path])
        torch.testing.assert_close(y[own], expected[-len(own) :])


def test_experts_equal_the_reference_and_their_gradients() -> None:
    torch.manual_seed(0)
    x, up, down = torch.randn(6, 4).double(), torch.randn(3, 5, 4).double(), torch.randn(3, 4, 5).double()
    gates, chosen = torch.rand(6, 2).double(), torch.stack([torch.randperm(3)[:2] for _ in range(6)])
    torch.testing.assert_close(experts(x, gates, chosen, up, down), experts_ref(x, gates, chosen, up, down))
    inputs = [t.requires_grad_() for t in (x, gates, up, down)]
    assert gradcheck(lambda x, g, u, d: experts(x, g, chosen, u, d), inputs)


def test_the_selection_bias_selects_and_does_not_weigh() -> None:
    x, weight = torch.randn(50, 8), torch.randn(4, 8)
    plain, _, _ = route(x, weight, torch.zeros(4), top_k=4, scale=2.5)
    gates, chosen, _ = route(x, weight, torch.tensor([0.0, 0.0, 0.0, 9.0]), top_k=1, scale=2.5)
    assert bool((chosen == 3).all())
    torch.testing.assert_close(gates, torch.full_like(gates, 2.5))
    torch.testing.assert_close(plain.sum(1), torch.full((50,), 2.5))


def test_replayed_routes_keep_live_gates_and_missing_ones_are_routed_anew() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(9, 8), torch.randn(4, 8, requires_grad=True), torch.zeros(4)
    gates, chosen, _ = route(x, weight, bias, top_k=2, scale=1.0)
    replay = chosen.flip(0).clone()
    replay[3] = -1
    replayed, taken, _ = route(x, weight, bias, top_k=2, scale=1.0, replay_NK=replay)
    assert torch.equal(taken[3], chosen[3]) and torch.equal(taken[:3], replay[:3])
    replayed[:, 0].sum().backward()
    assert weight.grad is not None and float(weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("tile", [1, 9, 16, 1000])
def test_linear_logprobs_equal_the_full_logits_and_their_gradients(tile: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    targets, temperature = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([0.5, 1.0, 2.0, 1.0, 0.7]).double()
    support = torch.tensor([[0, 5, -1], [6, 1, 2], [3, -1, -1], [-1, -1, -1], [2, 1, 0]])
    for kept in (None, support):
        for got, expected in zip(
            linear_logprobs(x, weight, targets, temperature, kept, tile=tile),
            linear_logprobs_ref(x, weight, targets, temperature, kept),
            strict=True,
        ):
            torch.testing.assert_close(got, expected)
        inputs = [x.requires_grad_(), weight.requires_grad_()]
        assert gradcheck(lambda x, w, s=kept: linear_logprobs(x, w, targets, temperature, s, tile=tile)[0], inputs)


@pytest.mark.parametrize("rows", [1, 14, 1000])
def test_one_pass_gives_the_value_and_gradient_of_two(rows: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 4).double().requires_grad_(), torch.randn(7, 4).double().requires_grad_()
    targets, temperature = torch.tensor([0, 6, 3, 3, 1]), torch.tensor([0.5, 1.0, 2.0, 1.0, 0.7]).double()
    coefficients = torch.tensor([1.0, 0.0, -2.0, 0.5, 3.0]).double()
    for support in (None, torch.tensor([[0, 5, -1], [6, 1, 2], [3, -1, -1], [-1, -1, -1], [2, 1, 0]])):
        logprobs, entropy = linear_logprobs(x, weight, targets, temperature, support, counted_N=coefficients != 0)
        expected = torch.autograd.grad((coefficients * logprobs).sum() * 3, [x, weight])
        value, found, spread = weighted_logprobs(x, weight, targets, temperature, coefficients, support, rows=rows)
        torch.testing.assert_close(torch.autograd.grad(value * 3, [x, weight]), expected)
        torch.testing.assert_close((found, spread), (logprobs.detach(), entropy))
        assert found[1] == 0 and float(value.detach()) == pytest.approx(float((coefficients * found).sum()))
        full, _ = linear_logprobs_ref(x, weight, targets, temperature, support)
        torch.testing.assert_close(found[[0, 2, 3, 4]], full[[0, 2, 3, 4]].detach())


def test_tokens_that_do_not_count_leave_no_trace() -> None:
    x, weight = torch.randn(4, 3).requires_grad_(), torch.randn(9, 3).requires_grad_()
    counted, ones = torch.tensor([True, False, True, False]), torch.ones(4)
    with torch.no_grad():
        x[1] = float("nan")
    logprobs, entropy = linear_logprobs(x, weight, torch.arange(4), ones, counted_N=counted)
    logprobs.sum().backward()
    assert logprobs[1] == 0 and entropy[3] == 0 and bool((logprobs[[0, 2]] < 0).all())
    assert torch.equal(x.grad[[1, 3]], torch.zeros(2, 3)) and bool(torch.isfinite(weight.grad).all())


def test_a_support_of_one_id_is_certain_and_without_one_all_are_possible() -> None:
    x, weight = torch.randn(2, 4), torch.randn(7, 4)
    support, ones = torch.tensor([[3, -1], [-1, -1]]), torch.ones(2)
    logprobs, entropy = linear_logprobs(x, weight, torch.tensor([3, 3]), ones, support)
    whole, _ = linear_logprobs(x, weight, torch.tensor([3, 3]), ones)
    assert logprobs[0] == 0 and entropy[0] == 0 and logprobs[1] == whole[1] < 0


def test_norms_equal_the_reference_and_their_gradients() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(rms_norm(x, weight, 1e-5), rms_norm_ref(x, weight, 1e-5))
    gate = torch.randn(5, 6, dtype=torch.float64)
    parts = [
        rms_norm_ref(h * torch.nn.functional.silu(g), w, 1e-5)
        for h, g, w in zip(x.split(3, 1), gate.split(3, 1), weight.split(3), strict=True)
    ]
    torch.testing.assert_close(gated_rms_norm(x, gate, weight, 1e-5, 2), torch.cat(parts, 1))
    assert gradcheck(lambda x, w: rms_norm(x, w, 1e-5), [x.requires_grad_(), weight.requires_grad_()])


def test_padding_gives_zeros_and_swallows_any_gradient() -> None:
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[2, -1], [0, 2]])
    torch.testing.assert_close(gather_rows(x, index), gather_rows_ref(x, index))
    assert gradcheck(lambda x: gather_rows(x, index), [x])
    gather_rows(x, index).backward(torch.tensor([[[1.0, 1.0], [float("nan")] * 2], [[1.0, 1.0]] * 2]).double())
    assert torch.equal(x.grad, torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]).double())


@pytest.mark.parametrize(("lengths", "parents"), [([], []), ([0], [-1]), ([3], [0]), ([3, 2], [-1])])
def test_impossible_packings_are_refused(lengths: list[int], parents: list[int]) -> None:
    with pytest.raises(ValueError, match="segment"):
        Packing.build(lengths, parents)
