"""Env: a true `gymnasium.Env` whose observations are messages and whose actions are turns.

    reset(seed) -> messages;  step(turn) -> messages, reward, terminated, truncated, info

An author writes `task(rng)` (or `tasks = jsonl(...)`) and rewards, and, where the conversation goes on, tools, a user or
`respond`. The class does the rest: typing of tool arguments, deadlines, limits, the three outcomes, faults, snapshots.
`astep` is the same step for trainers, which run thousands of episodes on one event loop; where nothing awaits, `step` needs
no loop at all. Observations are deltas: what is new since the policy spoke.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import gymnasium
import numpy as np

from ..messages import (
    TERMINATED,
    EnvironmentFault,
    Limits,
    Message,
    Outcome,
    Responder,
    Task,
    ToolCall,
    ToolSchema,
    Turn,
)
from . import snapshot, spaces
from .calling import CallRecord, call_tool
from .cheat import cheats_of
from .deadline import Deadline, guarded
from .declaration import EnvMeta
from .demonstrator import gold_turn, slipping_turn
from .grading import grade
from .replying import reply_to
from .reward import Reward, rewards_of
from .snapshot import Snapshot
from .state import State
from .tool import Tool, tools_of
from .user import User
from .wire import read_action

T = TypeVar("T")
Observation = tuple[Message, ...]
Reply = str | Message | tuple[Message, ...] | None
Step = tuple[Observation, float, bool, bool, dict[str, Any]]


class Env(gymnasium.Env[Observation, Turn], metaclass=EnvMeta):
    """Base class of every environment. docs/environments.md grows one from six lines."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    system: str = ""
    limits: Limits = Limits()
    levels: ClassVar[Sequence[int]] = ()
    """What the constructor's `level` may be; empty: it has none."""
    floor: float = 0.05
    """The mean reward that policies who know nothing, or cheat, may reach at most."""
    quick_tools: ClassVar[bool] = False
    """Plain tools return at once, so they run on the event loop. Otherwise each call has a thread."""
    prompt_identifies_task: bool = True
    """False where tasks share a prompt and differ in what is hidden: held-out splits then differ by seed alone."""
    answer_in_prompt: bool = False
    """True where the answer is to be found in what is shown: the checker then looks for no leak there."""
    no_oracle: str = ""
    """Why there is no oracle, where there cannot be one."""
    tasks: Sequence[Task] = ()
    user: User | None = None
    tools: ClassVar[Mapping[str, Tool]] = {}
    rewards: ClassVar[tuple[Reward, ...]] = ()
    cheats: ClassVar[tuple[str, ...]] = ()
    declared: ClassVar[Mapping[str, State[Any]]] = {}
    awaits: ClassVar[bool] = False
    responds: ClassVar[bool] = False
    """Whether the class has a `respond` of its own."""
    slips: bool = False
    """Whether the built-in demonstrator errs in this episode."""
    if TYPE_CHECKING:
        task: Any

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "task" in vars(cls):  # `def task` draws; `self.task` is the task drawn
            cls.sample_task = vars(cls)["task"]
            del cls.task
        cls.tools, cls.rewards, cls.cheats = tools_of(cls), rewards_of(cls), cheats_of(cls)
        cls.declared = {n: m for base in reversed(cls.__mro__) for n, m in vars(base).items() if isinstance(m, State)}
        cls.responds = cls.respond is not Env.respond
        cls.awaits = (
            any(tool.is_async for tool in cls.tools.values())
            or any(reward.is_async for reward in cls.rewards)
            or inspect.iscoroutinefunction(cls.respond)
            or inspect.iscoroutinefunction(cls.start)
            or bool(cls.user and cls.user.awaits)
        )

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        limits: Mapping[str, Any] | None = None,
        responder: Responder | None = None,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode is None or 'ansi', got {render_mode!r}")
        self.render_mode = render_mode
        self.responder = responder
        if limits:
            self.limits = self.limits.replace(**limits)
        self.tool_schemas: list[ToolSchema] = [t.schema for t in self.tools.values() if t.by == "policy"]
        """What the policy is told about tools."""
        self.observation_space = spaces.Chat()
        self.action_space = spaces.Turn(self.tool_schemas)
        self.task = Task("")
        self.transcript: list[Message] = []
        self.calls: list[CallRecord] = []
        self.parts: list[dict[str, float]] = []
        self.outcome: Outcome | None = None
        self.num_turns = 0
        self.num_tool_calls = 0
        self.last_turn = ""
        """Set by a wrapper: why the turn that comes is the last one."""
        self.in_loop = False
        self.states: dict[str, Any] = {}
        self._started = False
        self._made: dict[str, Any] = {}
        self._first: Snapshot | None = None
        self._runner: asyncio.Runner | None = None

    # What an author writes.

    def sample_task(self, rng: np.random.Generator) -> Task:
        """Draw a task; authors write it as `task(self, rng)`. All randomness comes from `rng`."""
        if not self.tasks:
            raise NotImplementedError(f"{type(self).__name__} draws no tasks: write def task(self, rng) -> Task")
        return self.tasks[int(rng.integers(len(self.tasks)))]

    def start(self) -> Coroutine[Any, Any, None] | None:
        """Called when an episode begins, after `self.task` is set: put the episode's state here."""

    def respond(self, turn: Turn) -> Reply | Coroutine[Any, Any, Reply]:
        """What is said to a turn without tool calls, perhaps awaited. None ends the episode."""
        return None

    async def compare(self, answers: Sequence[Turn]) -> Sequence[float]:
        """What each of a prompt's rollouts, by its last turn, earns beside the others, added to its own rewards in training: for judges
        that compare. `self.task` is theirs. Authors override it; without, rollouts are scored alone."""
        raise NotImplementedError

    def oracle(self) -> Turn:
        """The best next turn in the present state: its episodes score the maximum.

        Without one of its own, an environment's gold calls, one a turn, and then the reference answer.
        """
        return gold_turn(self)

    def demonstrate(self, rng: np.random.Generator) -> Turn:
        """The next turn of an imperfect demonstrator, which a policy is warm-started from.

        Without one of its own: the oracle, who in half of the episodes forgets the last gold call or, where there is
        none, gives another task's answer.
        """
        return slipping_turn(self, rng)

    # Gymnasium's interface.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode. `options={"task": task}` sets the task instead of drawing one."""
        self.in_loop = False
        pending = self._set_up(seed, options)
        if pending is not None:
            self._wait(self._started_up(pending))
        return self._begun()

    async def areset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """`reset`, for callers on an event loop."""
        self.in_loop = True
        pending = self._set_up(seed, options)
        if pending is not None:
            await self._started_up(pending)
        return self._begun()

    def step(self, action: Turn | str | Mapping[str, Any]) -> Step:
        """`astep`, for callers without an event loop."""
        return self._wait(self._advance(action, False))

    def astep(self, action: Turn | str | Mapping[str, Any]) -> Coroutine[Any, Any, Step]:
        """Take a turn: a Turn, text, or an OpenAI-style message. Raises EnvironmentFault where the environment failed."""
        return self._advance(action, True)

    def render(self) -> str | None:  # type: ignore[override]
        """The transcript as text."""
        if self.render_mode is None:
            return None
        return "\n".join(f"[{message.role}] {message.text}" for message in self.transcript)

    def close(self) -> None:
        for state in self.states.values():
            if hasattr(state, "close"):
                state.close()
        self.states, self._started = {}, False
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    # Time travel.

    def snapshot(self) -> Snapshot:
        """The episode as it is: state, user, transcript and random stream."""
        self._must_have_begun("snapshot")
        return snapshot.take(self)

    def restore(self, taken: Snapshot) -> None:
        """Back to a snapshot, which stays usable."""
        self._must_have_begun("restore")
        snapshot.put_back(self, taken)

    def branch(self) -> Env:
        """A second environment in the midst of the same episode."""
        self._must_have_begun("branch")
        return snapshot.branch(self)

    def hash(self) -> str:
        """Of all declared states: equal contents, equal hash, in every process."""
        return "-".join(f"{name}:{state.hash()[:16]}" for name, state in sorted(self.states.items()))

    def after(self, calls: Iterable[ToolCall]) -> Env:
        """This episode's beginning with these calls carried out, by whoever holds the tool: what a gold solution leaves."""
        if self._first is None:
            raise TypeError(f"{type(self).__name__} declares no State, so there is nothing to compare")
        twin = self.branch()
        twin.restore(self._first)
        twin.in_loop = False
        for call in calls:
            by = twin.tools[call.name].by if call.name in twin.tools else "policy"
            record = _driven(call_tool(twin, call, by=by), f"after() needs plain tools, and {call.name!r} awaits")
            if not record.ok:
                raise ValueError(f"the gold call {call.name}({dict(call.arguments)}) was answered: {record.result}")
            twin.calls.append(record)
        return twin

    # The machinery.

    def _set_up(self, seed: int | None, options: dict[str, Any] | None) -> Coroutine[Any, Any, None] | None:
        super().reset(seed=seed)
        if not self._made:
            self._made = dict(self.__dict__)
        self._started, self.outcome = False, None
        try:
            return guarded(self.limits.start_timeout_s, self._draw, (options or {}).get("task"))
        except (EnvironmentFault, NotImplementedError):
            raise
        except TimeoutError:
            raise self._late("drawing a task and start()", self.limits.start_timeout_s) from None
        except Exception as error:
            raise EnvironmentFault("environment_crash", f"reset: {error!r}") from error

    def _draw(self, task: Task | None) -> Coroutine[Any, Any, None] | None:
        self.task = task if isinstance(task, Task) else self.sample_task(self.np_random)
        if not isinstance(self.task, Task):
            raise TypeError(f"task(rng) must return a Task, got {type(self.task).__name__}")
        self.num_turns = self.num_tool_calls = 0
        self.last_turn = ""
        self.calls, self.parts = [], []
        system = (Message("system", self.system),) if self.system else ()
        self.transcript = [*system, *self.task.messages]
        if self.declared:
            for name, state in self.declared.items():
                if name in self.states:
                    self.states[name].restore(state.first)
                else:
                    self.states[name] = state.blank.branch()
        if (user := type(self).user) is not None:
            self.user = user.fresh()
        return self.start()

    async def _started_up(self, pending: Coroutine[Any, Any, None]) -> None:
        try:
            async with Deadline(self.limits.start_timeout_s):
                await pending
        except EnvironmentFault:
            raise
        except TimeoutError:
            raise self._late("start()", self.limits.start_timeout_s) from None
        except Exception as error:
            raise EnvironmentFault("environment_crash", f"start raised {error!r}") from error

    def _begun(self) -> tuple[Observation, dict[str, Any]]:
        self._started = True
        if self.declared:
            self._first = snapshot.take(self)
        return tuple(self.transcript), {"difficulty": self.task.difficulty}

    async def _advance(self, action: Any, in_loop: bool) -> Step:
        if not self._started or self.outcome is not None:
            raise gymnasium.error.ResetNeeded(f"{type(self).__name__}: call reset() before step()")
        turn = read_action(action, self.limits.max_turn_chars)
        self.in_loop = in_loop
        self.num_turns += 1
        self.transcript.append(turn.message)
        try:
            said, outcome = await self._answer(turn)
            parts = await grade(self, turn, outcome)
        except EnvironmentFault as fault:
            self.outcome = Outcome("fault", fault.kind)
            raise
        except BaseException:  # cancelled in the midst of a turn: half a step is no state to go on from
            self._started = False
            raise
        self.outcome = outcome
        self.transcript.extend(said)
        self.parts.append(parts)
        info: dict[str, Any] = {"rewards": parts}
        if outcome is None:
            return said, float(sum(parts.values())), False, False, info
        info["outcome"] = outcome
        info["episode"] = self.total_rewards()
        return said, float(sum(parts.values())), outcome.kind == "terminated", outcome.kind == "truncated", info

    def total_rewards(self) -> dict[str, float]:
        """The episode's rewards so far, by name: the sums of its turns' parts."""
        total: dict[str, float] = {}
        for parts in self.parts:
            for name, value in parts.items():
                total[name] = total.get(name, 0.0) + value
        return total

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
            said = ()
            for call in turn.tool_calls:
                record = await call_tool(self, call, threads=self.in_loop)
                self.calls.append(record)
                said += (Message("tool", record.result),)
        elif self.user is None and not self.responds:
            return (), TERMINATED
        else:
            reply = await reply_to(self, turn)
            if reply is None:
                return (), TERMINATED
            said = reply
        if self.num_turns >= self.limits.max_turns:
            return said, Outcome("truncated", "max_turns")
        return said, Outcome("truncated", self.last_turn) if self.last_turn else None

    def _late(self, what: str, limit_s: float) -> EnvironmentFault:
        return EnvironmentFault("environment_timeout", f"{what} took over {limit_s} s")

    def _must_have_begun(self, verb: str) -> None:
        if not self._started:
            raise gymnasium.error.ResetNeeded(f"{type(self).__name__}: call reset() before {verb}()")

    def _wait(self, pending: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end: by hand where nothing awaits, else on a loop of this environment's own."""
        if not self.awaits:
            return _driven(pending, f"{type(self).__name__} declares nothing that awaits, and awaited something")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner = self._runner or asyncio.Runner()
            return self._runner.run(pending)
        pending.close()
        raise RuntimeError(f"{type(self).__name__}.step was called inside an event loop: use `await env.astep(turn)`")


def _driven(pending: Coroutine[Any, Any, T], problem: str) -> T:
    """The value of a coroutine that never truly waits."""
    try:
        pending.send(None)
    except StopIteration as stop:
        return stop.value
    pending.close()
    raise TypeError(problem)
