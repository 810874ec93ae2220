"""banking/Support-v0: the bank ends up as its policy wants it, whichever way a sensible agent takes; talk earns nothing."""

import asyncio
import datetime
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from swannery.environments import ToolCall, Turn, make
from swannery.environments.banking.customer import FACTS, TOOLS
from swannery.environments.banking.support import Support
from swannery.environments.banking.world import CAPS

ID = "banking/Support-v0"
SEEDS = 300
BYE = Turn("Goodbye.")


def bank(level: int = 1) -> Support:
    env = make(ID, level=level)
    assert isinstance(env, Support)
    return env


def play(env: Support, seed: int, act: Callable[[], Any]) -> float:
    env.reset(seed=seed)
    while True:
        _, value, terminated, truncated, _ = env.step(act())
        if terminated or truncated:
            return value


def tried(env: Support, *turns: Turn) -> float:
    """The reward of these turns, from where the episode is."""
    value = 0.0
    for turn in turns:
        _, value, terminated, truncated, _ = env.step(turn)
        if terminated or truncated:
            return value
    raise AssertionError("the episode goes on")


def cases(level: int, kind: str, *names: str, without: tuple[str, ...] = ()) -> Iterator[Support]:
    """Fresh episodes of a kind whose gold calls hold all of these tools and none of those."""
    env = bank(level)
    for seed in range(400):
        env.reset(seed=seed)
        called = [call.name for call in env.task.gold]
        if (
            env.task.metadata["kind"] == kind
            and all(n in called for n in names)
            and not any(n in called for n in without)
        ):
            yield env


def calls(env: Support, by: str = "policy") -> list[ToolCall]:
    return [call for call in env.task.gold if env.tools[call.name].by == by]


def turn(*made: ToolCall) -> Turn:
    return Turn(tool_calls=made)


def identify(env: Support) -> None:
    """As the oracle does it."""
    while env.db.row("SELECT 1 FROM identified") is None:
        env.step(env.oracle())


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_oracle_scores_one_on_every_seed(level: int) -> None:
    env = bank(level)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(SEEDS))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_demonstrator_scores_about_a_third_to_a_half(level: int) -> None:
    env, rng = bank(level), np.random.default_rng(0)
    assert 0.3 < np.mean([play(env, seed, lambda: env.demonstrate(rng)) for seed in range(SEEDS)]) < 0.52


@pytest.mark.parametrize("level", [1, 2, 3])
def test_cheats_and_those_who_know_nothing_earn_nothing(level: int) -> None:
    env = bank(level)
    env.action_space.seed(0)
    policies: list[Any] = [getattr(env, name) for name in env.cheats]
    policies += [lambda: Turn(""), lambda: Turn(env.task.messages[-1].text), env.action_space.sample]
    assert len(env.cheats) >= 3 and env.floor == 0.0
    assert all(play(env, seed, policy) == 0.0 for policy in policies for seed in range(60))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_gold_calls_follow_the_policy(level: int) -> None:
    """Worked out again from the tables and what the customer says last."""
    env = bank(level)
    for seed in range(SEEDS):
        env.reset(seed=seed)
        given, gold = env.task.metadata, env.task.gold
        last = gold[-1]
        refused = last.arguments.get("department", "")
        assert last.name == ("hand_over" if refused else "close_ticket") and (level == 3 or not refused)
        me = env.db.row("SELECT * FROM customers WHERE id = ?", given["customer"])
        assert me is not None and env.owner(str(last.arguments.get("about", me["id"]))) == me["id"]
        by_name = {call.name: call.arguments for call in gold}
        today = datetime.date.fromisoformat(env.task.messages[0].text.split("Today is ")[1][:10])
        if given["kind"] == "dispute":
            number = by_name.get("dispute_payment", last.arguments).get("payment", last.arguments.get("about"))
            row = env.db.row("SELECT * FROM transactions WHERE id = ?", number)
            assert row is not None
            old = (today - datetime.date.fromisoformat(row["date"])).days > 60
            assert refused == ("complaints" if old else "fraud" if row["cents"] > 200_000 else "")
            assert ("upload_document" in by_name) == (not refused and row["cents"] > 50_000)
            same = env.db.rows("SELECT * FROM transactions WHERE text = ? AND cents = ?", row["text"], row["cents"])
            mine = [other["date"] for other in same if env.owner(other["id"]) == me["id"]]
            assert row["date"] == max(mine)
        if given["kind"] == "fee":
            row = env.db.row(
                "SELECT * FROM transactions WHERE id = ?",
                by_name.get("waive_fee", {}).get("fee") or last.arguments["about"],
            )
            assert row is not None and bool(refused) == (row["cents"] > 3_000 or me["waived"] > 0)
        if given["kind"] == "limit":
            wanted = int(given["facts"]["amount"].split()[0])
            assert bool(refused) == (wanted > CAPS[me["tier"]])
            if not refused:
                card = env.db.row("SELECT * FROM cards WHERE id = ?", by_name["set_limit"]["card"])
                assert card is not None and by_name["set_limit"]["amount"] == wanted
                assert ("confirm_in_app" in by_name) == (wanted > card[by_name["set_limit"]["kind"]])
        if given["kind"] == "transfer" and "transfer_own" in by_name:
            made = by_name["transfer_own"]
            source = env.db.row("SELECT * FROM accounts WHERE id = ?", made["source"])
            assert (
                source is not None and made["amount"] * 100 <= source["cents"] and env.owner(made["target"]) == me["id"]
            )
        if given["kind"] in ("lost_card", "mislaid_card"):
            assert ("freeze_card_in_app" in by_name) != ("block_card" in by_name)
            stolen = by_name.get("block_card", {}).get("reason") == "stolen"
            assert stolen == ("upload_document" in by_name)


