"""A killable process for graders whose parsers evaluate: asked by JSON lines, killed at the deadline, started again.

    call(function, arguments) --JSON--> child --JSON--> value | EnvironmentFault("grader_timeout" | "grader_crash")

The child has an environment of its own (nothing of ours but a fixed hash seed), its own session, and limits on memory,
CPU, file sizes and open files. It stays warm between calls, for its imports cost a second. What it cannot do: it shares
our file system and user, so it is no place for model-written programs. Callers must refuse answers that look like code
before they are sent here; a real sandbox is another thing.

Pipes are blocking and polled against a monotonic clock, and async callers wait in a thread. A worker so belongs to no
event loop: the same warm child serves `step`, `astep`, and one loop after another.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..messages import EnvironmentFault

_MAX_REPLY = 1 << 22
_START = (
    "import json, sys; a = json.loads(sys.argv[1]); sys.path[:] = a.pop('path'); from {child} import main; main(**a)"
)
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Worker:
    """One child process, started at the first call. One call at a time; `Pool` shares several among callers."""

    def __init__(self, allowed: Sequence[str], *, memory_bytes: int = 2 << 30, start_timeout_s: float = 60.0) -> None:
        for name in allowed:
            if not all(name.partition(":")):
                raise ValueError(f"a function is named 'package.module:function', got {name!r}")
        self.allowed = tuple(allowed)
        self.memory_bytes = memory_bytes
        self.start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._done: set[str] = set()

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._process.pid if self._process else None

    def call(self, function: str, *arguments: Any, timeout_s: float, first: Sequence[Any] = ()) -> Any:
        """The function's value. A timeout kills the child; the next call starts another.

        `first` is a function and its arguments that a child must have carried out once: what that takes (imports) is part of
        starting it and does not count towards `timeout_s`.
        """
        if function not in self.allowed:
            raise ValueError(f"{function!r} is not among the allowed functions: {', '.join(self.allowed)}")
        with self._lock:
            if self._process is None:
                self._start()
            if first and (done := json.dumps(first)) not in self._done:
                self._ask(first[0], first[1:], self.start_timeout_s)
                self._done.add(done)
            return self._ask(function, arguments, timeout_s)

    def _ask(self, function: str, arguments: Sequence[Any], timeout_s: float) -> Any:
        request = {"id": uuid.uuid4().hex, "function": function, "arguments": arguments, "timeout_s": timeout_s}
        line = json.dumps(request).encode() + b"\n"
        process = self._process
        assert process is not None
        try:
            deadline = time.monotonic() + timeout_s
            self._send(process, line, deadline)
            reply = self._receive(process, deadline)
            if reply.get("id") != request["id"] or not reply.keys() & {"value", "raised"}:
                raise EnvironmentFault("grader_crash", f"{function}: not a reply to this call: {str(reply)[:200]}")
        except TimeoutError:
            self._kill()
            raise EnvironmentFault("grader_timeout", f"{function} took over {timeout_s} s") from None
        except BaseException:
            self._kill()
            raise
        if "raised" in reply:
            raise EnvironmentFault("grader_crash", f"{function} raised {reply['raised']}")
        return reply["value"]

    def close(self) -> None:
        """End the child. A later call starts another."""
        with self._lock:
            self._kill()

    def abandon(self) -> None:
        """After a fork, in the new process: the child is our parent's, so forget it and leave it alone."""
        if self._process is not None:
            _close_pipes(self._process)
            self._process.returncode = 0
        self._process = None
        self._lock = threading.Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        self._done.clear()
        path = [os.path.abspath(entry) for entry in sys.path]
        arguments = {"path": path, "allowed": self.allowed, "memory_bytes": self.memory_bytes}
        # -s -P rather than -I: the environment is empty but for ours, and -I would ignore the hash seed.
        self._process = process = subprocess.Popen(
            [sys.executable, "-s", "-P", "-c", _START.format(child=f"{__package__}.child"), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env=_ENVIRONMENT,
            start_new_session=True,
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        try:
            reply = self._receive(process, time.monotonic() + self.start_timeout_s)
            if "failed" in reply:
                raise EnvironmentFault("grader_crash", f"the worker could not start: {reply['failed']}")
        except TimeoutError:
            self._kill()
            raise EnvironmentFault("grader_crash", f"no worker within {self.start_timeout_s} s") from None
        except BaseException:
            self._kill()
            raise
        return process

    def _send(self, process: subprocess.Popen[bytes], line: bytes, deadline: float) -> None:
        assert process.stdin is not None
        pipe = process.stdin.fileno()
        while line:
            _poll(pipe, select.POLLOUT, deadline)
            try:
                line = line[os.write(pipe, line) :]
            except BrokenPipeError:
                raise self._ended(process) from None

    def _receive(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        assert process.stdout is not None
        pipe, received = process.stdout.fileno(), b""
        while not received.endswith(b"\n"):
            _poll(pipe, select.POLLIN, deadline)
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                raise self._ended(process)
            received += chunk
            if len(received) > _MAX_REPLY:
                raise EnvironmentFault("grader_crash", f"a reply of over {_MAX_REPLY} bytes")
        try:
            reply = json.loads(received)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise EnvironmentFault("grader_crash", f"garbage for a reply: {received[:200]!r}")
        return reply

    def _ended(self, process: subprocess.Popen[bytes]) -> EnvironmentFault:
        self._kill()
        code = process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return EnvironmentFault("grader_crash", f"the worker {how}")

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # Closing stdin lets an idle child end by itself; its whole group is killed either way.
        _close_pipes(process)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Pool:
    """At most `size` workers, each started when it is first needed, for callers on threads and on event loops."""

    def __init__(self, allowed: Sequence[str], *, size: int | None = None, **options: Any) -> None:
        size = size if size is not None else max(1, min(4, os.cpu_count() or 1))
        if size < 1:
            raise ValueError(f"a pool needs a size of at least 1, got {size}")
        self.workers = [Worker(allowed, **options) for _ in range(size)]
        self._fill()
        _POOLS.add(self)

    def call(self, function: str, *arguments: Any, timeout_s: float, first: Sequence[Any] = ()) -> Any:
        """`Worker.call` on a free worker. Waiting for one does not count towards `timeout_s`."""
        worker = self._free.get()
        try:
            return worker.call(function, *arguments, timeout_s=timeout_s, first=first)
        finally:
            self._free.put(worker)

    async def acall(self, function: str, *arguments: Any, timeout_s: float, first: Sequence[Any] = ()) -> Any:
        """`call`, for callers on an event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self.call(function, *arguments, timeout_s=timeout_s, first=first)
        )

    def close(self) -> None:
        """End all children. A later call starts them again."""
        for worker in self.workers:
            worker.close()

    def _fill(self) -> None:
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()  # last in, first out: a warm worker is preferred
        for worker in reversed(self.workers):
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(len(self.workers), thread_name_prefix="swannery-worker")

    def _after_fork(self) -> None:
        for worker in self.workers:
            worker.abandon()
        self._fill()


_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._after_fork()


os.register_at_fork(after_in_child=_forget_all)


def _poll(pipe: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(pipe, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
