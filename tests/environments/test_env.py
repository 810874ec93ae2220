"""The contract: tools, rewards, limits, outcomes, spaces, the registry, and our own environments' demonstrators."""

import asyncio
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest

from swannery.environments import (
    AsyncioVectorEnv,
    Env,
    EnvironmentFault,
    Message,
    Task,
    ToolCall,
    ToolError,
    Turn,
    make,
    register,
    registered,
    reward,
    spaces,
    tool,
)  # fmt: skip
from swannery.environments.math.columns import add, hasty, multiply, subtract
from swannery.messages import Audio, Limits

OURS = ("math/Arithmetic-v0", "tools/Calculator-v0", "chat/Guess-v0")


@register("test/Shop-v0", max_turns=4, max_tool_calls=5, tool_timeout_s=0.05)
class Shop(Env):
    def sample_task(self, rng: np.random.Generator) -> Task:
        return Task("Refund order 7.", "done")

    @tool
    def refund(self, order: int, amount: float = 1.0, reason: Literal["late", "broken"] = "late") -> dict[str, Any]:
        """Refund an order."""
        if order != 7:
            raise ToolError(f"no order {order}")
        return {"order": order, "amount": amount, "reason": reason}

    @tool
    async def wait(self, seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return "waited"

    @tool
    def crash(self) -> str:
        """Crash."""
        raise MemoryError("boom")

    @reward
    def done(self, turn: Turn) -> bool:
        return turn.answer == "done"

    @reward(weight=0.1, when="turn")
    def brief(self, turn: Turn) -> float:
        return 1.0 if len(turn.answer) < 10 else 0.0


def call(name: str, **arguments: Any) -> Turn:
    return Turn(tool_calls=(ToolCall(name, arguments),))


@pytest.fixture
def shop() -> Any:
    env = make("test/Shop-v0")
    env.reset(seed=0)
    yield env
    env.close()


def test_a_tool_s_schema_comes_from_its_signature() -> None:
    schema = Shop.tools["refund"].schema
    assert schema.description == "Refund an order." and schema.parameters["required"] == ["order"]
    assert schema.parameters["properties"]["order"] == {"type": "integer"}
    assert schema.parameters["properties"]["reason"]["enum"] == ["late", "broken"]


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (call("refund", order="7"), '{"order": 7, "amount": 1.0, "reason": "late"}'),
        (call("refund", order="7", amount="2.5", reason="broken"), '{"order": 7, "amount": 2.5, "reason": "broken"}'),
        (call("refund", order="8"), "error: no order 8"),
        (call("refund", order="many"), "error: bad arguments for refund: order"),
        (call("refund"), "error: bad arguments for refund: order: Field required"),
        (call("refund", order="7", amuont="1"), "Did you mean 'amount'?"),
        (call("refnud", order="7"), "no tool named 'refnud'. Did you mean 'refund'?"),
        (call("wait", seconds="0"), "waited"),
        (Turn(malformed="<tool_call> was never closed"), "error: <tool_call> was never closed"),
    ],
)
def test_what_a_tool_call_is_answered(shop: Env, turn: Turn, said: str) -> None:
    (message,), value, terminated, truncated, _ = shop.step(turn)
    assert message.role == "tool" and said in message.text
    assert not terminated and not truncated and value == pytest.approx(0.1)


@pytest.mark.parametrize(("turn", "kind"), [(call("crash"), "tool_crash"), (call("wait", seconds="9"), "tool_timeout")])
def test_a_tool_s_failure_is_a_fault_and_no_reward(shop: Env, turn: Turn, kind: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        shop.step(turn)
    assert caught.value.kind == kind and shop.outcome is not None and str(shop.outcome) == f"fault({kind})"
    with pytest.raises(gymnasium.error.ResetNeeded):
        shop.step("done")


def test_rewards_are_named_weighted_and_sum_to_the_step_s(shop: Env) -> None:
    shop.step(call("refund", order="7"))
    said, value, terminated, _, info = shop.step("done")
    assert said == () and terminated and info["rewards"] == {"done": 1.0, "brief": 0.1}
    assert value == pytest.approx(1.1)


def test_limits_truncate(shop: Env) -> None:
    for _ in range(3):
        *_, truncated, _ = shop.step(call("refund", order="7"))
        assert not truncated
    *_, truncated, info = shop.step(call("refund", order="7"))
    assert truncated and info["outcome"].reason == "max_turns"
    shop.reset(seed=0)
    *_, truncated, info = shop.step(Turn(tool_calls=call("refund", order="7").tool_calls * 6))
    assert truncated and info["outcome"].reason == "max_tool_calls"


def test_a_completion_that_was_cut_earns_nothing(shop: Env) -> None:
    _, value, _, truncated, info = shop.step(Turn("done", cut=True))
    assert truncated and value == 0 and info["outcome"].reason == "max_tokens"


def test_inside_a_loop_an_async_environment_asks_for_astep(shop: Env) -> None:
    async def inside() -> None:
        with pytest.raises(RuntimeError, match="await env.astep"):
            shop.step("done")
        _, value, *_ = await shop.astep("done")
        assert value == pytest.approx(1.1)

    asyncio.run(inside())


def test_a_vector_of_async_environments_waits_for_all_at_once() -> None:
    envs = AsyncioVectorEnv([lambda: make("test/Shop-v0")] * 8)
    envs.reset(seed=0)
    _, rewards, *_ = envs.step([call("wait", seconds="0.02")] * 8)
    np.testing.assert_allclose(rewards, 0.1)
    envs.close()


def test_misdeclared_environments_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="needs a docstring"):

        @tool
        def silent(self: Any) -> str:
            return ""

    with pytest.raises(TypeError, match="annotate the argument 'x'"):

        @tool
        def untyped(self: Any, x) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
            """Doc."""
            return ""

    with pytest.raises(TypeError, match="no @reward"):

        @register("test/Bare-v0")
        class Bare(Env):
            pass

    with pytest.raises(TypeError, match="'turn' or 'episode'"):
        reward(when="sometimes")(lambda self: 1.0)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="max_turns"):
        Limits(max_turns=0)