def test_every_gold_state_differs_from_the_beginning() -> None:
    for level in (1, 2, 3):
        env = bank(level)
        for seed in range(100):
            env.reset(seed=seed)
            assert env.after(env.task.gold).hash() != env.hash()


def test_an_agent_may_skip_what_it_need_not_read_and_act_in_one_turn() -> None:
    for env in list_of(cases(1, "lost_card", "replace_card")):
        assert tried(env, turn(*calls(env)[1:]), BYE) == 1.0


def list_of(found: Iterator[Support], most: int = 5) -> Iterator[Support]:
    """A few of them; there must be one."""
    count = 0
    for env in found:
        count += 1
        yield env
        if count == most:
            return
    assert count


def test_reading_twice_and_mistakes_that_are_mended_cost_nothing() -> None:
    for env in list_of(cases(1, "lost_card", without=("replace_card",))):
        read, block, close = calls(env)
        wrong = ToolCall("block_card", {**block.arguments, "reason": "stolen"})
        unknown = ToolCall("list_cards", {"customer": "C1"})
        assert tried(env, turn(read, read, unknown), turn(wrong), turn(block), turn(block), turn(close), BYE) == 1.0
    for env in list_of(cases(2, "limit", "confirm_in_app")):
        identify(env)
        (limit,) = [call for call in calls(env) if call.name == "set_limit"]
        wrong = ToolCall("set_limit", {**limit.arguments, "amount": limit.arguments["amount"] + 50})
        asked = Turn("Could you approve the new limit in the app, please?")
        assert tried(env, turn(wrong), turn(limit), asked, turn(calls(env)[-1]), BYE) == 1.0


def test_a_code_may_be_sent_twice_and_everything_asked_in_one_breath() -> None:
    for env in list_of(cases(2, "mislaid_card")):
        given = env.task.metadata
        (said,), *_ = env.step("May I have your full name and date of birth, and which card is it?")
        assert given["facts"]["name"] in said.text and given["facts"]["card"] in said.text and "born on" in said.text
        find, send, check, *_ = calls(env)
        env.step(turn(find))
        env.step(turn(send, send))
        (said,), *_ = env.step(
            "We have just texted you a 6-digit code. What is it? And please freeze the card in the app."
        )
        assert said.text == f"The code is {given['code']}. I have frozen it in the app."
        assert tried(env, turn(check, ToolCall("close_ticket")), BYE) == 1.0


def test_the_customer_may_act_before_or_after_the_agent() -> None:
    for env in list_of(cases(2, "lost_card", "upload_document", "replace_card")):
        identify(env)
        env.step("I am sorry to hear that. Please upload the police report first.")
        assert tried(env, turn(*[call for call in calls(env)[3:]]), BYE) == 1.0


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("lost_card", {"reason": "stolen"}),
        ("lost_card", {"card": None}),
        ("limit", {"amount": 1}),
        ("limit", {"kind": "other"}),
        ("dispute", {"reason": "double"}),
        ("transfer", {"amount": 1.0}),
        ("transfer", {"source": None}),
    ],
)
def test_near_misses_earn_nothing(kind: str, change: dict[str, Any]) -> None:
    for env in list_of(cases(1, kind), 3):
        made = []
        for call in calls(env):
            arguments = dict(call.arguments)
            for key, value in change.items():
                if key in arguments and env.tools[call.name].writes:
                    arguments[key] = value if value is not None else other_of(env, str(arguments[key]))
                    if value == "other":
                        arguments[key] = "cash" if call.arguments[key] == "online" else "online"
            made.append(ToolCall(call.name, arguments))
        assert made != calls(env)
        assert (
            tried(env, turn(*made), Turn("Please confirm it in the app."), turn(ToolCall("close_ticket")), BYE) == 0.0
        )


