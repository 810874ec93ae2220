"""Every example runs."""

import runpy
from pathlib import Path


def test_stock() -> None:
    module = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "stock.py"))
    assert module["main"]() == 1.0
