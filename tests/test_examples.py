"""Every example runs, is as short as it says, and is sound; every snippet of the pages runs as it stands."""

import ast
import re
import runpy
from pathlib import Path

import pytest

from swannery.environments import check_env
from swannery.environments.importing import import_file

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def test_stock() -> None:
    assert runpy.run_path(str(ROOT / "examples" / "stock.py"))["main"]() == 1.0


def test_the_credits_of_a_tree_add_up() -> None:
    module = runpy.run_path(str(ROOT / "examples" / "tree.py"))
    credit = module["main"]()
    env = module["make"]("chat/Guess-v0")
    env.reset(seed=4)
    start = module["value"](env, module["np"].random.default_rng(1))
    end = float(credit[-1][0] == env.task.answer)
    assert sum(value for _, value in credit) == pytest.approx(end - start)


@pytest.mark.parametrize(("name", "most"), [("add", 6), ("wiki", 12), ("refund", 20)])
def test_an_environment_is_as_short_as_promised_and_sound(name: str, most: int) -> None:
    path = ROOT / "examples" / f"{name}.py"
    (env_id,) = import_file(path)
    (cls,) = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    lines = path.read_text().splitlines()[cls.decorator_list[0].lineno - 1 : cls.end_lineno]
    assert len([line for line in lines if line.strip()]) <= most
    assert [str(finding) for finding in check_env(env_id)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_snippets_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    source = "\n\n".join(snippets)
    (tmp_path / "page.py").write_text(source)
    runpy.run_path(str(tmp_path / "page.py"))
