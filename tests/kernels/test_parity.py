"""The cases of benchmarks/kernels.py --parity: every operation in its torch form against itself in float64."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

NAMES = (
    "rms_norm", "gated_rms_norm", "causal_conv1d_chunks", "causal_conv1d_step", "ssd_chunks", "ssd_step", "route", "linear", "relu_squared",
    "experts", "linear_logprobs", "weighted_logprobs", "packed_attention", "ring_decode_attention",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_near_itself_in_float64(name: str, benchmark: Callable[[str], ModuleType]) -> None:
    module = benchmark("kernel_cases")
    made = module.cases(module.SMALL, "cpu", torch.float32)
    assert set(made) == set(NAMES)
    for got, exact in zip(made[name].run(), made[name].run(dtype=torch.float64), strict=True):
        assert float((got - exact).abs().max() / exact.abs().max()) <= 1e-5
