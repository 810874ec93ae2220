"""workplace/Assistant-v0: the databases end up as the request and the house rules want them, in whatever order; talk earns nothing."""

import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swannery.environments import ToolCall, Turn, make
from swannery.environments.workplace.assistant import Assistant

ID = "workplace/Assistant-v0"
SEEDS = 300
DONE = Turn("It is done.")
Rows = list[dict[str, Any]]


def office(level: int = 1) -> Assistant:
    env = make(ID, level=level)
    assert isinstance(env, Assistant)
    return env


def play(env: Assistant, seed: int, act: Callable[[], Turn]) -> float:
    env.reset(seed=seed)
    while True:
        _, value, terminated, truncated, _ = env.step(act())
        if terminated or truncated:
            return value


def tried(env: Assistant, *calls: ToolCall) -> float:
    """The reward of an episode with these calls in one turn, from where it is."""
    if calls:
        env.step(Turn(tool_calls=calls))
    _, value, terminated, _, _ = env.step(DONE)
    assert terminated
    return value


def answer(env: Assistant, name: str, /, **arguments: Any) -> str:
    return env.step(Turn(tool_calls=(ToolCall(name, arguments),)))[0][0].text


def writes(env: Assistant) -> list[ToolCall]:
    return [call for call in env.task.gold if env.tools[call.name].writes]


def cases(level: int, tool: str, seeds: int = 200) -> Iterator[tuple[Assistant, ToolCall]]:
    """Fresh episodes whose gold calls hold a tool, and its first call."""
    env = office(level)
    for seed in range(seeds):
        env.reset(seed=seed)
        for call in writes(env):
            if call.name == tool:
                yield env, call
                break


def table(env: Assistant, database: str, name: str) -> Rows:
    return env.states[database].rows(f"SELECT * FROM {name}")


def today_of(env: Assistant) -> datetime.date:
    found = re.search(r"Today is \w+, (\d+ \w+ \d+)\.", env.task.messages[0].text)
    assert found is not None
    return datetime.datetime.strptime(found[1], "%d %B %Y").date()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_oracle_scores_one_on_every_seed(level: int) -> None:
    env = office(level)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(SEEDS))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_those_who_cheat_or_do_nothing_stay_at_the_floor(level: int) -> None:
    env = office(level)
    assert len(env.cheats) >= 3
    for name in env.cheats:
        values = [play(env, seed, getattr(env, name)) for seed in range(100)]
        assert sum(values) / 100 <= env.floor, name
    assert all(play(env, seed, lambda: Turn("")) == 0.0 for seed in range(100))


def test_every_gold_state_differs_from_the_beginning() -> None:
    for level in (1, 2, 3):
        env = office(level)
        for seed in range(100):
            env.reset(seed=seed)
            assert env.after(env.task.gold).hash() != env.hash()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_look_ups_may_be_skipped_and_writes_come_in_any_order_and_one_turn(level: int) -> None:
    env = office(level)
    for seed in range(100):
        env.reset(seed=seed)
        assert tried(env, *reversed(writes(env))) == 1.0


def test_reading_and_refused_calls_cost_nothing() -> None:
    env = office(3)
    for seed in range(20):
        env.reset(seed=seed)
        reads = [ToolCall(name) for name in ("search_emails", "search_events", "search_tasks", "search_customers")]
        refused = (
            ToolCall("read_task", {"task": "T1"}),
            ToolCall("delete_email", {"email": "M1"}),
            ToolCall("no_tool"),
        )
        assert tried(env, *reads, *refused, *env.task.gold, ToolCall("list_boards"), ToolCall("search_sent")) == 1.0


@pytest.mark.parametrize("level", [1, 2, 3])
def test_one_write_more_or_less_earns_nothing(level: int) -> None:
    env = office(level)
    for seed in range(60):
        env.reset(seed=seed)
        calls = writes(env)
        extra = ToolCall("comment_on_task", {"task": table(env, "projects", "tasks")[0]["id"], "text": "Seen."})
        assert tried(env, *calls, extra) == 0.0
        env.reset(seed=seed)
        assert tried(env, *calls[:-1]) == 0.0


@pytest.mark.parametrize(
    "tool", ["send_email", "assign_task", "assign_customer", "forward_email", "invite", "create_event"]
)
def test_the_wrong_person_earns_nothing(tool: str) -> None:
    count = 0
    for env, call in cases(2, tool):
        (key,) = set(call.arguments) & {"to", "assignee", "owner", "person", "participants"}
        right = call.arguments[key]
        others = [row["address"] for row in table(env, "email", "contacts") if row["address"] not in (*[right], *right)]
        others = [address for address in others if address not in (env.user_address,)]
        wrong = ToolCall(tool, {**call.arguments, key: others[:1] if key == "participants" else others[0]})
        assert tried(env, *[wrong if one is call else one for one in writes(env)]) == 0.0
        count += 1
    assert count >= 5


