"""Env: a true `gymnasium.Env` whose observations are messages and whose actions are turns.

    reset(seed) -> messages;  step(turn) -> messages, reward, terminated, truncated, info

An author writes `sample_task` and rewards, and, where the conversation goes on, tools or `respond`. The class does the
rest: typing of tool arguments, limits, the three outcomes, faults. `astep` is the same step for trainers, which run
hundreds of episodes on one event loop; where nothing awaits, `step` needs no loop at all.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, TypeVar

import gymnasium
import numpy as np

from ..messages import TERMINATED, EnvironmentFault, Limits, Message, Outcome, Task, ToolCall, Turn
from .guess import nearest
from .reward import Reward, checked, rewards_of
from .spaces import ChatSpace, Observation, TurnSpace
from .tool import Tool, ToolError, tools_of

T = TypeVar("T")
Reply = str | Message | tuple[Message, ...] | None
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class Env(gymnasium.Env[Observation, Turn]):
    """Base class of every environment. See CONTRIBUTING.md, "An environment in one file"."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    system: str = ""
    limits: Limits = Limits()
    prompt_identifies_task: bool = True
    """False where tasks share a prompt and differ in what is hidden: held-out splits then differ by seed alone."""
    tools: ClassVar[Mapping[str, Tool]] = {}
    rewards: ClassVar[tuple[Reward, ...]] = ()
    awaits: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tools = tools_of(cls)
        cls.rewards = rewards_of(cls)
        cls.awaits = (
            any(tool.is_async for tool in cls.tools.values())
            or any(reward.is_async for reward in cls.rewards)
            or inspect.iscoroutinefunction(cls.respond)
        )

    def __init__(self, *, render_mode: str | None = None, limits: Mapping[str, Any] | None = None) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode is None or 'ansi', got {render_mode!r}")
        self.render_mode = render_mode
        if limits:
            self.limits = self.limits.replace(**limits)
        self.observation_space = ChatSpace()
        self.action_space = TurnSpace([tool.schema for tool in self.tools.values()])
        self.task = Task("")
        self.transcript: list[Message] = []
        self.outcome: Outcome | None = None
        self.num_turns = 0
        self.num_tool_calls = 0
        self._started = False
        self._runner: asyncio.Runner | None = None

    # What an author writes.

    def sample_task(self, rng: np.random.Generator) -> Task:
        """Draw a task. All randomness comes from `rng`."""
        raise NotImplementedError(f"{type(self).__name__} must define sample_task(self, rng) -> Task")

    def respond(self, turn: Turn) -> Reply | Coroutine[Any, Any, Reply]:
        """What the user says to a turn without tool calls, perhaps awaited. None ends the episode."""
        return None

    def start(self) -> None:
        """Called when an episode begins, after `self.task` is set: put the episode's state here."""

    def oracle(self) -> Turn:
        """The best next turn in the present state: its episodes score the maximum."""
        raise NotImplementedError(f"{type(self).__name__} has no oracle")

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """The next turn of an imperfect demonstrator, which a policy is warm-started from."""
        raise NotImplementedError(f"{type(self).__name__} has no demonstrator")

    # Gymnasium's interface.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode. `options={"task": task}` sets the task instead of drawing one."""
        super().reset(seed=seed)
        task = (options or {}).get("task")
        self.task = task if isinstance(task, Task) else self.sample_task(self.np_random)
        self.outcome, self.num_turns, self.num_tool_calls, self._started = None, 0, 0, True
        system = (Message("system", self.system),) if self.system else ()
        self.transcript = [*system, *self.task.messages]
        self.start()
        return tuple(self.transcript), {"difficulty": self.task.difficulty}

    def step(self, action: Turn | str) -> Step:
        """`astep`, for callers without an event loop."""
        return self._wait(self.astep(action))

    async def astep(self, action: Turn | str) -> Step:
        """Take a turn. Raises EnvironmentFault where the environment itself failed."""
        turn = action if isinstance(action, Turn) else Turn(str(action))
        if not self._started or self.outcome is not None:
            raise gymnasium.error.ResetNeeded(f"{type(self).__name__}: call reset() before step()")
        self.num_turns += 1
        self.transcript.append(turn.message)
        try:
            said, outcome = await self._answer(turn)
            parts = await self._score(turn, outcome)
        except EnvironmentFault as fault:
            self.outcome = Outcome("fault", fault.kind)
            raise
        self.outcome = outcome
        self.transcript.extend(said)
        info: dict[str, Any] = {"rewards": parts}
        if outcome is not None:
            info["outcome"] = outcome
        ended = outcome.kind if outcome else ""
        return said, float(sum(parts.values())), ended == "terminated", ended == "truncated", info

    def render(self) -> str | None:  # type: ignore[override]
        """The transcript as text."""
        if self.render_mode is None:
            return None
        return "\n".join(f"[{message.role}] {message.text}" for message in self.transcript)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    # The machinery.

    async def _answer(self, turn: Turn) -> tuple[Observation, Outcome | None]:
        """What is said to a turn, and the outcome if the episode ends with it."""
        if turn.cut:
            return (), Outcome("truncated", "max_tokens")
        if turn.malformed is not None:
            said: Observation = (Message("tool", f"error: {turn.malformed}"),)
        elif turn.tool_calls:
            self.num_tool_calls += len(turn.tool_calls)
            if self.limits.max_tool_calls is not None and self.num_tool_calls > self.limits.max_tool_calls:
                return (), Outcome("truncated", "max_tool_calls")
            said = tuple([Message("tool", await self._call(call)) for call in turn.tool_calls])
        else:
            reply = await self._reply(turn)
            if reply is None:
                return (), TERMINATED
            reply = Message("user", reply) if isinstance(reply, str) else reply
            said = (reply,) if isinstance(reply, Message) else reply
        return said, Outcome("truncated", "max_turns") if self.num_turns >= self.limits.max_turns else None

    async def _reply(self, turn: Turn) -> Reply:
        try:
            reply = self.respond(turn)
            return await reply if inspect.isawaitable(reply) else reply
        except EnvironmentFault:
            raise
        except Exception as error:
            raise EnvironmentFault("environment_crash", f"respond raised {error!r}") from error

    async def _call(self, call: ToolCall) -> str:
        """A tool's result as text. Refusals and bad arguments are observations; crashes and timeouts are faults."""
        if call.name not in self.tools:
            return f"error: no tool named {call.name!r}. {nearest(call.name, self.tools)}"
        tool = self.tools[call.name]
        try:
            result = getattr(self, call.name)(**tool.typed(call.arguments))
            if tool.is_async:
                result = await asyncio.wait_for(result, self.limits.tool_timeout_s)
        except ToolError as error:
            return f"error: {error}"
        except TimeoutError:
            raise EnvironmentFault("tool_timeout", f"{call.name} took over {self.limits.tool_timeout_s} s") from None
        except EnvironmentFault:
            raise
        except Exception as error:
            raise EnvironmentFault("tool_crash", f"{call.name} raised {error!r}") from error
        return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)

    async def _score(self, turn: Turn, outcome: Outcome | None) -> dict[str, float]:
        """The weighted rewards of this turn by name. A completion that was cut earns nothing."""
        parts: dict[str, float] = {}
        for reward in self.rewards:
            if reward.when == "turn" or outcome is not None:
                value = 0.0 if turn.cut else checked(reward.name, await self._grade(reward, turn))
                parts[reward.name] = reward.weight * value
        return parts

    async def _grade(self, reward: Reward, turn: Turn) -> Any:
        try:
            value = getattr(self, reward.name)(turn)
            return await asyncio.wait_for(value, self.limits.grading_timeout_s) if reward.is_async else value
        except EnvironmentFault:
            raise
        except TimeoutError:
            raise EnvironmentFault(
                "grader_timeout", f"{reward.name} took over {self.limits.grading_timeout_s} s"
            ) from None
        except Exception as error:
            raise EnvironmentFault("grader_crash", f"{reward.name} raised {error!r}") from error

    def _wait(self, pending: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end: by hand where nothing awaits, else on a loop of this environment's own."""
        if not self.awaits:
            try:
                pending.send(None)
            except StopIteration as stop:
                return stop.value
            raise AssertionError("an environment without async methods awaited something")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner = self._runner or asyncio.Runner()
            return self._runner.run(pending)
        pending.close()
        raise RuntimeError(f"{type(self).__name__}.step was called inside an event loop: use `await env.astep(turn)`")
