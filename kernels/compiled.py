"""C of ours for CPUs, compiled where it runs: one call of the machine's own compiler, kept in the user's cache folder.

There is no compiler, or it fails: `library` is None and the torch form runs. `SWANNERY_KERNELS=torch` asks for that too. The compiler is
$CC, or cc, gcc or clang. What was compiled is kept under a name made of the source, the compiler with its version and
flags, and the processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .backend import setting

SOURCES = Path(__file__).parent / "cpu"
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
"""None of them lets sums be reordered: a row's bits are the same in whatever company."""
_TIMEOUT_S = 120.0

log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Where the project keeps what it can make or fetch again: $SWANNERY_CACHE, or the user's cache folder."""
    root = os.environ.get("SWANNERY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "swannery"
    return Path(root).expanduser()


def uses_compiled(*tensors: Tensor) -> bool:
    """Whether an operation that has a form in C takes it for these tensors: fp32, on the CPU, and not against the setting."""
    if setting() not in ("", "c", "external") or any(
        t.device.type != "cpu" or t.dtype is not torch.float32 for t in tensors
    ):
        return False
    return library() is not None


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions of cpu/swannery.c, or None where they cannot be compiled here."""
    compiler = _compiler()
    if compiler is None:
        log.info("no C compiler: what the CPU computes takes the torch form")
        return None
    try:
        return ctypes.CDLL(str(_compile(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        log.warning("what the CPU computes takes the torch form: %s did not compile %s: %s", compiler, SOURCES, said)
        return None


def _compiler() -> str | None:
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((path for name in names if (path := shutil.which(name))), None)


def _compile(compiler: str) -> Path:
    """The library, made once for this source, compiler and processor. It appears whole or not at all."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=_TIMEOUT_S).stdout
    digest = hashlib.sha256(repr((compiler, version, FLAGS, _processor())).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    made = cache_root() / "kernels" / f"cpu-{digest.hexdigest()[:16]}.so"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=made.parent) as folder:
            part = Path(folder) / made.name
            command = [compiler, *FLAGS, "-o", str(part), str(SOURCES / "swannery.c"), "-lm"]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S)
            part.replace(made)
    return made


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def pack(weight_NK: Tensor) -> Tensor:
    """A weight of shape [..., N, K] as panels [..., ceil(N / panel), K, panel]: what cpu/linear.h multiplies with."""
    loaded = library()
    assert loaded is not None
    panel = int(loaded.swannery_panel())
    *batch, N, K = weight_NK.shape
    padded = torch.nn.functional.pad(weight_NK.detach(), (0, 0, 0, -N % panel))
    return padded.view(*batch, -1, panel, K).transpose(-1, -2).contiguous()


class Structure(ctypes.Structure):
    """A structure of C: numbers first, then addresses, for which it takes tensors (and keeps them), structures or None."""

    def __init__(self, **values: float | Tensor | ctypes.Structure | ctypes.Array | None) -> None:
        names = {name for name, *_ in self._fields_}
        assert names == set(values), f"{type(self).__name__}: {names ^ set(values)}"
        self.kept = values
        super().__init__(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous() and value.device.type == "cpu" and value.dtype in (torch.float32, torch.int64)
        return value.data_ptr()
    return ctypes.addressof(value) if isinstance(value, ctypes.Structure | ctypes.Array) else value


def fields(integers: str, doubles: str, addresses: str) -> list[tuple[str, Any]]:
    """The fields of a structure, by their names in C."""
    kinds = (integers, ctypes.c_int64), (doubles, ctypes.c_double), (addresses, ctypes.c_void_p)
    return [(name, kind) for names, kind in kinds for name in names.split()]


def in_threads(call: Callable[[int], None], count: int) -> None:
    """call(0) to call(count - 1), at once where there is more than one. What is called leaves Python's lock while it is in C."""
    if count == 1:
        call(0)
    else:
        list(_threads().map(call, range(count)))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "swannery-cpu")


os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked process has none of its parent's threads


class Room(threading.local):
    """Memory to work in that only grows: each thread's own, so that a learner and an engine may call the same operation at once."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.float32, device="cpu")

    def at(self, num_floats: int) -> int:
        """Its address."""
        if len(self._memory) < num_floats:
            self._memory = self._memory.new_empty(num_floats + num_floats // 4)
        return self._memory.data_ptr()

    def each(self, operation: str, direction: str, plan: Structure, count: int) -> None:
        """Call a function of C for each of `count` parts of a plan, by threads, each with as much room as the operation says."""
        loaded, at = library(), ctypes.c_void_p(ctypes.addressof(plan))
        assert loaded is not None
        scratch, call = loaded[f"swannery_{operation}_scratch"], loaded[f"swannery_{operation}_{direction}"]
        scratch.restype = ctypes.c_int64
        num_floats, num_threads = int(scratch(at)), min(torch.get_num_threads(), count)

        def parts(thread: int) -> None:
            room = ctypes.c_void_p(self.at(num_floats))
            for part in range(thread, count, num_threads):
                call(at, ctypes.c_int64(part), room)

        in_threads(parts, num_threads)
