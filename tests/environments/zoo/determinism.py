"""Planted bugs: episodes that are no function of their seed and turns, or that disturb each other."""

import asyncio
import os
import random
import time

import numpy as np

from swannery.environments import Env, Task, ToolCall, ToolError, Turn, register, reward, tool


class Sum(Env):
    """What each of the zoo would be without its bug."""

    def task(self, rng):
        a, b = rng.integers(1000, size=2).tolist()
        return Task(f"What is {a} + {b}?", str(a + b), metadata={"a": a, "b": b})

    @reward
    def correct(self, turn):
        return turn.answer == self.task.answer


@register("zoo/global_random-v0")
class GlobalRandom(Sum):
    finds = "determinism.seed"

    def task(self, rng):
        a = random.randrange(10**6)
        return Task(f"Repeat {a} backwards.", str(a)[::-1])


@register("zoo/numpy_random-v0")
class NumpyRandom(Sum):
    finds = "determinism.seed"

    def task(self, rng):
        a = int(np.random.randint(10**6))
        return Task(f"Repeat {a} backwards.", str(a)[::-1])


@register("zoo/clock-v0")
class Clock(Sum):
    finds = "determinism.seed"

    def task(self, rng):
        now = time.time_ns()
        return Task(f"Repeat {now} backwards.", str(now)[::-1])


@register("zoo/hash_seed-v0")
class HashSeed(Sum):
    finds = "determinism.process"

    def task(self, rng):
        words = sorted({"swan", "goose", "duck", "teal", "eider", "gull"}, key=hash)
        word = words[int(rng.integers(6))]
        return Task(f"Spell {word} backwards.", word[::-1])


@register("zoo/process_id-v0")
class ProcessId(Sum):
    finds = "determinism.process"

    def task(self, rng):
        a = os.getpid() + int(rng.integers(1000))
        return Task(f"Repeat {a} backwards.", str(a)[::-1])


@register("zoo/random_tool-v0", max_turns=4)
class RandomTool(Sum):
    finds = "determinism.step"

    @tool
    def roll(self) -> int:
        """Roll a die with a million sides."""
        return random.randrange(10**6)


@register("zoo/random_reply-v0", max_turns=4)
class RandomReply(Sum):
    finds = "determinism.step"

    def respond(self, turn):
        return None if turn.answer == self.task.answer else f"Try again, {random.random()}."


@register("zoo/random_grader-v0")
class RandomGrader(Sum):
    finds = ("grader.nondeterministic", "determinism.step")

    @reward
    def correct(self, turn):
        return (turn.answer == self.task.answer) * random.random()


@register("zoo/counting_tasks-v0")
class CountingTasks(Sum):
    finds = ("isolation.episode", "determinism.seed")
    count = 0

    def task(self, rng):
        type(self).count += 1
        return Task(f"What is {self.count} + {rng.integers(1000)}?", "never")


@register("zoo/kept_state-v0", max_turns=4)
class KeptState(Sum):
    """The list is made once, in the constructor."""

    finds = "isolation.episode"

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.notes = []

    @tool
    def note(self, text: str) -> int:
        """Write a note; the number of notes."""
        self.notes.append(text)
        return len(self.notes)


@register("zoo/shared_list-v0", max_turns=4)
class SharedList(Sum):
    """The list belongs to the class, and start() empties it under the others' feet."""

    finds = "isolation.concurrent"
    notes = []

    def start(self):
        self.notes.clear()

    @tool
    def note(self, text: str) -> int:
        """Write a note; the number of notes."""
        self.notes.append(text)
        return len(self.notes)


_current = {}


@register("zoo/module_global-v0", max_turns=4)
class ModuleGlobal(Sum):
    finds = "isolation.concurrent"

    def start(self):
        _current["task"] = self.task

    @tool
    def add(self) -> int:
        """Add the two numbers of the task."""
        return _current["task"].metadata["a"] + _current["task"].metadata["b"]


@register("zoo/default_argument-v0", max_turns=4)
class DefaultArgument(Sum):
    finds = "isolation.episode"

    @tool
    def note(self, number: int, notes: list[int] = []) -> int:  # noqa: B006
        """Write a note; the number of notes."""
        self.kept(number)
        return len(self.kept(number))

    def kept(self, number, into=[]):  # noqa: B006
        into.append(number)
        return into


_memo = {}


@register("zoo/cached_tool-v0", max_turns=4)
class CachedTool(Sum):
    """The cache does not know which task it is: all tasks have the first one's sum."""

    finds = ("isolation.episode", "determinism.process")

    @tool
    def add(self) -> int:
        """Add the two numbers of the task."""
        if "sum" not in _memo:
            _memo["sum"] = self.task.metadata["a"] + self.task.metadata["b"]
        return _memo["sum"]


@register("zoo/await_race-v0", max_turns=4)
class AwaitRace(Sum):
    """Right alone and turn about; wrong as soon as two wait at once."""

    finds = "isolation.concurrent"

    @tool
    async def add(self) -> int:
        """Add the two numbers of the task."""
        _current["pair"] = (self.task.metadata["a"], self.task.metadata["b"])
        await asyncio.sleep(0.01)
        return sum(_current["pair"])

    def oracle(self):
        return Turn(tool_calls=(ToolCall("add"),)) if not self.calls else Turn(self.task.answer)


@register("zoo/clock_tool-v0", max_turns=4)
class ClockTool(Sum):
    finds = "determinism.step"

    @tool
    def now(self) -> str:
        """The time."""
        return str(time.perf_counter_ns())


@register("zoo/refusing_twice-v0", max_turns=4)
class RefusingTwice(Sum):
    """A tool that works only so often in the life of the process."""

    finds = ("isolation.episode", "determinism.process")

    @tool
    def once(self) -> str:
        """Works."""
        if len(_used) > 40:
            raise ToolError("used up")
        _used.append(1)
        return "fine"


_used = []
