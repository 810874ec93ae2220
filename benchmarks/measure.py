"""What the benchmarks share: CPU time, peak memory, measurements in a process of their own, bars and the JSON line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any


def cpu_s(work: Callable[[], Any], repeats: int = 3) -> float:
    """The best of the repeats: other programs only add to it."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


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


def peak_bytes() -> int:
    """The most memory that this process had (getrusage would count that of the process which started it)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def in_child(script: str, *arguments: str) -> dict[str, Any]:
    """What a script of benchmarks/ prints as its last line when called with `--child` and the arguments."""
    command = [sys.executable, script, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def report(benchmark: str, figures: Mapping[str, float], bars: Mapping[str, tuple[str, float]]) -> None:
    """Print a table, and one JSON object on the last line."""
    judged = {
        name: {
            "value": figures[name],
            "bar": f"{sign} {bar:g}",
            "passes": bool(figures[name] >= bar if sign == ">=" else figures[name] <= bar),
        }
        for name, (sign, bar) in bars.items()
        if name in figures
    }
    for name, value in figures.items():
        told = f"{judged[name]['bar']:>8}  {'met' if judged[name]['passes'] else 'MISSED'}" if name in judged else ""
        print(f"{name:44} {value:12.4g}  {told}")
    print(json.dumps({"benchmark": benchmark, "figures": figures, "bars": judged}))
