"""The other end of a `Worker`: one JSON line in, one JSON line out, until stdin ends.

    {"id", "function", "arguments", "timeout_s"}  ->  {"id", "value"} | {"id", "raised"}

Only functions named when the process was started can be called. Before any of them runs, the pipes are moved away from
file descriptors 0 and 1, so that nothing that is printed can be taken for a reply, and the limits are set.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

_GRACE_S = 5.0


def main(allowed: Sequence[str], memory_bytes: int) -> None:
    requests, replies = _move_pipes()
    try:
        functions = {name: _load(name) for name in allowed}
    except BaseException as error:
        _reply(replies, {"failed": repr(error)})
        return
    tempfile.tempdir = (
        "/tmp"  # else whoever asks for it tries to write there, and libraries ask while they are imported
    )
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    _limit(resource.RLIMIT_NPROC, 0)
    _reply(replies, {"ready": True})
    for line in requests:
        request = json.loads(line)
        reply: dict[str, Any] = {"id": request["id"]}
        with _dead_man(request["timeout_s"]):
            try:
                reply["value"] = functions[request["function"]](*request["arguments"])
                json.dumps(reply)
            except BaseException as error:
                reply = {"id": request["id"], "raised": f"{type(error).__name__}: {error}"[:500]}
        _reply(replies, reply)


def _move_pipes() -> tuple[io.BufferedReader, int]:
    requests, replies = os.dup(0), os.dup(1)  # dup'ed descriptors are not inherited by programs that are started
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return os.fdopen(requests, "rb"), replies


def _reply(replies: int, reply: dict[str, Any]) -> None:
    line = json.dumps(reply).encode() + b"\n"
    while line:
        line = line[os.write(replies, line) :]


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some limits
        resource.setrlimit(what, (value, value))


@contextlib.contextmanager
def _dead_man(timeout_s: float) -> Any:
    """End this process a little after the deadline by itself, should the parent be gone by then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = int(used.ru_utime + used.ru_stime + timeout_s + _GRACE_S) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