def other_of(env: Support, number: str) -> str:
    """Another card or account of the same customer."""
    table = "cards" if number[0] == "K" else "accounts"
    rows = env.db.rows(f"SELECT id FROM {table} WHERE customer = ? AND id != ? ORDER BY id", env.owner(number), number)
    return str(rows[0]["id"])


def test_too_little_too_much_and_a_ticket_filed_wrongly_earn_nothing() -> None:
    for env in list_of(cases(1, "fee")):
        *reads, waive, close = calls(env)
        other = next(row["id"] for row in env.db.rows("SELECT * FROM transactions WHERE kind = 'payment' ORDER BY id"))
        number = env.task.metadata["customer"]
        mine = next(row["id"] for row in env.db.rows("SELECT id FROM cards WHERE customer = ? ORDER BY id", number))
        over = ToolCall("hand_over", {"department": "complaints", "about": waive.arguments["fee"]})
        for turns in (
            [turn(close)],
            [turn(waive, over)],
            [turn(waive, ToolCall("block_card", {"card": mine, "reason": "lost"}), close)],
            [turn(waive, ToolCall("dispute_payment", {"payment": other, "reason": "unknown"}), close)],
        ):
            env.reset(options={"task": env.task})
            assert tried(env, *turns, BYE) == 0.0
        env.reset(options={"task": env.task})
        assert tried(env, turn(*reads, waive, close), BYE) == 1.0


def test_what_is_refused_goes_to_the_right_people_about_the_right_thing() -> None:
    for kind in ("fee", "limit", "dispute", "transfer"):
        for env in list_of(cases(3, kind, "hand_over"), 2):
            right, departments = env.task.gold[-1].arguments, ("fraud", "credit", "complaints", "payments")
            for department in departments:
                for about in (right["about"], env.task.metadata["customer"]):
                    env.reset(options={"task": env.task})
                    identify(env)
                    over = ToolCall("hand_over", {"department": department, "about": about})
                    expected = (department, about) == (right["department"], right["about"])
                    assert tried(env, turn(over), BYE) == float(expected)


def test_a_change_before_the_identity_is_checked_closes_the_gate() -> None:
    for env in list_of(cases(2, "lost_card", without=("upload_document",))):
        find, send, check, *_ = calls(env)
        block = next(call for call in calls(env) if call.name == "block_card")
        rest = [call for call in calls(env) if call.name in ("replace_card", "close_ticket")]
        env.step(turn(block))
        env.step(turn(find, send))
        env.step("Please read me the code.")
        env.step(turn(check, *rest))
        assert env.hash() == env.after(env.task.gold).hash()
        *_, info = env.step(BYE)
        assert info["rewards"]["solved"] == 0.0 and not env.identified_first() and env.own_customer_only()


def test_touching_another_customer_closes_the_gate_even_if_it_is_undone() -> None:
    for env in list_of(cases(1, "limit", without=("confirm_in_app",))):
        theirs = next(
            row
            for row in env.db.rows("SELECT * FROM cards ORDER BY id")
            if row["customer"] != env.task.metadata["customer"]
        )
        up, same = (
            ToolCall("set_limit", {"card": theirs["id"], "kind": "cash", "amount": theirs["cash"] + n}) for n in (9, 0)
        )
        value = tried(env, turn(up, same), turn(*calls(env)), BYE)
        assert env.hash() == env.after(env.task.gold).hash() and value == 0.0 and not env.own_customer_only()


def test_nothing_can_be_done_on_a_closed_ticket_and_nothing_read_of_strangers() -> None:
    env = bank(2)
    env.reset(seed=0)
    number = env.task.metadata["customer"]
    account = env.task.metadata["rows"]["accounts"][0][0]
    for call in (
        ToolCall("customer_file", {"customer": number}),
        ToolCall("list_cards", {"customer": number}),
        ToolCall("list_accounts", {"customer": number}),
        ToolCall("list_transactions", {"account": account}),
    ):
        assert env.step(turn(call))[0][0].text == f"error: {number} is not identified"
    wrong = ToolCall("check_code", {"customer": number, "code": "000000"})
    assert "no code sent to" in env.step(turn(wrong))[0][0].text
    env.step(turn(ToolCall("send_code", {"customer": number})))
    assert env.step(turn(wrong))[0][0].text == "error: the code is wrong"
    env.step(turn(ToolCall("close_ticket")))
    assert "the ticket is closed" in env.step(turn(ToolCall("send_code", {"customer": number})))[0][0].text


