"""Work cut into blocks that stay in a CPU core's cache: what is done to a block after its first touch costs no memory traffic."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

_NUMBERS = 1 << 18
"""Of a block: 1 MB in fp32, half of a core's L2 cache."""


def blocks(x: Tensor, numbers_each: int, share: int = 1) -> Iterator[slice]:
    """Slices along the first dimension of x, whose entries take `numbers_each` numbers, of which a block holds 1 / share of the
    usual count. One slice on other devices, whose kernels are launched apart."""
    count = len(x)
    size = max(_NUMBERS // share // numbers_each, 1) if x.device.type == "cpu" else max(count, 1)
    return (slice(start, start + size) for start in range(0, count, size))
