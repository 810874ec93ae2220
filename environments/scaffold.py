"""`swannery new`: one file with an environment that works, one test; templates in templates/*.txt."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

from .guess import nearest

TEMPLATES = ("single", "tool", "stateful", "chat")


def write_new(name: str, template: str, folder: Path) -> tuple[str, Path, Path]:
    """Write NAME.py and test_NAME.py into a folder; the id and both paths. ValueError rather than overwrite."""
    if template not in TEMPLATES:
        raise ValueError(f"no template named {template!r}. {nearest(template, TEMPLATES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"a name is a module's: lower-case letters, digits and underscores, as in my_env, got {name!r}"
        )
    cls = "".join(part.capitalize() for part in name.split("_"))
    words = {"id": f"{name}/{cls}-v0", "cls": cls, "module": name, "file": f"{name}.py"}
    code, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in (code, test):
        if path.exists():
            raise ValueError(f"{path} exists; choose another name or move it away")
    folder.mkdir(parents=True, exist_ok=True)
    for path, source in ((code, template), (test, "test")):
        text = (files(__name__.rpartition(".")[0]) / "templates" / f"{source}.txt").read_text()
        path.write_text(text.format_map(words))
    return words["id"], code, test