def test_what_is_mended_in_time_counts_as_right() -> None:
    for env, call in cases(1, "create_event"):
        wrong = ToolCall("create_event", {**call.arguments, "start": "2027-01-01 09:00"})
        number = re.search(r"E\d{4}", answer(env, "create_event", **wrong.arguments))
        assert number is not None
        assert tried(env, ToolCall("move_event", {"event": number[0], "start": call.arguments["start"]})) == 1.0
    for env, call in cases(1, "assign_task"):
        wrong = ToolCall("assign_task", {**call.arguments, "assignee": env.user_address})
        assert tried(env, wrong, call) == 1.0
    for env, call in cases(1, "label_email"):
        mistake = {"email": call.arguments["email"], "label": "mistake"}
        assert tried(env, ToolCall("label_email", mistake), ToolCall("unlabel_email", mistake), call, call) == 1.0


def test_mail_that_was_sent_cannot_be_taken_back() -> None:
    for env, call in cases(1, "send_email"):
        other = {**call.arguments, "body": "Something else."}
        assert tried(env, ToolCall("send_email", other), call) == 0.0
        env.reset(options={"task": env.task})
        assert tried(env, call, call) == 0.0


def test_gold_ids_are_the_only_ones_that_the_words_of_level_two_fit() -> None:
    env = office(2)
    checked = 0
    for seed in range(SEEDS):
        env.reset(seed=seed)
        text = env.task.messages[-1].text
        for call in writes(env):
            if number := call.arguments.get("task"):
                titles = [row["title"] for row in table(env, "projects", "tasks")]
                mine = next(row["title"] for row in table(env, "projects", "tasks") if row["id"] == number)
                checked += f'"{mine}"' in text
                assert f'"{mine}"' not in text or titles.count(mine) == 1
            if number := call.arguments.get("event"):
                rows = table(env, "calendar", "events")
                mine = next(row for row in rows if row["id"] == number)
                same = [row for row in rows if (row["title"], row["start"][:10]) == (mine["title"], mine["start"][:10])]
                assert len(same) == 1
    assert checked > 20


def test_conditions_hold_as_an_independent_reading_of_the_tables_says() -> None:
    """The statements are read from the request's own words."""
    env, seen = office(3), Counter[str]()
    for seed in range(600):
        env.reset(seed=seed)
        text, holds = env.task.metadata["condition"], env.task.metadata["holds"]
        assert text in env.task.messages[-1].text
        for name, read in READERS.items():
            found = re.fullmatch(name, text)
            if found is not None:
                assert read(env, *found.groups()) == holds, (seed, text)
                seen[f"{read.__name__} {holds}"] += 1
    assert len(seen) == 2 * len(READERS) and min(seen.values()) >= 3, seen


def visits(env: Assistant, limit: str, metric: str, source: str | None, days: str) -> bool:
    return total(env, metric, source, days) > int(limit)


def compared(env: Assistant, first: str, metric: str, second: str, days: str) -> bool:
    return total(env, metric, first, days) > total(env, metric, second, days)


def total(env: Assistant, metric: str, source: str | None, days: str) -> int:
    column = {"visits": "visits", "engaged visits": "engaged", "sign-ups": "signups"}[metric]
    since = (today_of(env) - datetime.timedelta(int(days))).isoformat()
    rows = table(env, "analytics", "traffic")
    return sum(row[column] for row in rows if row["day"] >= since and source in (None, row["source"]))


def open_tasks(env: Assistant, name: str, limit: str) -> bool:
    (who,) = [row["address"] for row in table(env, "email", "contacts") if row["name"] == name]
    return sum(row["assignee"] == who and row["status"] != "Done" for row in table(env, "projects", "tasks")) > int(
        limit
    )


def overdue(env: Assistant, board: str) -> bool:
    today = today_of(env).isoformat()
    rows = table(env, "projects", "tasks")
    return any(row["board"] == board and row["status"] != "Done" and row["due"] < today for row in rows)


def more_customers(env: Assistant, first: str, second: str) -> bool:
    names = {row["address"]: row["name"] for row in table(env, "email", "contacts")}
    owners = Counter(names[row["owner"]] for row in table(env, "crm", "customers"))
    return owners[first] > owners[second]


def wrote(env: Assistant, name: str, days: str) -> bool:
    since = (today_of(env) - datetime.timedelta(int(days))).isoformat()
    return any(row["name"] == name and row["received"] >= since for row in table(env, "email", "emails"))


