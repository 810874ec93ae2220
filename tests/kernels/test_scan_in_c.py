"""The scan in C: the torch form's function in float64, by any number of threads the same bits, and a tree's bits its own."""

from collections.abc import Iterator

import pytest
import torch

from swannery.kernels.backend import SETTING
from swannery.kernels.compiled import library
from swannery.kernels.packing import Packing
from swannery.kernels.ssd import ssd_chunks

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler here")

FORESTS = {
    "a group": ([30, 40, 50, 20], [-1, 0, 0, -1]),
    "deep": ([5, 40, 133, 1, 64], [-1, -1, 0, 1, 2]),
    "apart": ([17, 16, 33], [-1, -1, -1]),
}
SIZES = {
    "tiny": (16, 2, 64, 1, 16),
    "odd": (8, 6, 10, 3, 20),
    "chunk of 40": (40, 4, 24, 2, 8),
    "nano": (128, 2, 64, 1, 128),
}


@pytest.fixture(autouse=True)
def in_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SETTING, "c")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Case:
    """Inputs of a scan as a model gives them: x, B and C are parts of wider rows."""

    def __init__(self, forest: str, size: str, *, goes_on: bool = False) -> None:
        torch.manual_seed(0)
        (lengths, parents), (Q, H, P, G, N) = FORESTS[forest], SIZES[size]
        self.packing, self.sizes = Packing.build(lengths, parents, chunk_size=Q), (H, P, G, N)
        valid_CQ = self.packing.valid_CQ
        C = len(valid_CQ)
        self.inputs = [
            torch.randn(C, Q, H * P + 2 * G * N), torch.rand(C, Q, H) * 0.3 * valid_CQ.unsqueeze(2), -torch.rand(H) * 3 - 0.1,
        ]  # fmt: skip
        self.initial = torch.randn(len(lengths), H, P, N) if goes_on else None
        self.last = self.packing.last_chunk_S if goes_on else None
        self.slope = torch.randn(C, Q, H, P)

    def run(self, dtype: torch.dtype = torch.float32, threads: int = 2) -> list[torch.Tensor]:
        """Outputs, states if they go on, and gradients."""
        torch.set_num_threads(threads)
        rows, dt, A = leaves = [t.to(dtype).requires_grad_() for t in self.inputs]
        H, P, G, N = self.sizes
        x, B, C = rows.split([H * P, G * N, G * N], -1)
        parts = (x.unflatten(-1, (H, P)), dt, A, B.unflatten(-1, (G, N)), C.unflatten(-1, (G, N)))
        initial = None if self.initial is None else self.initial.to(dtype)
        y, states = ssd_chunks(*parts, self.packing.levels, initial, self.last)
        gradients = torch.autograd.grad(y, leaves, self.slope.to(dtype))
        return [y.detach(), *([] if states is None else [states]), *gradients]


@pytest.mark.parametrize("goes_on", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("forest", FORESTS)
def test_it_is_the_torch_forms_function(forest: str, size: str, goes_on: bool) -> None:
    case = Case(forest, size, goes_on=goes_on)
    for got, exact in zip(case.run(), case.run(torch.float64), strict=True):
        assert got.isfinite().all()
        assert float((got - exact).abs().max() / exact.abs().max()) < 1e-5


@pytest.mark.parametrize("forest", FORESTS)
def test_threads_change_no_bit(forest: str) -> None:
    case = Case(forest, "odd")
    assert all(map(torch.equal, case.run(threads=1), case.run(threads=3)))


def test_a_trees_bits_are_its_own() -> None:
    case = Case("apart", "tiny")
    y_CQHP, grad_rows, grad_dt, _ = case.run()
    trees = torch.zeros(len(y_CQHP), dtype=torch.int64)
    start, tree = 0, torch.arange(3)
    for depth, level in enumerate(case.packing.levels):
        tree = tree[level] if depth else tree
        trees[start : start + len(level)] = tree
        start += len(level)
    own = trees == 2
    case.packing = Packing.build([33], chunk_size=16)
    case.inputs, case.slope = [t[own] for t in case.inputs[:2]] + case.inputs[2:], case.slope[own]
    alone = case.run()
    assert all(map(torch.equal, alone[:3], (y_CQHP[own], grad_rows[own], grad_dt[own])))
