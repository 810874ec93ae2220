"""The worker returns values, turns every failure into a fault, and leaves no process behind."""

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swannery.messages import EnvironmentFault
from swannery.sandbox import Pool, Worker

FUNCTIONS = [
    f"_functions:{name}"
    for name in ("double environment sleep spin fail end start_program shout garble write take_memory not_json".split())
]
FUNCTIONS.append("tempfile:gettempdir")


@pytest.fixture(autouse=True)
def functions_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(FUNCTIONS)
    yield worker
    worker.close()


def runs(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def fault_of(worker: Worker, function: str, *arguments: object, timeout_s: float = 5.0) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        worker.call(f"_functions:{function}", *arguments, timeout_s=timeout_s)
    return caught.value


def test_a_warm_child_serves_many_calls(worker: Worker) -> None:
    assert worker.pid is None
    assert [worker.call("_functions:double", n, timeout_s=5) for n in (1, 2.5)] == [2, 5.0]
    first = worker.pid
    assert worker.call("_functions:double", 4, timeout_s=5) == 8
    assert worker.pid == first


def test_only_allowed_functions_are_called(worker: Worker) -> None:
    with pytest.raises(ValueError, match="not among the allowed functions"):
        worker.call("os:getpid", timeout_s=5)
    with pytest.raises(ValueError, match="package.module:function"):
        Worker(["os.getpid"])


def test_the_child_sees_nothing_of_our_environment(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "swan")
    names = set(worker.call("_functions:environment", timeout_s=5))
    assert names <= {"PYTHONHASHSEED", "PYTHONUTF8", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LC_CTYPE"}


@pytest.mark.parametrize("function", ["spin", "sleep"])
def test_a_late_call_is_a_fault_and_the_next_call_works(worker: Worker, function: str) -> None:
    worker.call("_functions:double", 1, timeout_s=5)
    late, began = worker.pid, time.monotonic()
    fault = fault_of(worker, function, *([60] if function == "sleep" else []), timeout_s=0.3)
    assert fault.kind == "grader_timeout" and time.monotonic() - began < 1.3
    assert not runs(late)
    assert worker.call("_functions:double", 3, timeout_s=5) == 6


def test_programs_that_the_call_started_die_with_it(worker: Worker) -> None:
    if os.getuid():
        pytest.skip("RLIMIT_NPROC lets only root start programs in the worker")
    worker.call("_functions:double", 1, timeout_s=5)
    group = worker.pid
    assert group is not None
    assert fault_of(worker, "start_program", timeout_s=0.3).kind == "grader_timeout"
    members = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and runs(int(entry.name))]
    assert all((entry / "stat").read_text().rsplit(")", 1)[1].split()[2] != str(group) for entry in members)


def test_an_exception_is_a_fault_that_keeps_the_child(worker: Worker) -> None:
    assert "ValueError: odd" in fault_of(worker, "fail", "odd").detail
    kept = worker.pid
    assert fault_of(worker, "not_json").kind == "grader_crash"
    assert worker.call("_functions:double", 1, timeout_s=5) == 2 and worker.pid == kept


def test_a_crash_is_a_fault_and_the_next_call_works(worker: Worker) -> None:
    assert fault_of(worker, "end").detail == "the worker ended with status 3"
    assert worker.call("_functions:double", 1, timeout_s=5) == 2


def test_garbage_is_a_fault_and_the_next_call_works(worker: Worker) -> None:
    assert "garbage" in fault_of(worker, "garble").detail
    assert worker.call("_functions:double", 1, timeout_s=5) == 2


def test_what_is_printed_cannot_forge_a_value(worker: Worker) -> None:
    assert worker.call("_functions:shout", timeout_s=5) == 0.25


def test_files_and_memory_are_limited(worker: Worker, tmp_path: Path) -> None:
    assert "OSError" in fault_of(worker, "write", str(tmp_path / "marker")).detail
    assert not (tmp_path / "marker").read_text()
    assert "MemoryError" in fault_of(worker, "take_memory").detail


def test_asking_where_temporary_files_would_lie_writes_none(worker: Worker) -> None:
    assert worker.call("tempfile:gettempdir", timeout_s=5) == "/tmp"


def test_a_child_that_cannot_start_says_why() -> None:
    worker = Worker(["no_such_module:f"])
    with pytest.raises(EnvironmentFault, match="could not start: ModuleNotFoundError.*no_such_module"):
        worker.call("no_such_module:f", timeout_s=1)
    assert worker.pid is None


def test_no_process_is_left_after_close() -> None:
    worker = Worker(FUNCTIONS)
    worker.call("_functions:double", 1, timeout_s=5)
    pid = worker.pid
    worker.close()
    assert not runs(pid)
    del worker
    gc.collect()  # an unclosed pipe or process would warn, and warnings are errors


def test_no_process_is_left_after_exit() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from swannery.sandbox import Pool\n"
        "pool = Pool(['_functions:double'], size=1)\n"
        "pool.call('_functions:double', 1, timeout_s=5)\n"
        "print(pool.workers[0].pid)"
    )
    ended = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == "" and not runs(int(ended.stdout))


def test_a_pool_serves_one_event_loop_after_another_and_callers_without_one() -> None:
    pool = Pool(FUNCTIONS, size=2)

    async def doubles() -> list[float]:
        return await asyncio.gather(*(pool.acall("_functions:double", n, timeout_s=5) for n in range(6)))

    assert asyncio.run(doubles()) == asyncio.run(doubles()) == [0, 2, 4, 6, 8, 10]
    assert pool.call("_functions:double", 21, timeout_s=5) == 42
    assert sum(worker.pid is not None for worker in pool.workers) <= 2
    pool.close()
    assert all(worker.pid is None for worker in pool.workers)


def test_the_loop_goes_on_while_a_worker_is_busy_and_waiting_for_one_is_not_grading() -> None:
    pool = Pool(FUNCTIONS, size=1)

    async def both() -> tuple[list[object], float]:
        await pool.acall("_functions:double", 1, timeout_s=5)
        calls = asyncio.gather(*(pool.acall("_functions:sleep", 0.4, timeout_s=0.7) for _ in range(3)))
        began = time.monotonic()
        await asyncio.sleep(0.01)
        return [time.monotonic() - began, await calls], time.monotonic() - began

    (idle_s, values), total_s = asyncio.run(both())
    assert values == ["slept"] * 3 and isinstance(idle_s, float) and idle_s < 0.2 < 1.2 <= total_s
    pool.close()


def test_a_forked_process_gets_workers_of_its_own() -> None:
    pool = Pool(FUNCTIONS, size=1)
    pool.call("_functions:double", 1, timeout_s=5)
    ours = pool.workers[0].pid
    child = os.fork()
    if not child:
        right = pool.call("_functions:double", 2, timeout_s=5) == 4 and pool.workers[0].pid != ours
        pool.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert runs(ours) and pool.call("_functions:double", 2, timeout_s=5) == 4
    pool.close()