def test_the_code_is_known_to_nobody_until_the_customer_reads_it() -> None:
    env = bank(3)
    for seed in range(100):
        observation, info = env.reset(seed=seed)
        code = env.task.metadata["code"]
        seen = [message.text for message in observation]
        while env.db.row("SELECT 1 FROM codes") is None:
            seen += [message.text for message in env.step(env.oracle())[0]]
        assert not any(code in text for text in seen) and code not in str(info)
        (said,), *_ = env.step(env.oracle())
        assert code in said.text


def test_the_customer_has_no_code_before_it_is_sent_and_nothing_to_confirm_or_upload_unless_it_is_so() -> None:
    env = bank(2)
    env.reset(seed=0)
    assert env.step("Please tell me the code.")[0][0].text == "No code has arrived."
    assert env.step("Please confirm it in the app.")[0][0].text == "There is nothing to confirm in my app."
    env = next(cases(2, "transfer"))
    assert env.step("Please upload the police report.")[0][0].text == "I do not have that."
    assert env.step("Please freeze your card.")[0][0].text == "I have no card to freeze."


def test_a_change_of_mind_comes_once_and_with_the_code() -> None:
    changed = 0
    env = bank(3)
    for seed in range(100):
        env.reset(seed=seed)
        then = env.task.metadata["then"]
        changed += bool(then)
        env.step(turn(ToolCall("send_code", {"customer": env.task.metadata["customer"]})))
        first, second = (env.step("What is the code?")[0][0].text for _ in range(2))
        assert first == f"{second} {then}".strip()
    assert 15 < changed < 60


@pytest.mark.parametrize(
    ("words", "topic"),
    [
        ("Could I have your DOB?", "birth"),
        ("When were you born?", "birth"),
        ("Which card do you mean?", "card"),
        ("What are the last four digits of the card number?", "card"),
        ("To which savings account should the money go?", "account"),
        ("What is the amount, please?", "amount"),
        ("Which of these payments do you want to dispute?", "payment"),
        ("Which one do you mean?", "payment"),
        ("Was it lost or stolen?", "reason"),
        ("Would you like a replacement card?", "new"),
        ("Please read me the six-digit code.", "code"),
        ("Kindly approve the request in your app.", "confirm"),
        ("You can freeze it yourself in the app.", "freeze"),
        ("Please send us the police report.", "police_report"),
        ("We need an invoice or receipt.", "receipt"),
    ],
)
def test_many_wordings_are_understood(words: str, topic: str) -> None:
    assert topic in make(ID).customer._asked({**FACTS, **TOOLS}, Turn(words))  # type: ignore[attr-defined]


def test_a_failure_of_the_user_is_told_apart_from_one_of_the_agent() -> None:
    env = bank(1)
    for words, user_failed in (("What is your favourite colour?", True), ("Blah.", False)):
        assert play(env, 0, lambda words=words: Turn(words)) == 0.0
        assert env.customer.failed and env.user_failed == user_failed
    assert play(env, 0, env.oracle) == 1.0 and not env.user_failed
    assert play(env, 0, env.closes_at_once) == 0.0 and not env.user_failed
    env.reset(seed=0)
    assert not env.customer.told and not env.user_failed


def test_a_branch_has_a_customer_of_its_own() -> None:
    env = bank(2)
    env.reset(seed=0)
    twin = env.branch()
    assert isinstance(twin, Support)
    twin.step("What is your name and date of birth?")
    assert twin.customer.told and not env.customer.told
    taken = env.snapshot()
    score = 0.0
    while env.outcome is None:
        _, score, *_ = env.step(env.oracle())
    env.restore(taken)
    assert score == 1.0 and env.num_turns == 0 and not env.customer.told


def test_on_an_event_loop_an_episode_goes_the_same_way() -> None:
    async def session(seed: int) -> tuple[float, list[str]]:
        env = bank(3)
        await env.areset(seed=seed)
        value = 0.0
        while env.outcome is None:
            _, value, *_ = await env.astep(env.oracle())
        return value, [message.text for message in env.transcript]

    async def all_at_once() -> list[tuple[float, list[str]]]:
        return await asyncio.gather(*(session(seed) for seed in range(8)))

    env = bank(3)
    for seed, (value, texts) in enumerate(asyncio.run(all_at_once())):
        assert value == play(env, seed, env.oracle) == 1.0
        assert texts == [message.text for message in env.transcript]


def test_a_bad_level_is_told_with_what_would_do() -> None:
    with pytest.raises(ValueError, match="^Support: level is 1, 2 or 3, got 9$"):
        make(ID, level=9)
