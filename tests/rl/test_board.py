"""What tensorboard is shown of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.rl import RunFolder


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def record(step: int, **changes: Any) -> dict[str, Any]:
    rows = {"chat/Guess-v0": {"reward": 0.25 * step}}
    return {
        "phase": "rl",
        "step": step,
        "environments": rows,
        "loss": 1.5,
        "lag": {"mean": 0.5},
        "trained": [["x", 1]],
        **changes,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_numbers_of_each_step_and_of_a_resumed_run_once(tmp_path: Path) -> None:
    for steps in (range(3), range(2, 5)):  # step 2 is taken again
        folder = RunFolder(tmp_path)
        for step in steps:
            folder.log(record(step, loss=float("nan") if step == 1 else 1.5))
        folder.release()
    shown = read(tmp_path / "tensorboard" / "rl")
    assert set(shown) == {"chat/Guess-v0/reward", "loss", "lag/mean"}
    np.testing.assert_allclose([value for _, value in shown["chat/Guess-v0/reward"]], [0, 0.25, 0.5, 0.75, 1.0])
    assert [step for step, _ in shown["loss"]] == [0, 2, 3, 4]
    assert [r["step"] for r in RunFolder(tmp_path).records()] == [0, 1, 2, 2, 3, 4]