def test_a_misspelt_id_gets_the_nearest_guess() -> None:
    with pytest.raises(ValueError, match="Did you mean 'math/Arithmetic-v0'"):
        make("math/Arithmatic-v0")
    assert set(OURS) < set(registered())


def test_spaces_hold_any_text_and_sample_by_seed() -> None:
    chat, turns = spaces.Chat(seed=1), spaces.Turn([Shop.tools["refund"].schema], seed=1)
    assert chat.sample() in chat and turns.sample() in turns and (Message("user", "数学 🦢"),) in chat
    assert spaces.Chat(seed=4).sample() == spaces.Chat(seed=4).sample()
    assert "text" not in chat and 3 not in turns and chat == spaces.Chat() and turns != spaces.Turn()


def test_audio_is_a_part_like_any_other() -> None:
    audio = Audio(np.zeros(16_000, np.float32).tobytes())
    message = Message("user", (audio,))
    assert audio.duration_s == 1.0 and (message,) in spaces.Chat() and message.text == ""
    assert len(audio.content_hash) == 16 and audio.content_hash != Audio(b"\0" * 8).content_hash
    with pytest.raises(ValueError, match="float32"):
        Audio(b"abc")


def play(env: Env, seed: int, rng: np.random.Generator | None) -> float:
    env.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        _, value, terminated, truncated, _ = env.step(env.oracle() if rng is None else env.demonstrate(rng))
        total, done = total + value, terminated or truncated
    return total


@pytest.mark.parametrize("env_id", OURS)
def test_the_oracle_scores_the_maximum_and_the_demonstrator_less(env_id: str) -> None:
    env, rng = make(env_id), np.random.default_rng(0)
    assert all(play(env, seed, None) == 1.0 for seed in range(200))
    shown = np.mean([play(env, seed, rng) for seed in range(200)])
    assert 0.2 < shown < 0.8


@pytest.mark.parametrize("env_id", OURS)
@pytest.mark.parametrize("answer", ["", "0", "I do not know", "1 2 3 4 5 6 7 8 9 10", "<|im_end|>"])
def test_answers_that_know_nothing_earn_nothing(env_id: str, answer: str) -> None:
    env = make(env_id)
    won = 0.0
    for seed in range(60):
        env.reset(seed=seed)
        _, value, *_ = env.step(answer)
        won += value
    assert won <= 6  # 7 * 0 is 0


@pytest.mark.parametrize("seed", range(3))
def test_column_arithmetic_is_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for a, b in rng.integers(0, 10_000, size=(200, 2)).tolist():
        assert add(a, b)[1] == a + b and subtract(a, b)[1] == a - b and multiply(a, b % 10)[1] == a * (b % 10)
    assert add(47, 85) == ("7+5=12 carry 1\n4+8+1=13", 132) and hasty(add(47, 85)[0]) == "13"
    assert subtract(52, 17) == ("12-7=5 borrow 1\n5-1-1=3", 35) and subtract(17, 52)[1] == -35


def test_guess_counts_hints_and_wants_a_number() -> None:
    env = make("chat/Guess-v0", largest=7)
    env.reset(options={"task": Task("Guess.", "5")})
    said, *_ = env.step("maybe five")
    assert said[0].text == "Say one number."
    assert env.step("3")[0][0].text == "Higher." and env.step("7")[0][0].text == "Lower."
    assert env.step("5")[1:3] == (1.0, True)
    with pytest.raises(ValueError, match="largest is from 2 to 15"):
        make("chat/Guess-v0", largest=16)
