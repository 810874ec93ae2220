"""Finding a class again in another process: by its module's name, or by its file where the name is not importable."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
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
    name = f"_swannery_{hashlib.sha256(place['file'].encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, place["file"])
        if spec is None or spec.loader is None:
            raise ImportError(f"no module {place['module']!r} and no file {place['file']!r} to load it from")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
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
