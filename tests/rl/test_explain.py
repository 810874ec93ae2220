"""Every rule finds its own planted fault, and none speaks of a healthy run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.__main__ import main
from swannery.rl import load_config, read_toml
from swannery.rl.explain import RULES, early_warnings, explain, uncompared

CONFIG = load_config(read_toml(Path("quickstart"))).model_dump(mode="json")
ENV = "tools/Calculator-v0"


def healthy(seed: int = 0, steps: int = 60) -> list[dict[str, Any]]:
    """A warm start whose loss falls, and rewards that rise."""
    rng = np.random.default_rng(seed)
    records: list[dict[str, Any]] = [
        {"phase": "sft", "step": step, "loss": 5 * 0.97**step + 0.5 + 0.1 * rng.random()} for step in range(100)
    ]
    for step in range(steps):
        noise = lambda scale: scale * float(rng.normal())  # noqa: E731
        row = {
            "left_out": float(rng.random() < 0.1), "left_out_tool_crash": 1.0, "rollouts": 48.0,
            "reward": float(np.clip(0.25 + 0.5 * step / steps + noise(0.06), 0, 1)), "agree": float(np.clip(0.3 + noise(0.1), 0, 1)),
            "cut": 0.05, "malformed": 0.05, "budget_hit": 0.3, "truncated": 0.2,
        }  # fmt: skip
        records.append(
            {
                "phase": "rl",
                "step": step,
                "environments": {ENV: row},
                "loss": noise(0.01),
                "entropy": 0.2 + noise(0.02),
                "drift": 0.02,
                "skipped": 0,
                "idle_experts": 0.1,
                "mismatch": {"max": 4e-5},
                "lag": {"mean": 0.0, "max": 0},
            }  # fmt: skip
        )
    return records


def rows(records: list[dict[str, Any]], **changes: Any) -> None:
    for record in records:
        if record["phase"] == "rl":
            record["environments"][ENV] |= changes


def steps(records: list[dict[str, Any]], phase: str = "rl", **changes: Any) -> None:
    for record in records:
        if record["phase"] == phase:
            record |= changes


def collapse(records: list[dict[str, Any]], config: dict[str, Any]) -> None:
    learnt = [record for record in records if record["phase"] == "rl"]
    for step, record in enumerate(learnt):
        record["environments"][ENV]["reward"] = 0.2 + 0.02 * step if step < 25 else max(0.7 - 0.05 * (step - 25), 0.0)


PLANTED: dict[str, Any] = {
    "truncated": lambda r, c: rows(r, cut=0.7),
    "too hard": lambda r, c: rows(r, agree=0.97, reward=0.004),
    "too easy": lambda r, c: (r.__setitem__(slice(120, None), []), rows(r, agree=0.95, reward=0.99)),
    "small groups": lambda r, c: (rows(r, agree=0.7), c["rl"].update(group_size=2)),
    "malformed turns": lambda r, c: rows(r, malformed=0.6),
    "faults": lambda r, c: rows(r, left_out=30.0),
    "budgets too small": lambda r, c: rows(r, budget_hit=0.95, reward=0.2),
    "warm start": lambda r, c: steps(r, "sft", loss=5.1),
    "not finite": lambda r, c: steps(r, skipped=1, loss=None),
    "collapse": collapse,
    "learning rate too low": lambda r, c: steps(r, drift=3e-6),
    "learning rate too high": lambda r, c: steps(r, drift=1.4),
    "no exploration": lambda r, c: steps(r, entropy=0.004),
    "engine and learner differ": lambda r, c: steps(r, mismatch={"max": 0.4}),
    "old rollouts": lambda r, c: steps(r, lag={"mean": 3.1, "max": 5}),
    "idle experts": lambda r, c: steps(r, idle_experts=0.8),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_with_the_setting_to_change(name: str) -> None:
    records, config = healthy(), copy.deepcopy(CONFIG)
    PLANTED[name](records, config)
    found = explain(config, records)
    assert name in {finding.name for finding in found}
    (finding,) = (finding for finding in found if finding.name == name)
    assert finding.evidence and finding.cure


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_said_of_a_healthy_run(seed: int) -> None:
    for length in (3, 10, 60):
        assert explain(CONFIG, healthy(seed, length)) == []


def test_every_rule_is_planted() -> None:
    assert len(PLANTED) == len(RULES) + 1  # one rule tells too hard from too easy


def test_the_first_five_steps_warn_of_truncation_and_of_groups_that_agree() -> None:
    records = healthy(steps=5)
    assert early_warnings(CONFIG, records) == []
    rows(records, cut=0.97)
    (finding,) = early_warnings(CONFIG, records)
    assert finding.cure == "raise generation.max_new_tokens, now 96, to 192 (and generation.context_size with it)"
    rows(records, cut=0.0, truncated=0.6)
    (finding,) = early_warnings(CONFIG, records)
    assert finding.evidence == f"60% of the first rollouts of {ENV} are cut by a limit, 0% by that of tokens"
    rows(records, truncated=0.0, agree=1.0, reward=0.0)
    assert [finding.name for finding in early_warnings(CONFIG, records)] == ["too hard"]
    assert early_warnings(CONFIG, records[:-1]) == []


@pytest.mark.parametrize(
    ("reward", "name", "cure"),
    [(0.05, "too hard", "sft.steps"), (0.5, "groups agree", "group_size"), (0.95, "too easy", "harder")],
)
@pytest.mark.parametrize("group_size", [2, 12])
def test_most_groups_agreeing_is_told_whatever_they_earn(reward: float, name: str, cure: str, group_size: int) -> None:
    records, config = healthy(steps=5), copy.deepcopy(CONFIG)
    config["rl"]["group_size"] = group_size
    rows(records, agree=0.55, reward=reward)
    (finding,) = early_warnings(config, records)
    assert finding.name == name and cure in finding.cure and "55%" in finding.evidence


def test_the_early_warnings_are_of_all_five_steps_and_of_every_environment() -> None:
    records = healthy(steps=5)
    first = [record for record in records if record["phase"] == "rl"]
    for record, share in zip(
        first, (0.2, 0.9, 0.9, 0.9, 0.0), strict=True
    ):  # 0.58 in the mean, the last step alone is fine
        record["environments"][ENV] |= {"agree": share, "cut": share}
        record["environments"]["chat/Guess-v0"] = {"agree": 0.8, "cut": 0.1, "truncated": 0.1, "reward": 0.5}
        record["environments"]["math/Arithmetic-v0"] = {"agree": 0.1, "cut": 0.9, "truncated": 0.9, "reward": 0.5}
    told = [(finding.name, finding.evidence) for finding in early_warnings(CONFIG, records)]
    assert [name for name, _ in told] == ["truncated", "truncated", "groups agree", "groups agree"]
    assert ["Arithmetic" in told[0][1], ENV in told[1][1], "Guess" in told[2][1], ENV in told[3][1]] == [True] * 4
    for record, share in zip(first, (0.0, 0.0, 0.0, 0.5, 1.0), strict=True):  # only the end is bad
        record["environments"] = {ENV: {"agree": share, "cut": share, "reward": 0.5}}
    assert early_warnings(CONFIG, records) == []


def test_groups_that_nobody_compares_may_agree() -> None:
    records = healthy(steps=5)
    rows(records, agree=1.0)
    for changes in ({"algorithm": {"name": "ppo"}}, {"algorithm": {"name": "reinforce_pp", "baseline": "none"}}):
        assert early_warnings({**CONFIG, **changes}, records) == []
    own = [{**env, "algorithm": {"name": "ppo"}} for env in CONFIG["environments"]]
    assert early_warnings({**CONFIG, "environments": own}, records) == []


def test_the_final_rules_are_stricter_than_the_early_ones() -> None:
    records = healthy()
    rows(records, agree=0.6, truncated=0.6)
    assert explain(CONFIG, records) == [] and len(early_warnings(CONFIG, records)) == 2


def test_a_run_of_which_nothing_could_be_compared_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records, nothing = healthy(), {"compared": 0, "p50": None, "p99": None, "p999": None, "max": None}
    assert not uncompared(records) and not uncompared([])
    steps(records[:-1], mismatch=nothing)
    assert not uncompared(records)
    steps(records, mismatch=nothing)
    assert uncompared(records) and explain(CONFIG, records) == []
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr("sys.argv", ["swannery", "explain", str(tmp_path)])
    assert main() == 0 and "nothing was compared" in capsys.readouterr().out


def test_the_verb_reads_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = healthy()
    rows(records, cut=0.7)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr("sys.argv", ["swannery", "explain", str(tmp_path)])
    assert main() == 1 and "70% of the rollouts of tools/Calculator-v0 run out of tokens" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["swannery", "explain", str(tmp_path / "nowhere")])
    assert main() == 2 and "is no run folder" in capsys.readouterr().err


def test_a_curriculum_that_makes_tasks_harder_is_no_collapse() -> None:
    records, config = healthy(), copy.deepcopy(CONFIG)
    collapse(records, config)
    for record in records:
        for env_id, row in record.get("environments", {}).items():
            if env_id == ENV:
                row["reward"] = max(row["reward"], 0.15)
    assert "collapse" in {finding.name for finding in explain(config, records)}
    config["curriculum"]["enabled"] = True
    assert "collapse" not in {finding.name for finding in explain(config, records)}
