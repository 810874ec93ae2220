"""Finding a class again in another process: by its module's name, or by its file where the name is not importable."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any


def place_of(cls: Any) -> dict[str, str]:
    """Where a class is: module, file and qualified name, as plain data."""
    module = sys.modules.get(cls.__module__)
    return {"module": cls.__module__, "file": getattr(module, "__file__", None) or "", "class": cls.__qualname__}


def import_place(place: Mapping[str, str]) -> ModuleType:
    """The module of a place, imported by name, or run from its file under a name of its own."""
    name = place["module"]
    if name in sys.modules and name not in ("__main__", "__mp_main__"):
        return sys.modules[name]
    if name not in ("__main__", "__mp_main__") and _importable(name):
        return importlib.import_module(name)
    return _run_file(place["file"])


def import_file(path: Path) -> list[str]:
    """Run a file that registers environments; their ids. ValueError where there is none."""
    from .registry import entry_module, registered

    if not path.is_file():
        raise ValueError(f"no file {path}")
    module = _run_file(str(path.resolve()))
    ours = [env_id for env_id in registered() if entry_module(env_id) == module.__name__]
    if not ours:
        raise ValueError(f"{path} registers no environment: decorate a class with @register('family/Name-v0')")
    return ours


def _run_file(file: str) -> ModuleType:
    name = f"_swannery_{hashlib.sha256(file.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file!r} cannot be loaded as a module")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def class_at(place: Mapping[str, str]) -> Any:
    """The class of a place."""
    found: Any = import_place(place)
    for part in place["class"].split("."):
        found = getattr(found, part)
    return found


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