READERS: dict[str, Callable[..., bool]] = {
    r"there were more than (\d+) (visits|engaged visits|sign-ups)(?: from (\w+))? in the last (\d+) days": visits,
    r"(\w+) brought more (visits|engaged visits|sign-ups) than (\w+) in the last (\d+) days": compared,
    r"(.+) has more than (\d+) open tasks?": open_tasks,
    r'anything on the board "(\w+)" is overdue': overdue,
    r"(.+) looks after more customers than (.+)": more_customers,
    r"(.+) has written to me in the last (\d+) days": wrote,
}


def test_the_branch_that_was_not_to_be_taken_earns_nothing() -> None:
    env = office(3)
    for seed in range(60):
        env.reset(seed=seed)
        other = [ToolCall(name, given) for name, given in env.task.metadata["other"]]
        assert tried(env, *other) == 0.0


def test_gold_keeps_the_house_rules() -> None:
    env, bites = office(3), Counter[str]()
    for seed in range(600):
        env.reset(seed=seed)
        policy, rules, calls = env.task.messages[0].text, env.task.metadata["rules"], writes(env)
        assert len(rules) == 3 and all(f"\n{n}. " in policy for n in (1, 2, 3))
        domain = env.user_address.partition("@")[2]
        for call in calls:
            given = call.arguments
            if "outside" in rules and call.name == "send_email":
                assert given["to"].endswith(f"@{domain}")
            if "keep" in rules and call.name == "delete_email":
                kept = re.search(r'An email with the label "(\w+)" is never deleted', policy)
                assert kept is not None
                assert {"email": given["email"], "label": kept[1]} not in table(env, "email", "labels")
            if "won" in rules and call.name == "delete_customer":
                (row,) = [row for row in table(env, "crm", "customers") if row["id"] == given["customer"]]
                assert row["status"] != "won"
            if "weekend" in rules and call.name in ("create_event", "move_event"):
                assert datetime.datetime.fromisoformat(given["start"]).weekday() < 5
            if "rush" in rules and call.name == "create_task" and given.get("priority") == "high":
                latest = re.search(r"due on ([\d-]+) at the latest", policy)
                assert latest is not None and given["due"] <= latest[1]
            if (
                "load" in rules
                and call.name in ("create_task", "assign_task")
                and "Approve" not in given.get("title", "")
            ):
                most = re.search(r"Nobody who has (\d) or more", policy)
                (who,) = [row for row in table(env, "email", "contacts") if row["address"] == given["assignee"]]
                tasks = [
                    r
                    for r in table(env, "projects", "tasks")
                    if r["assignee"] == who["address"] and r["status"] != "Done"
                ]
                assert most is not None and (who["role"] == "head" or len(tasks) < int(most[1]))
        names = Counter(call.name for call in calls)
        if "handover" in rules:
            assert names["assign_customer"] <= names["add_customer_note"]
        if "notice" in rules and names["cancel_event"]:
            cancelled = [call.arguments["event"] for call in calls if call.name == "cancel_event"]
            guests = [row for row in table(env, "calendar", "guests") if row["event"] in cancelled]
            told = [call for call in calls if call.arguments.get("subject", "").startswith("Cancelled: ")]
            assert len(told) == len(guests) - len(cancelled)
        bites["notice"] += "notice" in rules and names["cancel_event"] > 0
        bites["outside"] += any(call.arguments.get("title", "").startswith("Approve: ") for call in calls)
        bites["keep"] += any(call.arguments.get("label") == "archive" for call in calls)
        bites["won"] += any(call.arguments.get("text", "").startswith("Deletion asked") for call in calls)
        bites["handover"] += "handover" in rules and names["assign_customer"] > 0
    assert min(bites.values()) >= 12, bites


def test_the_first_free_slot_is_the_first_minute_by_minute() -> None:
    count = 0
    for level in (2, 3):
        env = office(level)
        for seed in range(SEEDS):
            env.reset(seed=seed)
            finds = [call for call in env.task.gold if call.name == "find_free_slots"]
            for find in finds:
                (made,) = [call for call in writes(env) if call.name == "create_event"]
                people, day, length = (find.arguments[key] for key in ("people", "day", "minutes"))
                busy = []
                for row in table(env, "calendar", "events"):
                    guests = [g["address"] for g in table(env, "calendar", "guests") if g["event"] == row["id"]]
                    if set(guests) & set(people):
                        start = datetime.datetime.fromisoformat(row["start"])
                        busy += [start + datetime.timedelta(minutes=n) for n in range(row["minutes"])]
                at = datetime.datetime.fromisoformat(f"{day} {find.arguments['earliest']}")
                while {at + datetime.timedelta(minutes=n) for n in range(length)} & set(busy):
                    at += datetime.timedelta(minutes=30)
                assert made.arguments["start"] == at.isoformat(sep=" ", timespec="minutes")
                assert set(people) == {env.user_address, *made.arguments["participants"]}
                count += 1
    assert count >= 15


