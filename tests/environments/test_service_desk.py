"""service_desk/Tickets-v0: tickets end as runbooks and policy want it, checks come first, and nothing forbidden is done and undone."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swannery.environments import ToolCall, Turn, make
from swannery.environments.service_desk.tickets import Tickets

ID = "service_desk/Tickets-v0"
SEEDS = 300
DONE = Turn("That is done.")
Rows = list[dict[str, Any]]


def desk(level: int = 1) -> Tickets:
    env = make(ID, level=level)
    assert isinstance(env, Tickets)
    return env


def play(env: Tickets, seed: int, act: Callable[[], Turn]) -> float:
    env.reset(seed=seed)
    while True:
        _, value, terminated, truncated, _ = env.step(act())
        if terminated or truncated:
            return value


def tried(env: Tickets, *calls: ToolCall) -> float:
    """The reward of an episode that goes on with these calls in one turn and then ends."""
    if calls:
        env.step(Turn(tool_calls=calls))
    _, value, terminated, _, _ = env.step(DONE)
    assert terminated
    return value


def answer(env: Tickets, name: str, /, **arguments: Any) -> str:
    return env.step(Turn(tool_calls=(ToolCall(name, arguments),)))[0][0].text


def writes(env: Tickets) -> list[ToolCall]:
    return [call for call in env.task.gold if env.tools[call.name].writes]


def reads(env: Tickets) -> list[ToolCall]:
    return [call for call in env.task.gold if not env.tools[call.name].writes]


def table(env: Tickets, name: str) -> Rows:
    return env.db.rows(f"SELECT * FROM {name}")


def row(env: Tickets, name: str, key: str, value: str) -> dict[str, Any]:
    (found,) = [row for row in table(env, name) if row[key] == value]
    return found


def cases(level: int, pattern: str, seeds: int = 500, most: int = 6) -> Iterator[Tickets]:
    """Fresh episodes with exactly one ticket, of a kind; there must be one."""
    env, count = desk(level), 0
    for seed in range(seeds):
        env.reset(seed=seed)
        kinds = env.task.metadata["cases"]
        if len(kinds) == 1 and re.fullmatch(pattern, kinds[0]) and env.task.metadata["kind"] != "triage":
            yield env
            count += 1
            if count == most:
                return
    assert count, pattern


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_oracle_scores_one_on_every_seed(level: int) -> None:
    env = desk(level)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(SEEDS))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_those_who_cheat_or_do_nothing_earn_nothing(level: int) -> None:
    env = desk(level)
    assert len(env.cheats) >= 3 and env.floor == 0.0
    for name in env.cheats:
        assert all(play(env, seed, getattr(env, name)) == 0.0 for seed in range(100)), name
    assert all(play(env, seed, lambda: Turn("")) == 0.0 for seed in range(100))


def test_every_gold_state_differs_from_the_beginning() -> None:
    for level in (1, 2, 3):
        env = desk(level)
        for seed in range(100):
            env.reset(seed=seed)
            assert env.after(env.task.gold).hash() != env.hash()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_after_the_checks_writes_come_in_any_order_and_one_turn(level: int) -> None:
    env = desk(level)
    for seed in range(100):
        env.reset(seed=seed)
        assert tried(env, *reads(env), *reversed(writes(env))) == 1.0


def test_tickets_may_be_taken_in_another_order_and_checks_repeated() -> None:
    env, count = desk(3), 0
    for seed in range(60):
        env.reset(seed=seed)
        numbers = list(env.task.metadata["tickets"])
        by_ticket = [
            [call for call in writes(env) if call.arguments["ticket"] == number] for number in reversed(numbers)
        ]
        count += len(numbers) > 1
        assert tried(env, *reads(env), *reads(env), *(call for calls in by_ticket for call in calls)) == 1.0
    assert count > 30


@pytest.mark.parametrize("level", [1, 2, 3])
def test_one_write_more_or_less_or_on_another_ticket_earns_nothing(level: int) -> None:
    env = desk(level)
    for seed in range(60):
        env.reset(seed=seed)
        own = env.task.metadata["tickets"]
        other = next(ticket["id"] for ticket in table(env, "tickets") if ticket["id"] not in own)
        calls = writes(env)
        elsewhere = ToolCall(calls[-1].name, {**calls[-1].arguments, "ticket": other})
        for made in (
            [*calls, ToolCall("add_note", {"ticket": other, "code": "N99"})],
            calls[:-1],
            [*calls[:-1], elsewhere],
        ):
            env.reset(seed=seed)
            assert tried(env, *reads(env), *made) == 0.0


def test_the_wrong_person_device_queue_or_code_earns_nothing() -> None:
    changed = Counter[str]()
    env = desk(2)
    for seed in range(120):
        env.reset(seed=seed)
        for i, call in enumerate(writes(env)):
            for key, value in call.arguments.items():
                wrong = {
                    "approver": next(p["id"] for p in table(env, "people") if p["id"] != value),
                    "queue": next(q["name"] for q in table(env, "queues") if q["name"] != value),
                    "reason": "E09",
                    "code": "R09",
                    "priority": "P1" if value != "P1" else "P2",
                }.get(key)
                if wrong is not None:
                    env.reset(seed=seed)
                    calls = writes(env)
                    calls[i] = ToolCall(call.name, {**call.arguments, key: wrong})
                    assert tried(env, *reads(env), *calls) == 0.0
                    changed[key] += 1
    assert len(changed) == 5 and min(changed.values()) >= 3


def test_what_is_mended_in_time_counts_as_right() -> None:
    for env in cases(2, "disk|vpn|wifi"):
        ticket = writes(env)[-1].arguments["ticket"]
        mistakes = (
            ToolCall("add_note", {"ticket": ticket, "code": "N09"}),
            ToolCall("remove_note", {"ticket": ticket, "code": "N09"}),
            ToolCall("set_priority", {"ticket": ticket, "priority": "P1"}),
            ToolCall("set_priority", {"ticket": ticket, "priority": row(env, "tickets", "id", ticket)["priority"]}),
        )
        resolved = ToolCall("resolve", {"ticket": ticket, "code": "R09"}), ToolCall("reopen", {"ticket": ticket})
        assert tried(env, *reads(env), *mistakes, *resolved, *writes(env)) == 1.0


def test_without_its_check_a_right_resolution_earns_nothing() -> None:
    """The tables are right then, and only the gate knows."""
    for level in (1, 2):
        for env in cases(
            level, "locked|mfa|password|vpn|wifi|disk|battery|jam|toner|down|slow|licence|folder", most=25
        ):
            if env.task.metadata["kind"] != "resolve":
                continue
            env.step(Turn(tool_calls=tuple(writes(env))))
            assert env.solved() and not env.verified_first() and env.hands_off()
            assert tried(env) == 0.0


def test_a_check_that_comes_late_is_none() -> None:
    for env in cases(2, "locked|mfa|password"):
        action, *rest = writes(env)
        assert tried(env, action, *reads(env), *rest) == 0.0


def test_an_identity_checked_in_another_way_is_not_checked() -> None:
    for env in cases(2, "locked|mfa|password"):
        (check,) = [call for call in reads(env) if call.name == "check_identity"]
        other = next(method for method in ("callback", "badge", "question") if method != check.arguments["method"])
        wrong = ToolCall("check_identity", {**check.arguments, "method": other})
        assert tried(env, wrong, *writes(env)) == 0.0
        env.reset(options={"task": env.task})
        lower = ToolCall("check_identity", {**check.arguments, "ticket": f" {check.arguments['ticket'].lower()}"})
        assert tried(env, wrong, lower, *writes(env)) == 1.0


def test_a_security_incident_that_was_resolved_once_closes_the_gate() -> None:
    for env in cases(2, "incident"):
        ticket = writes(env)[-1].arguments["ticket"]
        resolved = ToolCall("resolve", {"ticket": ticket, "code": "R09"}), ToolCall("reopen", {"ticket": ticket})
        env.step(Turn(tool_calls=(*reads(env), *resolved, *writes(env))))
        assert env.solved() and not env.hands_off() and tried(env) == 0.0


@pytest.mark.parametrize("twist", ["vip missing", "vip away", "suspended", "imposter"])
def test_accounts_that_must_not_be_touched_close_the_gate_when_they_are(twist: str) -> None:
    for env in cases(3, f".*:{twist}", seeds=3000, most=3):
        ticket = writes(env)[-1].arguments["ticket"]
        who = row(env, "tickets", "id", ticket)["requester"]
        book = next(call for call in reads(env) if call.name == "read_runbook").arguments["runbook"]
        body = row(env, "runbooks", "id", book)["body"]
        action = re.search(r"run_action (\w+)", body)
        method = re.search(r"check_identity of the ticket, by (\w+)", body)
        assert action is not None and method is not None
        check = ToolCall("check_identity", {"ticket": ticket, "method": method[1]})
        act = ToolCall("run_action", {"ticket": ticket, "action": action[1], "target": who})
        env.step(Turn(tool_calls=(*reads(env), check, act)))
        assert env.calls[-1].ok and not env.hands_off() and tried(env, *writes(env)) == 0.0


def test_gold_keeps_the_policy_as_an_independent_reading_of_the_tables_says() -> None:
    """What becomes of a ticket is worked out anew from the tables, the runbook's text and the policy's."""
    seen = Counter[str]()
    env = desk(3)
    for seed in range(600):
        env.reset(seed=seed)
        if env.task.metadata["kind"] == "triage":
            continue
        for number, kind in zip(env.task.metadata["tickets"], env.task.metadata["cases"], strict=True):
            calls = [call for call in writes(env) if call.arguments["ticket"] == number]
            expected = outcome(env, number, kind.partition(":")[0])
            assert [(call.name, *list(call.arguments.values())[1:]) for call in calls] == expected, (seed, kind)
            seen[kind.partition(":")[2]] += 1
    assert len(seen) >= 16 and min(seen.values()) >= 3, seen


def outcome(env: Tickets, number: str, fault: str) -> list[tuple[str, ...]]:
    """The writes that a ticket needs, for the fault that its text tells of."""
    policy = env.task.messages[0].text
    ticket = row(env, "tickets", "id", number)
    who = row(env, "people", "id", ticket["requester"])
    laptops = [asset for asset in table(env, "assets") if asset["owner"] == who["id"]]
    named = [asset for asset in laptops if asset["model"] in ticket["body"]]
    laptop = named[0] if named else laptops[0]
    said = re.search(r"escalate to (\w+), reason (E\d\d); no note", policy)
    assert said is not None
    contained = ("escalate", said[1], said[2])
    if fault == "incident":
        target = ("end_sessions", who["id"]) if not named else ("isolate_device", laptop["tag"])
        return [("run_action", *target), contained]
    title = TITLES[fault]
    (book,) = [book for book in table(env, "runbooks") if book["title"] == title and book["status"] == "current"]
    codes = re.search(r"run_action (\w+).*\n3\. Close: add the note (N\d\d), then resolve with (R\d\d)", book["body"])
    assert codes is not None
    other = re.search(r"In any other case: escalate to (\w+), reason (E\d\d)", book["body"])
    elsewhere = [("escalate", *other.groups())] if other else []
    subject = next((t for t in re.findall(r"PR\d{4}", ticket["body"])), "")
    service = next((s["name"] for s in table(env, "services") if s["name"] in ticket["body"]), "")
    resource = next((r["name"] for r in table(env, "resources") if r["name"] in ticket["body"]), "")
    for older in table(env, "tickets"):
        if older["opened"] < ticket["opened"] and older["status"] != "resolved" and (subject or service):
            if (subject or service) in older["body"] and older["id"] != number:
                return [("link_duplicate", older["id"])]

    def mended(target: str) -> list[tuple[str, ...]]:
        return [("run_action", codes[1], target), ("add_note", codes[2]), ("resolve", codes[3])]

    def approved(owner: str, target: str) -> list[tuple[str, ...]]:
        right = row(env, "people", "id", owner)
        while right["status"] == "on leave":
            right = row(env, "people", "id", right["manager"])
        found = [a["status"] for a in table(env, "approvals") if (a["ticket"], a["approver"]) == (number, right["id"])]
        if not found:
            return [("request_approval", right["id"])]
        if found == ["denied"]:
            denied = re.search(r"denied the approval: resolve with (R\d\d)", policy)
            assert denied is not None
            return [("resolve", denied[1])]
        return mended(target)

    if fault in ("locked", "mfa", "password"):
        if who["status"] == "suspended":
            named_queue = re.search(r"accounts\. Escalate to (\w+), reason (E\d\d)", policy)
            assert named_queue is not None
            return [("escalate", *named_queue.groups())]
        if not ticket["genuine"]:
            named_queue = re.search(r"not confirmed: escalate to (\w+), reason (E\d\d)", policy)
            assert named_queue is not None
            return [("escalate", *named_queue.groups())]
        if (fault, who["account"]) == ("locked", "ok") or (fault, who["password"]) == ("password", "valid"):
            return elsewhere
        return approved(who["manager"], who["id"]) if who["vip"] else mended(who["id"])
    if resource:
        return approved(row(env, "resources", "name", resource)["owner"], resource)
    if service:
        found = row(env, "services", "name", service)
        if found["state"] not in book["body"]:
            return elsewhere
        today = re.search(r"Today is ([\d-]+)", policy)
        assert today is not None
        return approved(found["owner"], service) if found["freeze"] >= today[1] else mended(service)
    device = row(env, "assets", "tag", subject) if subject else laptop
    if device["state"] == "unknown program running":
        return [("run_action", "isolate_device", device["tag"]), contained]
    today = re.search(r"Today is ([\d-]+)", policy)
    assert today is not None
    over = fault == "battery" and device["warranty"] < today[1]
    return elsewhere if over or f'"{device["state"]}"' not in book["body"] else mended(device["tag"])


TITLES = {
    "locked": "Locked accounts",
    "mfa": "Lost second factor",
    "password": "Expired passwords",
    "vpn": "VPN certificates",
    "wifi": "Broken network profiles",
    "disk": "Full disks",
    "battery": "Worn batteries",
    "jam": "Stuck print jobs",
    "toner": "Empty toner",
    "down": "Services that do not answer",
    "slow": "Slow services",
    "licence": "Licences",
    "folder": "Access to folders",
}


def test_triage_follows_the_matrix_and_the_guide() -> None:
    seen = Counter[str]()
    for level in (2, 3):
        env = desk(level)
        for seed in range(SEEDS):
            env.reset(seed=seed)
            if env.task.metadata["kind"] != "triage":
                continue
            (guide,) = [book["body"] for book in table(env, "runbooks") if book["title"] == "Triage guide"]
            for call in writes(env):
                if call.name == "set_priority":
                    ticket = row(env, "tickets", "id", call.arguments["ticket"])
                    vip = row(env, "people", "id", ticket["requester"])["vip"]
                    assert call.arguments["priority"] == priority(ticket["body"], bool(vip))
                    seen[call.arguments["priority"] + "v" * vip] += 1
            queues = {c.arguments["ticket"]: c.arguments["queue"] for c in writes(env) if c.name == "assign_queue"}
            for call in writes(env):
                if call.name == "set_category":
                    line = re.search(rf"^{call.arguments['category']} .*: queue (\w+)$", guide, re.MULTILINE)
                    assert line is not None and line[1] == queues[call.arguments["ticket"]]
    assert all(seen[key] >= 3 for key in ("P1", "P2", "P3", "P4", "P2v", "P3v")), seen


def priority(text: str, vip: bool) -> str:
    many = re.search("whole department|All of|Everybody in [A-Z]", text)
    some = re.search("Three of us|Two colleagues|Four people", text)
    impact = "high" if many else "medium" if some else "low"
    stopped = re.search("cannot work at all|has stopped|no way round", text)
    detour = re.search("get by with|There is a way round|with a detour", text)
    urgency = "high" if stopped else "medium" if detour else "low"
    found = {"high": "P1 P2 P3", "medium": "P2 P3 P4", "low": "P3 P4 P4"}[impact].split()[
        ("high", "medium", "low").index(urgency)
    ]
    return {"P4": "P3", "P3": "P2"}.get(found, found) if vip else found


def test_hidden_findings_are_in_no_record() -> None:
    env = desk(3)
    for seed in range(20):
        env.reset(seed=seed)
        ticket, asset = next(iter(env.task.metadata["tickets"])), table(env, "assets")[0]["tag"]
        assert "genuine" not in answer(env, "read_ticket", ticket=ticket)
        assert '"state"' not in answer(env, "read_asset", asset=asset) + answer(env, "search_assets", query=asset)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("read_ticket", {"ticket": "INC1"}, "there is no ticket 'INC1'"),
        ("read_user", {"user": "Otto"}, "there is no user 'Otto': find_user knows their numbers"),
        ("read_asset", {"asset": "LT1"}, "there is no asset 'LT1': search_assets knows their tags"),
        ("search_tickets", {"queue": "Nowhere"}, "there is no queue 'Nowhere'; the queues are "),
        ("set_priority", {"ticket": "INC1", "priority": "P9"}, "bad arguments for set_priority"),
        ("service_status", {"service": "Nothing"}, "there is no service 'Nothing'"),
        ("check_identity", {"ticket": "INC1", "method": "callback"}, "there is no ticket 'INC1'"),
    ],
)
def test_tools_refuse_with_what_came_and_what_would_do(name: str, arguments: dict[str, Any], told: str) -> None:
    env = desk()
    env.reset(seed=0)
    before = env.hash()
    assert told in answer(env, name, **arguments) and env.hash() == before and not env.calls[-1].ok


def test_actions_refuse_what_they_are_not_for() -> None:
    env = desk(2)
    env.reset(seed=0)
    first, second = (ticket["id"] for ticket in table(env, "tickets")[:2])
    who = next(person["id"] for person in table(env, "people") if person["account"] == "ok")
    laptop = next(asset["tag"] for asset in table(env, "assets") if asset["kind"] == "laptop")
    printer = next(asset["tag"] for asset in table(env, "assets") if asset["kind"] == "printer")
    folder = next(found["name"] for found in table(env, "resources") if found["kind"] == "folder")
    before = env.hash()
    for told, name, arguments in (
        ("account of U", "run_action", {"ticket": first, "action": "unlock_account", "target": who}),
        ("clean_disk is for a laptop", "run_action", {"ticket": first, "action": "clean_disk", "target": printer}),
        ("order_toner is for a printer", "run_action", {"ticket": first, "action": "order_toner", "target": laptop}),
        ("is a folder, not a licence", "run_action", {"ticket": first, "action": "grant_licence", "target": folder}),
        ("there is no service", "run_action", {"ticket": first, "action": "restart_service", "target": laptop}),
        ("no duplicate of itself", "link_duplicate", {"ticket": first, "original": first}),
        (
            "is not resolved",
            "reopen",
            {"ticket": next(iter(env.task.metadata["tickets"]))},
        ),
        ("a code is a letter and two digits, such as N12, got 'done'", "resolve", {"ticket": first, "code": "done"}),
        ("has no note n77", "remove_note", {"ticket": second, "code": "n77"}),
    ):
        assert told in answer(env, name, **arguments), name
    assert env.hash() == before
    assert answer(env, "request_approval", ticket=first, approver=who) == "done"
    assert "has been asked already: requested" in answer(env, "request_approval", ticket=first, approver=who)
    assert answer(env, "run_action", ticket=first, action="isolate_device", target=laptop) == "done"
    assert "isolated of LT" in answer(env, "run_action", ticket=first, action="isolate_device", target=laptop)


def test_codes_and_queues_are_drawn_anew_and_none_is_used_twice() -> None:
    env, notes = desk(3), Counter[str]()
    for seed in range(40):
        env.reset(seed=seed)
        texts = "\n".join([*(book["body"] for book in table(env, "runbooks")), env.task.messages[0].text])
        codes = Counter(re.findall(r"\b[NRE]\d\d\b", texts))
        assert max(codes.values()) == 1
        notes[re.findall(r"N\d\d", texts)[0]] += 1
    assert len(notes) > 20


def test_requests_are_of_all_kinds_and_every_tool_that_writes_is_needed() -> None:
    used, kinds = Counter[str](), Counter[str]()
    for level in (1, 2, 3):
        env, found = desk(level), Counter[str]()
        for seed in range(SEEDS):
            env.reset(seed=seed)
            found[env.task.metadata["kind"]] += 1
            kinds.update(env.task.metadata["cases"])
            used.update(call.name for call in env.task.gold)
        assert sorted(found) == ["escalate", "resolve", "triage"] and min(found.values()) > SEEDS / 8
    env = desk()
    unused = [name for name, tool in env.tools.items() if tool.writes and not used[name]]
    assert unused == ["remove_note", "reopen"]  # they are there to mend mistakes
    assert len(kinds) > 60


def test_a_bad_level_is_told_with_what_would_do() -> None:
    with pytest.raises(ValueError, match="^Tickets: level is 1, 2 or 3, got 9$"):
        make(ID, level=9)
