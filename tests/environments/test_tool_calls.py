"""tool_calls/Accuracy-v0: exact calls, as a multiset, in one turn; refusals by topic; nothing for talk."""

import datetime
import json
from typing import Any

import numpy as np
import pytest

from swannery.environments import Env, Task, ToolCall, Turn, make
from swannery.environments.tool_calls.accuracy import KINDS, refused
from swannery.environments.tool_calls.functions import FAMILIES
from swannery.environments.tool_calls.requests import DRAW, Mouth
from swannery.environments.tool_calls.unfit import UNFIT
from swannery.environments.tool_calls.words import a_day, say_time

ID = "tool_calls/Accuracy-v0"
SEEDS = 300


def play(env: Env, seed: int, act: Any) -> float:
    env.reset(seed=seed)
    while True:
        _, value, terminated, truncated, _ = env.step(act())
        if terminated or truncated:
            return value


def judged(gold: tuple[ToolCall, ...], *turns: Turn, topics: tuple[str, ...] = ()) -> float:
    """The reward of these turns on a task of our own, over all functions."""
    env = make(ID, level=3)
    env.reset(options={"task": Task("Do it.", gold=gold, metadata={"kind": "parallel", "topics": list(topics)})})
    value = 0.0
    for turn in turns:
        _, value, terminated, truncated, _ = env.step(turn)
        if terminated or truncated:
            break
    return value


def called(*calls: ToolCall) -> Turn:
    return Turn(tool_calls=calls)


OSLO, ROME = ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome", "day": "tomorrow"})
DONE = Turn("Done.")


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_oracle_scores_one_on_every_seed(level: int) -> None:
    env = make(ID, level=level)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(SEEDS))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_demonstrator_scores_about_a_third_to_a_half(level: int) -> None:
    env, rng = make(ID, level=level), np.random.default_rng(0)
    assert 0.3 < np.mean([play(env, seed, lambda: env.demonstrate(rng)) for seed in range(SEEDS)]) < 0.55


@pytest.mark.parametrize("level", [1, 2, 3])
def test_cheats_and_those_who_know_nothing_stay_at_the_floor(level: int) -> None:
    env = make(ID, level=level)
    env.action_space.seed(0)
    policies = [getattr(env, name) for name in env.cheats]
    policies += [lambda: Turn(""), lambda: Turn(env.task.messages[-1].text), env.action_space.sample]
    for policy in policies:
        assert np.mean([play(env, seed, policy) for seed in range(SEEDS)]) <= env.floor


def test_refusing_everything_earns_next_to_nothing_even_where_every_task_is_about_refusing() -> None:
    env = make(ID, level=3, kinds=["irrelevant"])
    assert np.mean([play(env, seed, env.refuses) for seed in range(1000)]) <= env.floor


def test_the_order_of_parallel_calls_is_the_agent_s() -> None:
    assert judged((OSLO, ROME), called(OSLO, ROME), DONE) == 1.0
    assert judged((OSLO, ROME), called(ROME, OSLO), Turn("Oslo has rain.")) == 1.0


def test_a_default_may_be_said_and_numbers_may_come_as_text() -> None:
    said = ToolCall("weather", {"city": "Oslo", "day": "today", "unit": "celsius"})
    assert judged((OSLO,), called(said), DONE) == 1.0
    gold = ToolCall("convert_currency", {"amount": 30, "source": "EUR", "target": "USD"})
    text = ToolCall("convert_currency", {"amount": "30.00", "source": "EUR", "target": "USD"})
    assert judged((gold,), called(text), DONE) == 1.0


def test_nested_arguments_are_compared_as_values() -> None:
    items = [{"name": "eggs", "count": 6}, {"name": "oat milk", "count": 1}]
    gold = ToolCall("order_groceries", {"items": items})
    assert judged((gold,), called(ToolCall("order_groceries", {"items": json.dumps(items)})), DONE) == 1.0
    assert judged((gold,), called(ToolCall("order_groceries", {"items": items[::-1]})), DONE) == 0.0
    more = [{**items[0], "brand": "any"}, items[1]]
    assert judged((gold,), called(ToolCall("order_groceries", {"items": more})), DONE) == 0.0


@pytest.mark.parametrize(
    "turns",
    [
        (DONE,),
        (called(OSLO), DONE),
        (called(OSLO, ROME, ROME), DONE),
        (called(OSLO, ROME, ToolCall("air_quality", {"city": "Oslo"})), DONE),
        (called(OSLO, ROME, ToolCall("wether", {"city": "Oslo"})), DONE),
        (called(OSLO, ROME, ToolCall("weather", {"town": "Oslo"})), DONE),
        (called(OSLO), called(ROME), DONE),
        (called(OSLO, ROME), called(OSLO), DONE),
        (called(OSLO, ROME), called(*[OSLO] * 30)),
        (called(OSLO, ToolCall("weather", {"city": "Rome"})), DONE),
        (called(OSLO, ToolCall("weather", {"city": "rome", "day": "tomorrow"})), DONE),
        (called(OSLO, ToolCall("weather", {"city": "Rome", "day": "tomorrow", "unit": "fahrenheit"})), DONE),
        (called(OSLO, ROME), Turn("no function: taxi")),
        (called(OSLO, ROME), Turn("Done.", cut=True)),
    ],
)
def test_near_misses_earn_nothing(turns: tuple[Turn, ...]) -> None:
    assert judged((OSLO, ROME), *turns) == 0.0


