"""Triton's forms against the references in Triton's interpreter, and compiled for a GPU that need not be there.

Each in a process of its own: Triton reads TRITON_INTERPRET where a kernel is defined, and an interpreted kernel cannot be compiled.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed (it is for Linux alone)")


def run(script: Path, *arguments: str, interpreted: bool = False) -> str:
    """What it printed."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "SWANNERY_KERNELS")
    }
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def run_checks(*arguments: str, interpreted: bool = False) -> None:
    run(Path(__file__).with_name("triton_checks.py"), *arguments, interpreted=interpreted)


def test_every_kernel_equals_its_reference() -> None:
    run_checks("reference", interpreted=True)


def test_a_model_in_triton_equals_it_in_torch() -> None:
    run_checks("model", interpreted=True)


def test_every_form_is_as_near_to_float64_as_it_says() -> None:
    """What `benchmarks/kernels.py --parity` prints, with the kernels of others that are installed."""
    script = Path(__file__).parents[2] / "benchmarks" / "kernels.py"
    printed = run(script, "--parity", interpreted=True)
    figures = json.loads(printed.splitlines()[-1])["figures"]
    assert {name.rsplit("_", 2)[1] for name in figures} >= {"torch", "triton", "external"}
    assert {name: error for name, error in figures.items() if not error <= 1e-5} == {}


def test_every_kernel_compiles_for_hopper() -> None:
    run_checks("compile")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_kernel_equals_its_reference_on_the_gpu() -> None:
    run_checks("reference", "cuda")
    run_checks("model", "cuda")
