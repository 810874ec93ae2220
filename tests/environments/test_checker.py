"""The checker finds every planted bug of the zoo, raises no alarm on what is sound, and says what to do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from swannery.environments import DeclarationError, check_env, register, registered
from swannery.environments.checker import CURES, Finding, check_all
from swannery.environments.families import FAMILIES
from swannery.environments.importing import import_file, import_place
from swannery.environments.registry import find
from swannery.environments.scaffold import TEMPLATES, write_new

ZOO = Path(__file__).parent / "zoo"
SOURCES = import_place({"module": "zoo_sources", "file": str(ZOO / "sources.py")})


@pytest.fixture(scope="module")
def zoo() -> tuple[list[str], dict[str, set[str]]]:
    """The ids of the zoo, and which rules found something at each."""
    ids = [env_id for name in ("determinism", "scoring", "running") for env_id in import_file(ZOO / f"{name}.py")]
    found: dict[str, set[str]] = {env_id: set() for env_id in ids}
    for finding in check_all(ids):
        found[finding.env_id.partition("(")[0]].add(finding.rule)
    return ids, found


def test_every_planted_bug_is_found(zoo: tuple[list[str], dict[str, set[str]]]) -> None:
    ids, found = zoo
    missed = []
    for env_id in ids:
        wanted = find(env_id).finds  # type: ignore[union-attr]
        if not found[env_id] & ({wanted} if isinstance(wanted, str) else set(wanted)):
            missed.append((env_id, wanted, found[env_id]))
    assert not missed and len(ids) >= 40


def test_almost_every_rule_has_its_bug_in_the_zoo(zoo: tuple[list[str], dict[str, set[str]]]) -> None:
    _, found = zoo
    never = set(CURES) - set.union(*found.values())
    assert never <= {"space.json"}, never  # only who replaces the spaces can get that one wrong


@pytest.mark.parametrize("name", sorted(SOURCES.SOURCES))
def test_mistakes_of_declaration_are_told_with_a_cure(name: str, tmp_path: Path) -> None:
    source, message = SOURCES.SOURCES[name]
    path = tmp_path / "mine.py"
    path.write_text(SOURCES.HEAD + source)
    with pytest.raises((DeclarationError, TypeError, ValueError)) as caught:
        import_file(path)
    assert message in str(caught.value)
    if isinstance(caught.value, DeclarationError):
        assert "; " in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("env_id", sorted(FAMILIES))
def test_no_false_alarm_on_our_families(env_id: str) -> None:
    assert [str(finding) for finding in check_env(env_id)] == []


def test_no_false_alarm_on_some_of_reasoning_gym() -> None:
    names = ("chain_sum", "gsm_symbolic", "polynomial_equations", "syllogism", "word_ladder", "countdown", "boxnet")
    assert [str(f) for f in check_all([f"reasoning_gym/{name}-v0" for name in names])] == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_template_is_sound_and_its_test_passes(template: str, tmp_path: Path) -> None:
    env_id, code, test = write_new(f"mine_{template}", template, tmp_path)
    assert import_file(code) == [env_id] and [str(f) for f in check_env(env_id)] == []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()
    with pytest.raises(ValueError, match="exists"):
        write_new(f"mine_{template}", template, tmp_path)


def test_bad_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean 'stateful'"):
        write_new("mine", "statefull", tmp_path)
    for name in ("My-Env", "1st", "class", "../x", ""):
        with pytest.raises(ValueError, match="a name is a module's"):
            write_new(name, "single", tmp_path)


def test_the_command_line_checks_ids_and_files(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "swannery", *arguments], cwd=tmp_path, capture_output=True, text=True
        )

    assert run("new", "mine").returncode == 0
    done = run("check", "mine.py", "chat/Guess-v0", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["checked"] == ["mine/Mine-v0", "chat/Guess-v0"]
    source = (tmp_path / "mine.py").read_text().replace("== self.task.answer", "in self.task.answer")
    (tmp_path / "mine.py").write_text(source)
    done = run("check", "mine.py", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1 and "floor.null" in {f["rule"] for f in findings} and all(f["cure"] for f in findings)
    for arguments, said in (
        (("check", "math/Arithmatic-v0"), "Did you mean 'math/Arithmetic-v0'"),
        (("check", "nowhere.py"), "no file nowhere.py"),
        (("check",), "name an environment or a file"),
        (("new", "Mine"), "a name is a module's"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_finding_is_a_line_of_cause_and_a_line_of_cure() -> None:
    finding = Finding("floor.null", "x/Y-v0", "the null policy earns 1")
    assert str(finding).count("\n") == 1 and finding.to_dict()["cure"] == CURES["floor.null"]
    with pytest.raises(ValueError, match="a registered id or class"):
        check_env(int)  # type: ignore[arg-type]


def test_an_id_is_taken_once() -> None:
    assert "math/Arithmetic-v0" in registered()
    with pytest.raises(ValueError, match="is taken by"):

        @register("math/Arithmetic-v0")
        class Mine(find("chat/Guess-v0")):  # type: ignore[misc]
            pass