def test_requests_are_of_many_kinds_and_every_tool_that_writes_is_needed() -> None:
    used = Counter[str]()
    for level, kinds in ((1, 25), (2, 100), (3, 200)):
        env, found, prompts = office(level), Counter[str](), Counter[str]()
        for seed in range(SEEDS):
            env.reset(seed=seed)
            found[env.task.metadata["kind"]] += 1
            prompts[env.task.messages[-1].text] += 1
            used.update(call.name for call in env.task.gold)
        assert len(found) >= kinds and len(prompts) > 290
    env = office()
    unused = [name for name, tool in env.tools.items() if tool.writes and not used[name]]
    assert unused == ["unlabel_email"]  # it is there to mend a mistake
    assert len(env.tools) >= 25 and sorted(env.declared) == ["analytics", "calendar", "crm", "email", "projects"]


def test_level_one_needs_one_call_and_no_look_up() -> None:
    env = office(1)
    for seed in range(SEEDS):
        env.reset(seed=seed)
        assert len(env.task.gold) == len(writes(env)) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("send_email", {"to": "Nils", "subject": "a", "body": "b"}, "an address looks like name@company.example, got 'nils'"),
        ("send_email", {"to": "a@b.example", "subject": " ", "body": "b"}, "the subject is empty"),
        ("send_email", {"to": "a@b.example", "subject": "a", "body": "b" * 3000}, "the body has 3000 characters"),
        ("read_email", {"email": "M1"}, "there is no email 'M1'"),
        ("create_event", {"title": "x", "start": "tomorrow", "minutes": 30, "participants": []}, "YYYY-MM-DD HH:MM"),
        ("create_event", {"title": "x", "start": "0001-01-01 10:00", "minutes": 30, "participants": []}, "years are from 1990"),
        ("create_event", {"title": "x", "start": "2026-01-01 10:00", "minutes": 10**30, "participants": []}, "from 1 to 1440"),
        ("find_free_slots", {"people": [], "day": "2026-02-30", "minutes": 30}, "a day is written YYYY-MM-DD"),
        ("traffic_total", {"metric": "visits", "since": "2026-02-03", "until": "2026-02-01"}, "2026-02-03 is after 2026-02-01"),
        ("set_alert", {"source": "search", "metric": "visits", "below": 10**30}, "below is from 0 to 1000000"),
        ("create_task", {"title": "x", "board": "Nowhere", "assignee": "a@b.example"}, "there is no board 'Nowhere'"),
        ("assign_customer", {"customer": "C1", "owner": "a@b.example"}, "nobody in the company has the address"),
        ("move_task", {"task": "T1", "status": "Finished"}, "bad arguments for move_task"),
    ],
)  # fmt: skip
def test_tools_refuse_with_what_came_and_what_would_do(name: str, arguments: dict[str, Any], told: str) -> None:
    env = office()
    env.reset(seed=0)
    before = env.hash()
    assert told in answer(env, name, **arguments) and env.hash() == before and not env.calls[-1].ok


def test_the_same_customer_is_not_added_twice_and_nobody_is_taken_off_who_is_not_there() -> None:
    env = office()
    env.reset(seed=0)
    given = {"name": "A B", "company": "C", "email": "a@c.example", "owner": env.user_address}
    assert answer(env, "add_customer", **given).startswith('{"customer": "C')
    assert "already" in answer(env, "add_customer", **given)
    event = table(env, "calendar", "events")[0]["id"]
    assert "does not take part" in answer(env, "uninvite", event=event, person="a@c.example")
    email = table(env, "email", "emails")[0]["id"]
    assert "has no label" in answer(env, "unlabel_email", email=email, label="nothing")


def test_searches_find_by_words_in_any_case_and_order_and_say_how_many_there_are() -> None:
    env = office()
    env.reset(seed=0)
    row = table(env, "projects", "tasks")[0]
    words = " ".join(reversed(row["title"].upper().split()))
    assert f'"task": "{row["id"]}"' in answer(env, "search_tasks", query=words)
    count = len(table(env, "email", "emails"))
    assert count > 10 and answer(env, "search_emails").startswith(f'{{"found": {count}, ')
    assert '"found": 0' in answer(env, "search_emails", query="%")


def test_a_bad_level_is_told_with_what_would_do() -> None:
    with pytest.raises(ValueError, match="^Assistant: level is 1, 2 or 3, got 9$"):
        make(ID, level=9)
