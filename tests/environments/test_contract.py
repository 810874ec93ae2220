"""Outcomes, deadlines, actions from outside, isolated tools, declarations: the contract where it is hard."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest
from pydantic import BaseModel

from swannery.environments import (
    DeclarationError,
    Env,
    EnvironmentFault,
    Message,
    State,
    Task,
    ToolCall,
    ToolError,
    Turn,
    make,
    make_vec,
    register,
    reward,
    spaces,
    tool,
)
from swannery.environments.deadline import Deadline, guarded, in_thread
from swannery.environments.wire import read_turn, turn_to_dict
from swannery.messages import Audio


class Item(BaseModel):
    title: str
    count: int = 1


@register("test/Depot-v0", max_turns=6, tool_timeout_s=1.0)
class Depot(Env):
    stock = State.dict({"pears": 3})
    db = State.sqlite("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")

    def task(self, rng: np.random.Generator) -> Task:
        return Task(f"Order {rng.integers(1000)}.", "done")

    @tool(writes=True)
    def order(
        self, items: list[Item], how: Literal["fast", "slow"] = "fast", note: str | None = None
    ) -> dict[str, Any]:
        """Order items.

        Args:
            items: What is wanted,
                each with its count.
            note: Anything else.
        """
        for item in items:
            self.stock[item.title] = self.stock.get(item.title, 0) + item.count
        return {"how": how, "note": note}

    @tool
    def spin(self) -> str:
        """Never ends."""
        while True:
            pass

    @tool(isolated=True, writes=True)
    def alone(self, title: str) -> str:
        """Writes into both states, from another process."""
        self.stock[title] = 99
        self.db.run("INSERT INTO orders VALUES (1, ?)", title)
        return f"{self.task.answer} {title}"

    @tool(isolated=True)
    def refuses(self) -> str:
        """Refuses."""
        raise ToolError("not today")

    @tool(isolated=True)
    def dies(self) -> str:
        """Takes its process down."""
        import os

        os._exit(7)

    @tool(isolated=True)
    def spins_alone(self) -> str:
        """Never ends, elsewhere."""
        while True:
            pass

    @tool
    async def lost(self) -> str:
        """Loses its connection."""
        raise ConnectionResetError("gone")

    @tool
    async def wait(self) -> str:
        """Waits a little."""
        await asyncio.sleep(0.05)
        return "waited"

    @tool
    def silence(self) -> Any:
        """Gives what is no JSON number."""
        return {"value": float("nan")}

    @reward
    def done(self, turn: Turn) -> bool:
        return turn.answer == "done"


def call(tool_name: str, **arguments: Any) -> Turn:
    return Turn(tool_calls=(ToolCall(tool_name, arguments),))


@pytest.fixture
def depot() -> Any:
    env = make("test/Depot-v0")
    env.reset(seed=0)
    yield env
    env.close()


def test_a_schema_has_nested_models_defaults_and_the_words_of_args() -> None:
    schema = Depot.tools["order"].schema
    assert schema.description == "Order items."
    assert schema.parameters["properties"]["items"]["description"] == "What is wanted, each with its count."
    assert schema.parameters["$defs"]["Item"]["properties"]["count"] == {"default": 1, "type": "integer"}
    assert schema.parameters["required"] == ["items"] and "title" not in json.dumps(
        schema.parameters["properties"]["how"]
    )


@pytest.mark.parametrize(
    "action",
    [
        call("order", items=[{"title": "figs", "count": 2}], note="now"),
        call("order", items='[{"title": "figs", "count": "2"}]', note="now"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "function": {
                        "name": "order",
                        "arguments": '{"items": [{"title": "figs", "count": 2}], "note": "now"}',
                    }
                }
            ],
        },
        Message(
            "assistant", tool_calls=(ToolCall("order", {"items": [{"title": "figs", "count": 2}], "note": "now"}),)
        ),
    ],
)
def test_step_takes_a_turn_a_message_or_what_openai_sends(depot: Env, action: Any) -> None:
    (said,), *_ = depot.step(action)
    assert json.loads(said.text) == {"how": "fast", "note": "now"} and depot.stock["figs"] == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("action", [3, None, ["done"], {"role": "user", "content": "x"}, Turn(answer=5)])  # type: ignore[arg-type]
def test_what_is_no_action_is_a_type_error_that_says_what_would_do(depot: Env, action: Any) -> None:
    with pytest.raises(TypeError, match="step takes a Turn, text, or a message|are text"):
        depot.step(action)


DEEP: Any = []
for _ in range(5_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("x" * 10_000_000, "a turn of over 1000000 characters"),
        ("\ud800 lone", "no Unicode"),
        (call("order", items="\udfff"), "no Unicode"),
        (call("order", items=DEEP), "nested too deeply"),
        (call("order", items="[" * 100_000), "error: bad arguments"),
        (call("x" * 5_000), "error: no tool named"),
        (call("order", **{f"k{i}": 1 for i in range(1_000)}), "error: bad arguments for order"),
        ({"tool_calls": [{"function": {"name": "order", "arguments": "{" * 50_000}}]}, "are no JSON"),
        ({"tool_calls": [{"function": {"name": "order", "arguments": '{"a": NaN}'}}]}, "NaN is no JSON"),
        ({"tool_calls": [{"function": {"name": "order", "arguments": '{"a": 1, "a": 2}'}}]}, "comes twice"),
        ({"tool_calls": [{"function": {"name": "order", "arguments": "[1]"}}]}, "must be an object"),
        ({"tool_calls": [7]}, "a tool call is"),
        ({"tool_calls": [{"name": "order", "arguments": {"items": [{"title": 3}]}}]}, "items.0.title"),
    ],
)
def test_bad_input_is_an_observation_short_and_the_episode_goes_on(depot: Env, action: Any, said: str) -> None:
    (message,), value, terminated, truncated, _ = depot.step(action)
    assert said in message.text and len(message.text) < 1_200 and (value, terminated, truncated) == (0.0, False, False)
    assert depot.step("done")[1] == 1.0


def test_turns_survive_json() -> None:
    for turn in (
        Turn("naïve 数学", reasoning="hm"),
        call("order", items=[1]),
        Turn(malformed="broken"),
        Turn("x", cut=True),
    ):
        assert read_turn(json.loads(json.dumps(turn_to_dict(turn)))) == turn
    space = spaces.Turn([Depot.tools["order"].schema], seed=0)
    sampled = [space.sample() for _ in range(50)]
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(sampled)))) == sampled


def test_the_audio_space_samples_by_seed_and_knows_its_own() -> None:
    space = spaces.Audio(8_000, 1.0, seed=3)
    sound = space.sample()
    assert sound in space and sound == spaces.Audio(8_000, 1.0, seed=3).sample()
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable([sound])))) == [sound]
    assert Audio(np.full(4, 2.0, np.float32).tobytes(), 8_000) not in space
    assert Audio(np.full(4, np.nan, np.float32).tobytes(), 8_000) not in space
    assert Audio(b"\0" * 40_000, 8_000) not in space and Audio(b"\0" * 4) not in space


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (call("spin"), "tool_timeout"),
        (call("spins_alone"), "tool_timeout"),
        (call("dies"), "process_died"),
        (call("lost"), "connection_lost"),
        (call("silence"), "tool_crash"),
    ],
)
def test_each_failure_has_its_kind_and_comes_in_time(depot: Env, turn: Turn, kind: str) -> None:
    depot.step(call("refuses"))  # the worker is started
    start = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        depot.step(turn)
    assert caught.value.kind == kind and str(depot.outcome) == f"fault({kind})"
    assert time.monotonic() - start < 1.0 + 1.0


def test_an_isolated_tool_sees_and_changes_declared_state_and_may_refuse(depot: Env) -> None:
    (said,), *_ = depot.step(call("alone", title="figs"))
    assert said.text == "done figs" and depot.stock["figs"] == 99  # type: ignore[attr-defined]
    assert depot.db.rows("SELECT item FROM orders") == [{"item": "figs"}]  # type: ignore[attr-defined]
    assert depot.step(call("refuses"))[0][0].text == "error: not today"


def test_endless_tools_end_in_time_while_all_others_go_on() -> None:
    ends: dict[int, float] = {}

    async def one(index: int, turn: Turn) -> str:
        env = make("test/Depot-v0")
        await env.areset(seed=index)
        try:
            (said,), *_ = await env.astep(turn)
            return said.text
        except EnvironmentFault as fault:
            return fault.kind
        finally:
            ends[index] = time.monotonic() - start
            env.close()

    async def all_of_them() -> list[str]:
        turns = [call("spin")] * 3 + [call("spins_alone")] + [call("wait")] * 8
        return list(await asyncio.gather(*(one(i, turn) for i, turn in enumerate(turns))))

    start = time.monotonic()
    assert asyncio.run(all_of_them()) == ["tool_timeout"] * 4 + ["waited"] * 8
    assert max(ends[i] for i in range(3)) < 1.0 + 1.0
    assert max(ends[i] for i in range(4, 12)) < min(ends[i] for i in range(3))


def test_a_late_event_loop_is_not_held_against_what_was_awaited() -> None:
    async def block() -> None:
        await asyncio.sleep(0.02)
        time.sleep(0.5)  # someone else blocks the loop

    async def waits() -> str:
        async with Deadline(0.2):
            await asyncio.sleep(0.1)
        return "in time"

    async def both() -> str:
        return (await asyncio.gather(waits(), block()))[0]

    assert asyncio.run(both()) == "in time"

    async def too_long() -> None:
        async with Deadline(0.05):
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        asyncio.run(too_long())


def test_guarded_code_is_ended_in_its_own_thread_and_nothing_is_raised_afterwards() -> None:
    def spin() -> None:
        while True:
            pass

    for _ in range(3):
        with pytest.raises(TimeoutError):
            guarded(0.1, spin)
    assert sum(guarded(5.0, lambda: 1) for _ in range(20_000)) == 20_000  # no late alarm hits later code

    def outer() -> int:
        with pytest.raises(TimeoutError):
            guarded(0.1, spin)
        return 7

    assert guarded(5.0, outer) == 7


def test_an_alarm_that_is_taken_back_leaves_line_tracers_working() -> None:
    """CPython 3.11: with an exception of no thread outstanding, a traced call never begins."""
    program = (
        "import sys, time\nfrom swannery.environments import deadline\n"
        "alarm = deadline._Alarm(time.monotonic())\ndeadline._watchdog.fired.add(alarm)\ndeadline._watchdog.disarm(alarm)\n"
        "sys.settrace(lambda *_: None)\n(lambda: None)()\nsys.settrace(None)\nprint('traced')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "traced\n"

    async def thread_name() -> str:
        return await in_thread(5.0, lambda: threading.current_thread().name)

    assert asyncio.run(thread_name()) == "swannery-tool"


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("inf"), 1.5, -0.1, [], 1e30, {"a": "b"}])
def test_a_reward_that_is_no_number_in_range_is_a_fault(value: Any) -> None:
    class Bad(Env):
        def task(self, rng: np.random.Generator) -> Task:
            return Task("x")

        @reward
        def bad(self) -> Any:
            return value

    env = Bad()
    env.reset(seed=0)
    with pytest.raises(EnvironmentFault) as caught:
        env.step("x")
    assert caught.value.kind == "bad_reward"


def test_gates_multiply_parts_have_names_and_turns_add_up_to_the_episode() -> None:
    class Parts(Env):
        limits = Env.limits.replace(max_turns=3)

        def task(self, rng: np.random.Generator) -> Task:
            return Task("x")

        def respond(self, turn: Turn) -> str | None:
            return None if turn.answer == "end" else "go on"

        @reward
        def quality(self) -> dict[str, float]:
            return {"style": 0.5, "facts": 1.0}

        @reward(when="turn", weight=0.1)
        def brief(self, turn: Turn) -> float:
            return 1.0 if len(turn.answer) < 4 else -1.0

        @reward(gate=True)
        def polite(self) -> float:
            return 0.5

    env = Parts()
    env.reset(seed=0)
    total = env.step("long words")[1]
    *_, info = (step := env.step("end"))
    total += step[1]
    assert info["rewards"] == {"quality/style": 0.25, "quality/facts": 0.5, "brief": 0.1}
    assert info["episode"] == {"brief": 0.0, "quality/style": 0.25, "quality/facts": 0.5} and total == pytest.approx(
        0.75
    )


def test_make_vec_is_right_in_every_mode_or_refuses() -> None:
    for mode, options in ((None, {}), ("sync", {}), ("async", {"shared_memory": False})):
        envs = gymnasium.make_vec("math/Arithmetic-v0", 2, vectorization_mode=mode, vector_kwargs=options or None)  # type: ignore[arg-type]
        observations, _ = envs.reset(seed=5)
        assert observations[1] == make("math/Arithmetic-v0").reset(seed=6)[0]
        envs.close()
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec("math/Arithmetic-v0", 2, vectorization_mode="async")
    envs = make_vec("test/Depot-v0", 3)
    envs.reset(seed=[1, 2, 3])
    _, rewards, terminated, truncated, infos = envs.step(["done", call("lost"), call("wait")])
    assert rewards[0] == 1.0 and np.isnan(rewards[1]) and infos["fault"][1] == "connection_lost"
    assert terminated.tolist() == [True, False, False] and truncated.tolist() == [False, True, False]
    assert infos["rewards"][0] == {"done": 1.0}
    envs.close()


def test_resetting_what_cannot_be_reset_is_a_fault_and_step_before_reset_an_error() -> None:
    class Broken(Env):
        def task(self, rng: np.random.Generator) -> Task:
            raise KeyError("no such row")

        @reward
        def none(self) -> float:
            return 0.0

    env = Broken()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("x")
    with pytest.raises(EnvironmentFault, match="environment_crash"):
        env.reset(seed=0)


def test_a_step_that_was_cancelled_asks_for_a_reset() -> None:
    async def run() -> None:
        env = make("test/Depot-v0")
        await env.areset(seed=0)
        pending = asyncio.create_task(env.astep(call("wait")))
        await asyncio.sleep(0.01)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        with pytest.raises(gymnasium.error.ResetNeeded):
            await env.astep("done")
        await env.areset(seed=0)
        assert (await env.astep("done"))[1] == 1.0
        env.close()

    asyncio.run(run())


def test_what_environments_need_for_themselves_cannot_be_taken() -> None:
    with pytest.raises(DeclarationError, match="defines 'calls'"):
        type(Env)("Mine", (Env,), {"calls": lambda self: 1})
    with pytest.raises(EnvironmentFault.__mro__[1]):
        EnvironmentFault("no_such_kind")
