"""Triton's forms against the references in Triton's interpreter, and compiled for a GPU that need not be there.

Each in a process of its own: Triton reads TRITON_INTERPRET where a kernel is defined, and an interpreted kernel cannot be compiled.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux alone)")


def run_checks(*arguments: str, interpreted: bool = False) -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "SWANNERY_KERNELS")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, str(Path(__file__).with_name("triton_checks.py")), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"


def test_every_kernel_equals_its_reference() -> None:
    run_checks("reference", interpreted=True)


def test_a_model_in_triton_equals_it_in_torch() -> None:
    run_checks("model", interpreted=True)


def test_every_kernel_compiles_for_hopper() -> None:
    run_checks("compile")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_kernel_equals_its_reference_on_the_gpu() -> None:
    run_checks("reference", "cuda")
    run_checks("model", "cuda")
