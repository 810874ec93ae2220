"""Planted bugs: crashes, blocked loops, things left behind, snapshots that do not hold, declarations that mislead."""

import asyncio
import os
import subprocess
import threading
import time

import pydantic

from swannery.environments import Env, State, Task, ToolCall, Turn, register, reward, tool


class Sum(Env):
    def task(self, rng):
        a, b = rng.integers(1000, size=2).tolist()
        return Task(f"What is {a} + {b}?", str(a + b), metadata={"a": a, "b": b})

    @reward
    def correct(self, turn):
        return turn.answer == self.task.answer


@register("zoo/crash_on_some_seeds-v0")
class CrashOnSomeSeeds(Sum):
    finds = "reset.crash"

    def task(self, rng):
        a = int(rng.integers(1, 8))
        return Task(f"What is {a} of {10 // (a % 4)}?", str(a))


@register("zoo/crashing_tool-v0", max_turns=4)
class CrashingTool(Sum):
    finds = "step.crash"

    @tool
    def look_up(self, name: str) -> int:
        """Look a number up."""
        return {"a": 1, "b": 2}[name]


@register("zoo/unreadable_answer-v0")
class UnreadableAnswer(Sum):
    finds = "step.crash"

    @reward
    def correct(self, turn):
        return int(turn.answer) == int(self.task.answer)


@register("zoo/endless_tool-v0", max_turns=3)
class EndlessTool(Sum):
    finds = "tool.timeout"

    @tool
    def wait(self, until: str) -> str:
        """Wait."""
        while True:
            pass


@register("zoo/wrong_reply-v0", max_turns=3)
class WrongReply(Sum):
    finds = "step.crash"

    def respond(self, turn):
        return None if turn.answer == self.task.answer else 42


@register("zoo/slow_reset-v0")
class SlowReset(Sum):
    finds = "reset.slow"

    def start(self):
        end = time.process_time() + 1.05
        while time.process_time() < end:
            pass


@register("zoo/slow_grader-v0")
class SlowGrader(Sum):
    finds = "step.slow"

    @reward
    def correct(self, turn):
        end = time.process_time() + 0.25
        while time.process_time() < end:
            pass
        return turn.answer == self.task.answer


@register("zoo/blocking_await-v0", max_turns=3)
class BlockingAwait(Sum):
    finds = "step.blocks_loop"

    @tool
    async def fetch(self) -> str:
        """Fetch a page."""
        time.sleep(0.15)
        await asyncio.sleep(0)
        return "page"

    def oracle(self):
        return Turn(tool_calls=(ToolCall("fetch"),)) if not self.calls else Turn(self.task.answer)


@register("zoo/left_thread-v0", max_turns=3)
class LeftThread(Sum):
    finds = "teardown.thread"

    def start(self):
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()


@register("zoo/left_file-v0")
class LeftFile(Sum):
    finds = "teardown.file"
    opened = []

    def start(self):
        self.opened.append(os.open(__file__, os.O_RDONLY))


@register("zoo/left_process-v0")
class LeftProcess(Sum):
    finds = "teardown.process"
    running = []

    def start(self):
        self.running.append(subprocess.Popen(["sleep", "20"]))


@register("zoo/left_task-v0", max_turns=3)
class LeftTask(Sum):
    finds = "teardown.task"

    @tool
    async def begin(self) -> str:
        """Begin something."""
        self.kept.append(asyncio.create_task(asyncio.sleep(30)))
        return "begun"

    kept = []

    def oracle(self):
        return Turn(tool_calls=(ToolCall("begin"),)) if not self.calls else Turn(self.task.answer)


@register("zoo/lock_in_episode-v0", max_turns=3)
class LockInEpisode(Sum):
    finds = "snapshot.copy"

    def start(self):
        self.lock = threading.Lock()


_elsewhere = {}


@register("zoo/state_elsewhere-v0", max_turns=6)
class StateElsewhere(Sum):
    """Keyed by environment, so episodes do not meet; but a snapshot knows nothing of it."""

    finds = "snapshot.restore"

    def start(self):
        _elsewhere[id(self)] = 0

    @tool
    def count(self) -> int:
        """How often this was called."""
        _elsewhere[id(self)] = _elsewhere.get(id(self), 0) + 1
        return _elsewhere[id(self)]


@register("zoo/shared_note-v0", max_turns=6)
class SharedNote(Sum):
    """Emptied at each start, but made in the constructor: a branch writes into the same list."""

    finds = "snapshot.restore"

    def __init__(self, **keywords):
        super().__init__(**keywords)
        self.notes = []

    def start(self):
        self.notes.clear()

    @tool
    def note(self, text: str) -> int:
        """Write a note; the number of notes."""
        self.notes.append(text)
        return len(self.notes)


@register("zoo/secret_write-v0", max_turns=4)
class SecretWrite(Sum):
    finds = "tool.undeclared_write"
    notes = State.dict({"notes": []})

    @tool
    def read(self, page: int) -> str:
        """Read a page."""
        self.notes["notes"].append(page)
        return "nothing"


class Opaque:
    pass


@register("zoo/opaque_argument-v0", max_turns=3)
class OpaqueArgument(Sum):
    finds = "declaration"

    @tool
    def take(self, thing: Opaque) -> str:
        """Take something."""
        return "taken"


@register("zoo/documented_stranger-v0", max_turns=3)
class DocumentedStranger(Sum):
    finds = "declaration.docs"

    @tool
    def add(self, a: int, b: int) -> int:
        """Add.

        Args:
            a: A number.
            c: Another.
        """
        return a + b


@register("zoo/wrong_default-v0", max_turns=3)
class WrongDefault(Sum):
    finds = "schema.default"

    @tool
    def add(self, a: int, b: int = "none") -> int:
        """Add."""
        return a


class Weight(pydantic.BaseModel):
    grams: int

    @pydantic.field_validator("grams", mode="before")
    @classmethod
    def from_kilograms(cls, value):
        return int(value) * 1000


@register("zoo/drifting_argument-v0", max_turns=3)
class DriftingArgument(Sum):
    """What was typed once is another value when it is typed again."""

    finds = "schema.round_trip"

    @tool
    def weigh(self, load: Weight) -> int:
        """Weigh a load."""
        return load.grams


@register("zoo/missing_level-v0")
class MissingLevel(Sum):
    finds = "levels.constructor"
    levels = (1, 2, 3)

    def __init__(self, *, level: int = 1, **keywords):
        super().__init__(**keywords)
        if level > 2:
            raise ValueError("level is 1 or 2")


@register("zoo/own_spaces-v0")
class OwnSpaces(Sum):
    finds = "gymnasium.checker"

    def reset(self, **keywords):
        return super().reset(**keywords)[0]


@register("zoo/surrogate_prompt-v0")
class SurrogatePrompt(Sum):
    finds = ("space.observation", "space.json", "task.plain")

    def task(self, rng):
        a = int(rng.integers(1000))
        return Task(f"Write {a} backwards. \ud800", str(a)[::-1])
