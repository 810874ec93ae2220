"""A package that was installed with pip brings its environments by an entry point, and nobody imports it before."""

import os
import subprocess
import sys
from pathlib import Path

MODULE = """
print("imported")
from swannery.environments import Env, Task, register, reward

@register("plug/Say-v0")
class Say(Env):
    def task(self, rng):
        return Task("Say yes.", "yes")

    @reward
    def said(self, turn):
        return turn.answer == "yes"
"""


def test_an_entry_point_is_loaded_when_an_id_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "plug_environments.py").write_text(MODULE)
    info = tmp_path / "plug-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[swannery.environments]\nplug = plug_environments\n")
    code = (
        "from swannery.environments import make, registered; make('math/Arithmetic-v0'); print('not yet');"
        "env = make('plug/Say-v0'); env.reset(seed=0); print(env.step('yes')[1], 'plug/Say-v0' in registered())"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split("\n")[:3] == ["not yet", "imported", "1.0 True"], done.stderr
