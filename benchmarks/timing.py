"""How benchmarks time: CPU time at the best of several repeats, since other programs only add to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any


def best_us(work: Callable[[int], Any], count: int, repeats: int) -> float:
    """Microseconds of CPU of one of `count`, at the best of the repeats. Work that awaits does so on one loop."""
    times = []
    with asyncio.Runner() as runner:
        for _ in range(repeats + 1):
            start = time.process_time()
            pending = work(count)
            if isinstance(pending, Coroutine):
                runner.run(pending)
            times.append(time.process_time() - start)
    return min(times[1:]) / count * 1e6
