"""Declared state, snapshots, branches, records: an episode can be taken back, split and played again."""

import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swannery.environments import (
    Env,
    EnvironmentFault,
    EpisodeRecord,
    SQLite,
    State,
    Task,
    TaskFileError,
    ToolCall,
    Turn,
    jsonl,
    make,
    register,
    replay,
    reward,
    tool,
)
from swannery.environments.record import play_turns
from swannery.environments.state import DictState, copied
from swannery.environments.wrappers import Record, Retry, ShapeReward, TimeLimit, TokenLimit, TurnLimit


@register("test/Ledger-v0", max_turns=30)
class Ledger(Env):
    db = State.sqlite("CREATE TABLE entries (id INTEGER PRIMARY KEY, amount REAL)")
    notes = State.dict({"lines": []})

    def task(self, rng: np.random.Generator) -> Task:
        a = int(rng.integers(100))
        return Task(f"Book {a}.", gold=(ToolCall("book", {"amount": float(a)}), ToolCall("book", {"amount": 1.0})))

    def start(self) -> None:
        self.count = 0
        self.seen: list[float] = []
        self.dice = random.Random(str(self.task.prompt))

    @tool(writes=True)
    def book(self, amount: float) -> str:
        """Book an amount."""
        self.count += 1
        self.seen.append(amount)
        self.db.run("INSERT INTO entries (amount) VALUES (?)", amount)
        self.notes["lines"].append(f"booked {amount}")
        return f"{self.count} {self.dice.random()} {self.np_random.random()}"

    @reward
    def same(self) -> bool:
        return self.hash() == self.after(self.task.gold).hash()


def book(amount: float) -> Turn:
    return Turn(tool_calls=(ToolCall("book", {"amount": amount}),))


@pytest.fixture
def ledger() -> Any:
    env = make("test/Ledger-v0")
    env.reset(seed=3)
    yield env
    env.close()


def test_restoring_takes_state_attributes_and_every_random_stream_back(ledger: Env) -> None:
    ledger.step(book(1.0))
    taken, hashed = ledger.snapshot(), ledger.hash()
    went = [ledger.step(book(float(i)))[0][0].text for i in range(4)]
    for _ in range(2):
        ledger.restore(taken)
        assert ledger.hash() == hashed and ledger.seen == [1.0] and len(ledger.calls) == 1  # type: ignore[attr-defined]
        assert [ledger.step(book(float(i)))[0][0].text for i in range(4)] == went


def test_a_branch_goes_its_own_way(ledger: Env) -> None:
    ledger.step(book(1.0))
    twin = ledger.branch()
    hashed = ledger.hash()
    left = twin.step(book(2.0))[0][0].text
    assert ledger.hash() == hashed and twin.hash() != hashed and ledger.step(book(2.0))[0][0].text == left
    assert ledger.hash() == twin.hash() and len(ledger.transcript) == len(twin.transcript)
    twin.close()
    assert ledger.step(book(3.0))[0][0].text


def test_gold_calls_are_judged_by_the_state_they_leave(ledger: Env) -> None:
    gold = ledger.task.gold
    ledger.step(Turn(tool_calls=gold))
    assert ledger.step("done")[1] == 1.0
    ledger.reset(seed=3)
    ledger.step(Turn(tool_calls=(gold[0], gold[1], gold[1])))
    assert ledger.step("done")[1] == 0.0


def test_the_hash_of_a_database_is_that_of_its_rows_as_multisets() -> None:
    def table(*rows: tuple[Any, ...]) -> str:
        db = SQLite("CREATE TABLE t (a, b)")
        db.fill("t", rows)
        return db.hash()

    assert table((1, "x"), (2, "y")) == table((2, "y"), (1, "x")) != table((1, "x"), (2, "y"), (2, "y"))
    assert table((1, "x")) != table(("1", "x")) and table((None, "x")) != table(("None", "x"))


def test_a_database_reaches_no_file(tmp_path: Path) -> None:
    db = SQLite("CREATE TABLE t (a)")
    for sql in (f"ATTACH '{tmp_path}/x.db' AS y", f"VACUUM INTO '{tmp_path}/x.db'"):
        with pytest.raises(Exception, match="not authorized|SQL logic error|authoriz"):
            db.run(sql)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="script fails"):
        State.sqlite("CREATE TABEL t")


def test_a_dict_state_holds_plain_data_only() -> None:
    state = DictState({"a": [1, {"b": "c"}], "n": None})
    twin = state.branch()
    twin["a"][1]["b"] = "d"
    assert state["a"][1]["b"] == "c" and state.hash() != twin.hash()
    with pytest.raises(TypeError, match="State.dict holds"):
        copied({"a": object()})


def test_what_cannot_be_copied_is_told_with_its_cure() -> None:
    class Locked(Ledger):
        def start(self) -> None:
            super().start()
            self.lines = (line for line in "abc")

    env = Locked()
    with pytest.raises(TypeError, match="self.lines cannot be part of a snapshot.*bind it in __init__"):
        env.reset(seed=0)


