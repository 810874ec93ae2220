"""Products of matrices and experts in C: torch's function, in whatever company, by any number of threads, and at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from swannery.kernels.backend import SETTING
from swannery.kernels.compiled import library
from swannery.kernels.experts import experts, experts_ref
from swannery.kernels.linear import linear, linear_ref, times
from swannery.kernels.relu_squared import relu_squared, relu_squared_ref

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler here")


@pytest.fixture(autouse=True)
def in_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SETTING, "c")
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def near(got: torch.Tensor, exact: torch.Tensor) -> None:
    assert float((got - exact).abs().max() / exact.abs().max()) < 1e-6


SIZES = [(1, 1, 1), (3, 7, 5), (8, 32, 64), (37, 300, 33), (130, 256, 31), (9, 600, 97)]


@pytest.mark.parametrize("M,K,N", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_product_is_torchs_whatever_the_sizes_and_strides(M: int, K: int, N: int, threads: int) -> None:
    torch.set_num_threads(threads)
    a, b = torch.randn(M, K), torch.randn(K, N)
    exact = a.double() @ b.double()
    near(times(a, b), exact)
    near(times(a.T.contiguous().T, b), exact)
    wide = torch.randn(M, N + 3)
    before = wide.clone()
    near(times(a, b, wide[:, :N], add=True), exact + before[:, :N].double())
    assert torch.equal(wide[:, N:], before[:, N:])
    near(times(a, b.T.contiguous().T), exact)  # rows that are not contiguous are left to torch


@pytest.mark.parametrize("d,n", [(5, 3), (64, 40), (300, 33)])
def test_a_layer_and_its_gradients_are_torchs(d: int, n: int) -> None:
    x, weight = torch.randn(2, 70, d), torch.randn(n, d)
    found, exact = [], []
    for kind, form, results in ((torch.float32, linear, found), (torch.float64, linear_ref, exact)):
        inputs = [t.to(kind).requires_grad_() for t in (x, weight)]
        y = form(*inputs)
        slope = torch.linspace(-1, 1, n).to(kind).expand_as(y)  # a gradient without memory of its own
        results += [y.detach(), *torch.autograd.grad(y, inputs, slope)]
    for got, wanted in zip(found, exact, strict=True):
        near(got, wanted)


def test_a_rows_bits_depend_on_it_alone() -> None:
    x, weight = torch.randn(200, 90), torch.randn(50, 90)
    torch.set_num_threads(1)
    alone = linear(x, weight)
    torch.set_num_threads(3)
    assert torch.equal(linear(x, weight), alone)
    assert torch.equal(linear(x[77:], weight), alone[77:])


def some_experts(N: int, E: int, K: int, d: int, f: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The last expert is chosen by nobody."""
    chosen = torch.stack([torch.randperm(E - 1)[:K] for _ in range(N)])
    return [torch.randn(N, d), torch.rand(N, K), torch.randn(E, f, d) / d**0.5, torch.randn(E, d, f) / f**0.5], chosen


def with_gradients(inputs: list[torch.Tensor], chosen: torch.Tensor, form: object = experts) -> list[torch.Tensor]:
    x, gates, up, down = leaves = [t.detach().clone().requires_grad_() for t in inputs]
    y = form(x, gates, chosen, up, down)  # type: ignore[operator]
    return [y.detach(), *torch.autograd.grad((y * torch.linspace(-1, 1, y.shape[1])).sum(), leaves)]


@pytest.mark.parametrize("N,E,K,d,f", [(1, 2, 1, 3, 5), (40, 5, 3, 20, 36), (600, 4, 2, 32, 64), (301, 9, 4, 65, 33)])
def test_experts_and_their_gradients_are_the_references(N: int, E: int, K: int, d: int, f: int) -> None:
    inputs, chosen = some_experts(N, E, K, d, f)
    torch.set_num_threads(2)
    exact = with_gradients([t.double() for t in inputs], chosen, experts_ref)
    for got, wanted in zip(with_gradients(inputs, chosen), exact, strict=True):
        near(got, wanted)


def test_experts_are_the_same_bits_by_any_number_of_threads_and_two_at_once() -> None:
    cases = [some_experts(500, 6, 2, 48, 40) for _ in range(4)]
    torch.set_num_threads(1)
    alone = [with_gradients(*case) for case in cases]
    torch.set_num_threads(2)
    with ThreadPoolExecutor(4) as pool:  # as a learner and an engine call them
        for _ in range(10):
            for found, expected in zip(pool.map(lambda case: with_gradients(*case), cases), alone, strict=True):
                assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (33, 5), (3000, 130)])
def test_relu_squared_and_its_gradient_are_the_references(shape: tuple[int, int]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(shape, dtype=torch.float64)
    (got,), (exact,) = (torch.autograd.grad(f(x), x, slope) for f in (relu_squared, relu_squared_ref))
    torch.testing.assert_close(relu_squared(x), relu_squared_ref(x), rtol=0, atol=0)
    torch.testing.assert_close(got, exact)
    with torch.no_grad():
        torch.testing.assert_close(relu_squared(x), relu_squared_ref(x), rtol=0, atol=0)