def test_what_no_function_does_is_refused_by_its_topic_and_in_no_other_words() -> None:
    topics = ("taxi", "news")
    for answer in ("no function: taxi, news", "No function: news, taxi.", " no  function: News , taxi"):
        assert judged((), Turn(answer), topics=topics) == 1.0
    for answer in ("no function: taxi", "no function: taxi, news, photo", "Sorry. no function: taxi, news", "none", ""):
        assert judged((), Turn(answer), topics=topics) == 0.0
    assert judged((), called(OSLO), Turn("no function: taxi, news"), topics=topics) == 0.0
    assert judged((OSLO,), called(OSLO), Turn("no function: taxi"), topics=("taxi",)) == 1.0
    assert judged((OSLO,), Turn("no function: taxi"), topics=("taxi",)) == 0.0
    assert refused("All done.") == [] and refused("Well, no function: taxi") == ["?"]


def test_every_function_is_drawn_rightly_at_every_level_and_its_call_is_taken() -> None:
    assert sorted(name for family in FAMILIES.values() for name in family) == sorted(DRAW)
    env, rng = make(ID, level=3), np.random.default_rng(0)
    for level in (1, 2, 3):
        for name in DRAW:
            for _ in range(20):
                arguments, clause = DRAW[name](Mouth(rng, level, a_day(rng)))
                env.reset(options={"task": Task(clause, metadata={"topics": []})})
                (said,), *_ = env.step(called(ToolCall(name, arguments)))
                assert not said.text.startswith("error"), (clause, said.text)
                assert clause[0].islower() and not clause.endswith(".")


def test_a_tool_answers_the_same_call_alike_and_refuses_forms_it_does_not_state() -> None:
    env = make(ID, level=3)
    env.reset(seed=0)
    first, second = env.step(called(OSLO, OSLO))[0]
    assert first.text == second.text
    bad = [
        ToolCall("set_alarm", {"time": "7 pm"}),
        ToolCall("exchange_rate", {"source": "euros", "target": "USD"}),
        ToolCall("find_events", {"date": "tomorrow"}),
        ToolCall("lights", {"room": "cellar", "on": True}),
    ]
    assert all(message.text.startswith("error: ") for message in env.step(called(*bad))[0])


def test_times_are_said_as_they_are() -> None:
    rng = np.random.default_rng(1)
    said = dict(say_time(rng, 3) for _ in range(3000))
    assert said["07:15"] in ("a quarter past seven in the morning", "07:15")
    assert said["14:45"] in ("a quarter to three in the afternoon", "14:45")
    assert said["20:00"] in ("eight o'clock in the evening", "20:00")
    assert said["12:45"] in ("a quarter to one in the afternoon", "12:45")
    assert said["19:05"] in ("7:05 pm", "19:05")


def test_level_3_says_what_day_it_is() -> None:
    env = make(ID, level=3)
    for seed in range(50):
        prompt = env.reset(seed=seed)[0][-1].text
        datetime.date.fromisoformat(prompt.removeprefix("Today is ")[:10])


def test_a_subset_of_functions_is_all_that_is_offered() -> None:
    env = make(ID, functions=["weather", "set_timer"])
    assert list(env.tools) == ["weather", "set_timer"] == [schema.name for schema in env.action_space.tools]
    assert all(env.reset(seed=seed) and env.task.gold[0].name in env.tools for seed in range(50))
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(50))
    (said,), *_ = env.step(called(ToolCall("route", {"start": "Oslo", "end": "Rome"}))) if env.reset(seed=0) else ((),)
    assert said.text.startswith("error: no tool named 'route'")
    assert list(make(ID, level=3).tools) == list(DRAW)
    assert make(ID, level=2, functions=["weather"]).kinds == ("single", "parallel")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_asks_what_its_name_says(kind: str) -> None:
    env = make(ID, level=3, kinds=[kind])
    for seed in range(60):
        env.reset(seed=seed)
        gold, topics = env.task.gold, env.task.metadata["topics"]
        assert (len(gold) == 1) == (kind in ("single", "multiple")) or kind == "irrelevant"
        assert bool(topics) == (kind == "irrelevant") and (kind != "parallel" or len(gold) > 1)
        assert env.reset(seed=seed)[0][0].text.count("no function:") == (kind == "irrelevant")
        typed = [(call.name, env.tools[call.name].typed(call.arguments)) for call in gold]
        assert all(typed.count(call) == 1 for call in typed)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"level": 4}, "level is 1, 2 or 3, got 4"),
        ({"kinds": ["paralel"]}, "no kind named 'paralel'. Did you mean 'parallel'?"),
        ({"kinds": []}, "at least one kind"),
        ({"functions": ["wether"]}, "no function named 'wether'. Did you mean 'weather'?"),
        ({"functions": ["weather", "weather"]}, "each once"),
        (
            {"functions": ["weather", "set_timer"], "kinds": ["multiple"]},
            "'multiple' needs two functions that are alike",
        ),
    ],
)
def test_a_bad_option_is_told_with_what_would_do(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^Accuracy: ") as caught:
        make(ID, **options)
    assert told in str(caught.value)


def test_no_topic_is_the_name_of_a_function() -> None:
    assert not set(UNFIT) & set(DRAW) and all("," not in topic for topic in UNFIT)
