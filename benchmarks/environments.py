"""What environments cost: CPU time of an episode, a step, an import, a snapshot; beside three peers in the same run.

    python benchmarks/environments.py [--peers-python PATH] [--repeats 15] [--episodes 10240]

Peers have an interpreter of their own (gymnasium, skyrl-gym 0.4.0, fhaviary 0.37.0); one that cannot be imported is null, with
the reason. CPU time is the best of the repeats, since other programs only add to it; of the episodes at once it is the median
of three processes, of imports the best of five. Prints a table, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
from typing import Any

import environment_peers
from environment_peers import CASES, STEPS
from measure import best_us

BARS: dict[str, float] = {
    "single_turn_us": 15, "tool_step_us": 25, "import_cpu_s": 0.5, "imports_with_torch": 0, "dict_ms": 1, "sqlite_ms": 1,
    "at_once_cpu_s": 2, "at_once_rss_mb": 200, "at_once_lag_p99_ms": 50, "at_once_start_s": 1,
    "at_once_lag_p99_ms_as_in_training": 50,
}  # fmt: skip


def families() -> None:
    """Registers the environments that are timed."""
    from swannery.environments import Env, State, Task, Turn, register, reward, tool

    @register("benchmark/Sum-v0")
    class Sum(Env):
        def task(self, rng: Any) -> Task:
            return Task("What is 2+2?", "4")

        @reward
        def exact(self, turn: Turn) -> bool:
            return turn.answer == self.task.answer  # type: ignore[attr-defined]

    @register("benchmark/Tools-v0", max_turns=STEPS + 1, tool_timeout_s=30.0)
    class Tools(Sum):
        @tool
        async def add(self, a: int, b: int) -> int:
            """Add."""
            return a + b

        @tool
        async def wait(self, seconds: float) -> str:
            """Wait."""
            await asyncio.sleep(seconds)
            return "waited"

    @register("benchmark/Shop-v0")
    class Shop(Sum):
        tree = State.dict()
        db = State.sqlite("CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER, note TEXT)")

        def start(self) -> None:
            self.tree["orders"] = [{"id": i, "paid": True, "items": [i, 2], "note": f"{i} " * 80} for i in range(2600)]
            self.db.fill("orders", [(i, 1, f"{i} " * 80) for i in range(2600)])
            assert len(json.dumps(self.tree)) > 1_000_000 < len(self.db.snapshot())


def own_figures(repeats: int) -> dict[str, float]:
    families()
    from swannery.environments import ToolCall, Turn, make

    def episodes(count: int, seeded: bool = False, made: bool = False) -> None:
        env: Any = make("benchmark/Sum-v0")
        for seed in range(count):
            env = make("benchmark/Sum-v0") if made else env
            env.reset(seed=seed if seeded else None)
            env.step("4")

    async def steps(count: int) -> None:
        env, turn = make("benchmark/Tools-v0"), Turn(tool_calls=(ToolCall("add", {"a": 2, "b": 2}),))
        for _ in range(count // STEPS):
            await env.areset()
            for _ in range(STEPS):
                await env.astep(turn)

    def travels(count: int, state: Any) -> None:
        for _ in range(count):
            state.restore(state.snapshot())

    shop: Any = make("benchmark/Shop-v0")
    shop.reset(seed=0)
    return {
        "single_turn_us": best_us(episodes, 1000, repeats),
        "single_turn_seeded_us": best_us(lambda n: episodes(n, seeded=True), 1000, repeats),
        "single_turn_made_us": best_us(lambda n: episodes(n, made=True), 1000, repeats),
        "tool_step_us": best_us(steps, 100 * STEPS, repeats),
        "dict_ms": best_us(lambda n: travels(n, shop.tree), 10, repeats) / 1000,
        "sqlite_ms": best_us(lambda n: travels(n, shop.db), 10, repeats) / 1000,
    }


async def run_at_once(num_episodes: int) -> dict[str, float]:
    """What episodes that all await a one-second tool together cost this process. A few start at each turn of the loop."""
    families()
    from swannery.environments import ToolCall, Turn, make

    loop, late, begun, envs, tasks = asyncio.get_running_loop(), [], [], [], []
    turn = Turn(tool_calls=(ToolCall("wait", {"seconds": 1.0}),))

    async def tick() -> None:
        while True:
            due = loop.time() + 0.01
            await asyncio.sleep(0.01)
            late.append(loop.time() - due)

    async def episode(env: Any) -> None:
        begun.append(loop.time())
        await env.astep(turn)
        assert (await env.astep("4"))[1] == 1.0

    ticker = loop.create_task(tick())
    for index in range(2 * num_episodes):  # first all are reset, then all take their turn
        if index < num_episodes:
            envs.append(make("benchmark/Tools-v0"))
            await envs[-1].areset()
        else:
            tasks.append(loop.create_task(episode(envs.pop())))
        if index % 16 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    ticker.cancel()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "at_once_cpu_s": used.ru_utime + used.ru_stime,
        "at_once_rss_mb": used.ru_maxrss * 1024 / 1e6,
        "at_once_lag_p99_ms": sorted(late)[int(len(late) * 0.99)] * 1000,
        "at_once_start_s": begun[-1] - begun[0],  # under 1: the last began before the first had ended
    }


def fresh(*arguments: str, python: str = sys.executable, file: str = __file__) -> dict[str, Any]:
    """What a file prints in a process of its own."""
    return json.loads(subprocess.run([python, file, *arguments], check=True, stdout=subprocess.PIPE).stdout)


def fresh_figures(num_episodes: int) -> dict[str, float]:
    seconds, figures = [], {"imports_with_torch": 0.0}
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = "import swannery.environments, sys; sys.exit('torch' in sys.modules)"
        figures["imports_with_torch"] += subprocess.run([sys.executable, "-c", code]).returncode
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    figures["import_cpu_s"] = min(seconds)
    for child, suffix in (("at_once", ""), ("as_in_training", "_as_in_training")):
        runs = [fresh("--child", child, "--episodes", str(num_episodes)) for _ in range(3)]
        figures |= {name + suffix: statistics.median(run[name] for run in runs) for name in runs[0]}
    return figures


def print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("case", "measured", "bar", "")
    for name, value in sorted(result["figures"].items(), key=lambda item: item[0] not in BARS):
        bar = result["bars"].get(name)
        verdict = "" if bar is None else "met" if bar["passes"] else "[red]missed"
        table.add_row(name, f"{value:.3g}", f"{bar['bar']:g}" if bar else "", verdict)
    for peer, figures in result["peers"].items():
        for case in CASES:
            told = figures.get("reason", "-") if figures[case] is None else f"{figures[case]:.3g}"
            ratio = result["ours_over_theirs"][peer].get(case)
            table.add_row(f"{peer}: {case}", told, "", f"ours / theirs: {ratio:.3g}" if ratio else "")
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--episodes", type=int, default=10_240, help="at once, in one process")
    parser.add_argument("--child", choices=["at_once", "as_in_training"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.child == "as_in_training":  # rl/process.py: full collections, which stop all episodes, are rarer
            gc.set_threshold(700, 10, 1000)
        return print(json.dumps(asyncio.run(run_at_once(options.episodes))))
    # Fresh processes first: a child's peak memory counts that of the process which started it.
    figures = fresh_figures(options.episodes) | own_figures(options.repeats)
    peers = fresh(str(options.repeats), python=options.peers_python, file=environment_peers.__file__)
    bars = {name: {"value": figures[name], "bar": bar, "passes": figures[name] <= bar} for name, bar in BARS.items()}
    ratios = {name: {case: figures[case] / peer[case] for case in CASES if peer[case]} for name, peer in peers.items()}
    result = {"benchmark": "environments", "figures": figures, "bars": bars, "peers": peers, "ours_over_theirs": ratios}
    print_table(result)
    print(json.dumps(result | {"episodes": options.episodes, "passes": all(b["passes"] for b in bars.values())}))


if __name__ == "__main__":
    main()