def test_a_megabyte_is_taken_and_put_back_in_about_a_millisecond() -> None:
    """Not timed closely here (benchmarks/environments.py does): only that the cost is of that order."""
    state = DictState({f"key {i}": "x" * 100 for i in range(10_000)})
    db = SQLite("CREATE TABLE t (a)")
    db.fill("t", [("x" * 1_000,) for _ in range(1_000)])
    for one in (state, db):
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            one.restore(one.snapshot())
            best = min(best, time.perf_counter() - start)
        assert best < 0.02


def test_a_record_replays_byte_for_byte_and_tells_where_it_does_not(tmp_path: Path) -> None:
    env = Record(make("tools/Calculator-v0"), tmp_path / "episodes.jsonl")
    for seed in range(3):
        env.reset(seed=seed)
        while env.core.outcome is None:
            env.step(env.core.oracle())
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == 3
    record = EpisodeRecord.from_dict(json.loads(lines[1]))
    assert replay(record).to_dict() == record.to_dict()
    record.said[1] = record.said[1].replace("content", "kontent")
    with pytest.raises(EnvironmentFault, match="turn 1 went another way"):
        replay(record)


def test_wrappers_limit_shape_and_keep_gymnasium_s_interface() -> None:
    env = TurnLimit(ShapeReward(make("chat/Guess-v0"), lambda parts: {k: 10 * v for k, v in parts.items()}), 2)
    env.reset(seed=0)
    env.step("1")
    *_, truncated, info = env.step("1")
    assert truncated and info["outcome"].reason == "max_turns"
    env.reset(seed=0)
    assert env.step(env.core.task.answer)[1] == 10.0 and env.core.total_rewards() == {"found": 10.0}
    late = TimeLimit(make("chat/Guess-v0"), 1e-9)
    late.reset(seed=0)
    assert late.step("1")[4]["outcome"].reason == "time_limit"
    wordy = TokenLimit(make("chat/Guess-v0"), 3, lambda text: len(text.split()))
    wordy.reset(seed=0)
    assert not wordy.step("not yet")[3]
    assert wordy.step("now it is")[4]["outcome"].reason == "token_limit"


def test_retry_takes_the_turn_again_from_the_state_before_it() -> None:
    failures = iter([True, True, False])

    class Flaky(Ledger):
        @tool(writes=True)
        def book(self, amount: float) -> str:
            """Book, sometimes."""
            text = Ledger.book(self, amount)
            if next(failures, False):
                raise ConnectionError("lost")
            return text

    env = Retry(Flaky(), times=2)
    env.reset(seed=0)
    env.step(book(5.0))
    assert env.num_retries == 2 and env.core.seen == [5.0]  # type: ignore[attr-defined]
    assert len(env.core.db.rows("SELECT * FROM entries")) == 1  # type: ignore[attr-defined]


def test_tasks_come_from_a_file_beside_the_class(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    rows = [{"q": f"Say {i}.", "a": i, "topic": "numbers"} for i in range(250)]
    path.write_text("\n".join(json.dumps(row) for row in rows))

    class Says(Env):
        tasks = jsonl(path, prompt="q", answer="a")

        @reward
        def right(self, turn: Turn) -> bool:
            return turn.answer == self.task.answer

    env = Says()
    env.reset(seed=1)
    assert env.task.metadata == {"topic": "numbers"} and env.step(env.oracle())[1] == 1.0
    assert play_turns(env, 1, [Turn("x")]).outcome == "terminated"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "row 2: Expecting property name"),
        ('{"prompt": "x"}', "row 2: no field 'answer'"),
        ("[1]", "a row is a JSON object"),
        ('{"prompt": "x", "answer": NaN}', "NaN is no JSON"),
        ('{"prompt": "x", "answer": "1", "answer": "2"}', "comes twice"),
        ('{"prompt": "\\ud800", "answer": "1"}', "lone surrogates"),
        ('{"prompt": 3, "answer": "1"}', "a prompt is text or a list of messages"),
        ('{"prompt": "x", "answer": {"a": 1}}', "the answer must be text"),
        ("[" * 100_000, "row 2: nested too deeply"),
        ('{"prompt": "x", "answer": "1", "difficulty": "hard"}', "difficulty must be a number"),
        (json.dumps({"prompt": "x" * 10_000_001, "answer": "1"}), "at most 10000000"),
    ],
)
def test_a_bad_row_is_told_with_its_number_and_skipped_only_where_few_are(
    tmp_path: Path, row: str, reason: str
) -> None:
    path = tmp_path / "tasks.jsonl"
    good = json.dumps({"prompt": "x", "answer": "1"})
    path.write_text("\n".join([good, row, *[good] * 98]))
    with pytest.raises(TaskFileError, match=reason.replace("[", r"\[")):
        len(jsonl(path))
    lenient = jsonl(path, strict=False)
    assert len(lenient) == 99 and len(lenient.skipped) == 1
    path.write_text("\n".join([good, row]))
    with pytest.raises(TaskFileError, match="more than 1 %"):
        len(jsonl(path, strict=False))
    with pytest.raises(TaskFileError, match="cannot be read"):
        len(jsonl(tmp_path / "nowhere.jsonl"))
