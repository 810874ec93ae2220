"""The house: what is packaged, which way the arrows point, what a light import costs."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("configs", "environments", "kernels", "policies", "rewards", "rl", "sandbox")
MAY_IMPORT = {
    "messages": set(),
    "kernels": {"messages"},
    "sandbox": {"messages"},
    "rewards": {"messages", "sandbox"},
    "policies": {"messages", "kernels"},
    "environments": {"messages", "rewards", "sandbox"},
    "rl": {"messages", "policies", "environments", "kernels", "rewards"},
}


def test_every_code_folder_is_packaged() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    found = {
        ".".join(("swannery", *path.relative_to(ROOT).parent.parts))
        for room in CODE
        for path in (ROOT / room).rglob("*.py")
    }
    assert found <= listed, f"add to [tool.setuptools] packages: {sorted(found - listed)}"


def test_every_file_of_data_is_packaged() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    listed = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    found = {
        path
        for room in CODE
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".toml", ".txt", ".c", ".h", ".json")
    }
    assert found and found <= listed, sorted(str(path.relative_to(ROOT)) for path in found - listed)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_arrows_run_one_way(room: str) -> None:
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        depth = len(path.relative_to(ROOT).parts) - 1
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level > depth:
                target = (node.module or "").split(".")[0]
                assert target in MAY_IMPORT[room] | {room}, f"{path.name}:{node.lineno} imports {target}"
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert not (node.module or "").startswith("swannery"), f"{path}: imports inside are relative"


def test_environments_need_neither_torch_nor_ray() -> None:
    code = (
        "import sys, swannery.environments; "
        "heavy = {'torch', 'ray', 'transformers', 'tokenizers', 'datasets', 'trl', 'reasoning_gym'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernels_is_no_regular_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()  # it would shadow the `kernels` that transformers probes for


def test_trl_and_datasets_have_one_door() -> None:
    """trl itself is imported nowhere: its trainer calls us (rl/trl.py)."""
    importing: dict[str, set[str]] = {"trl": set(), "datasets": set()}
    for path in (path for room in CODE for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for name in {name.split(".")[0] for name in names} & set(importing):
                importing[name].add(path.relative_to(ROOT).as_posix())
    assert importing == {"trl": set(), "datasets": {"rl/trl.py"}}
