"""Processors with narrower registers: the tests of what is in C, compiled as for them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from swannery.kernels import compiled

TESTS = ("kernels/test_scan_in_c.py", "kernels/test_linear.py", "policies/test_compiled_step.py")

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or compiled.library() is None, reason="wants a C compiler for x86-64"
)


@pytest.mark.parametrize("without", ["avx512f", "avx"])
def test_what_is_in_c_holds_with_narrower_vectors(without: str, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {compiled._compiler()} "$@" -mno-{without}\n')
    compiler.chmod(0o755)
    tests = [str(Path(__file__).parents[1] / test) for test in TESTS]
    environment = {**os.environ, "CC": str(compiler), "SWANNERY_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", *tests],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no C compiler" not in done.stdout
    assert list((tmp_path / "cache").rglob("*.so"))
