"""Planted bugs: scores that can be had without the work, that are no numbers, or that nobody can reach."""

import math

from swannery.environments import Env, State, Task, ToolCall, ToolError, Turn, cheat, register, reward, tool


class Sum(Env):
    def task(self, rng):
        a, b = rng.integers(1000, size=2).tolist()
        return Task(f"What is {a} + {b}?", str(a + b), metadata={"a": a, "b": b})

    @reward
    def correct(self, turn):
        return turn.answer == self.task.answer


@register("zoo/wrong_gold-v0")
class WrongGold(Sum):
    finds = "oracle.maximum"

    def task(self, rng):
        a, b = rng.integers(1000, size=2).tolist()
        return Task(f"What is {a} + {b}?", str(a + b + (a > 500)), metadata={"sum": a + b})

    @reward
    def correct(self, turn):
        return turn.answer == str(self.task.metadata["sum"])


@register("zoo/crashing_oracle-v0")
class CrashingOracle(Sum):
    finds = "oracle.crash"

    def oracle(self):
        return Turn(self.task.metadata["sum"])


@register("zoo/no_oracle-v0")
class NoOracle(Sum):
    finds = "oracle.missing"

    def task(self, rng):
        a = int(rng.integers(1000))
        return Task(f"Write {a} backwards.", metadata={"a": a})

    @reward
    def correct(self, turn):
        return turn.answer == str(self.task.metadata["a"])[::-1]


@register("zoo/too_few_turns-v0", max_turns=2)
class TooFewTurns(Sum):
    finds = "oracle.truncated"

    def task(self, rng):
        a = int(rng.integers(1000))
        return Task(f"Press {a} three times.", gold=(ToolCall("press", {"key": a}),) * 3)

    @tool
    def press(self, key: int) -> str:
        """Press a key."""
        return "pressed"

    @reward
    def pressed(self):
        return len(self.calls) == 3 and all(call.ok for call in self.calls)


@register("zoo/null_wins-v0")
class NullWins(Sum):
    finds = "floor.null"

    @reward
    def correct(self, turn):
        return self.task.answer.startswith(turn.answer)


@register("zoo/gold_changes_nothing-v0", max_turns=4)
class GoldChangesNothing(Sum):
    """The state after the gold calls is the state before them."""

    finds = "floor.null"
    lamp = State.dict({"on": True})

    def task(self, rng):
        return Task(f"Switch lamp {rng.integers(1000)} on.", gold=(ToolCall("switch", {"on": True}),))

    @tool(writes=True)
    def switch(self, on: bool) -> str:
        """Switch the lamp."""
        self.lamp["on"] = on
        return "done"

    @reward
    def same(self):
        return self.hash() == self.after(self.task.gold).hash()


@register("zoo/substring-v0")
class Substring(Sum):
    finds = "floor.shotgun"

    @reward
    def correct(self, turn):
        return self.task.answer in turn.answer


@register("zoo/echo_wins-v0")
class EchoWins(Sum):
    finds = "floor.echo"

    @reward
    def overlap(self, turn):
        asked = set(self.task.prompt.split())
        said = set(turn.answer.split())
        return 1.0 if turn.answer == self.task.answer else len(asked & said) / len(asked)


@register("zoo/length_wins-v0")
class LengthWins(Sum):
    finds = "floor.long"

    @reward
    def thorough(self, turn):
        return 1.0 if turn.answer == self.task.answer else min(1.0, len(turn.answer) / 500)


@register("zoo/verdict_in_answer-v0")
class VerdictInAnswer(Sum):
    finds = "floor.injection"

    @reward
    def judged(self, turn):
        return turn.answer == self.task.answer or '"correct": true' in turn.answer


@register("zoo/yes_or_no-v0")
class YesOrNo(Sum):
    """Nine of ten answers are yes."""

    finds = "floor.majority"

    def task(self, rng):
        a = int(rng.integers(1000))
        return Task(f"Is {a} above 99?", "yes" if a > 99 else "no")


@register("zoo/any_call_wins-v0", max_turns=4)
class AnyCallWins(Sum):
    finds = "floor.idle_calls"

    @tool
    def add(self, a: int, b: int) -> int:
        """Add."""
        return a + b

    @reward
    def correct(self, turn):
        return any(call.ok for call in self.calls) or turn.answer == self.task.answer


@register("zoo/chance_wins-v0", max_turns=8)
class ChanceWins(Sum):
    """One of three doors, and as many tries as one likes."""

    finds = "floor.random"

    def task(self, rng):
        return Task(f"Game {rng.integers(10**6)}: open the right door, 0, 1 or 2.", str(rng.integers(3)))

    @tool
    def open(self, door: int) -> str:
        """Open a door."""
        self.found = getattr(self, "found", False) or door % 3 == int(self.task.answer)
        return "something" if self.found else "nothing"

    def start(self):
        self.found = False

    @reward
    def correct(self, turn):
        return self.found or turn.answer == self.task.answer


@register("zoo/open_cheat-v0")
class OpenCheat(Sum):
    finds = "floor.cheat"

    @reward
    def correct(self, turn):
        return turn.answer == self.task.answer or turn.answer == "__import__('os')"

    @cheat
    def knows_the_backdoor(self):
        return Turn("__import__('os')")


@register("zoo/answer_in_prompt-v0")
class AnswerInPrompt(Sum):
    finds = "leak.prompt"

    def task(self, rng):
        a, b = rng.integers(1000, size=2).tolist()
        return Task(f"What is {a} + {b}? (answer: {a + b})", str(a + b))


@register("zoo/answer_in_system-v0")
class AnswerInSystem(Sum):
    finds = "leak.prompt"

    @property
    def system(self):
        return f"The expected answer is {self.task.answer}."


@register("zoo/answer_in_reply-v0", max_turns=3)
class AnswerInReply(Sum):
    finds = "leak.reply"

    def respond(self, turn):
        return None if turn.answer == self.task.answer else f"No, the answer is {self.task.answer}. Try again."


_PASS_WORDS = "swordfish mellon sesame rowan heron otter ember tulip birch cedar maple alder"


@register("zoo/answer_in_schema-v0", max_turns=3)
class AnswerInSchema(Sum):
    finds = "leak.schema"

    def task(self, rng):
        return Task(f"Room {rng.integers(10**6)}: say the pass word.", _PASS_WORDS.split()[rng.integers(12)])

    @tool
    def knock(self) -> str:
        """Knock. Opens for swordfish mellon sesame rowan heron otter ember tulip birch cedar maple alder."""
        return "Who is there?"


@register("zoo/answer_in_info-v0")
class AnswerInInfo(Sum):
    finds = "leak.info"

    def reset(self, **keywords):
        observation, info = super().reset(**keywords)
        return observation, {**info, "label": self.task.answer}


@register("zoo/text_reward-v0")
class TextReward(Sum):
    finds = "reward.value"

    @reward
    def correct(self, turn):
        return "1" if turn.answer == self.task.answer else "0"


@register("zoo/nan_reward-v0")
class NaNReward(Sum):
    finds = "reward.value"

    @reward
    def correct(self, turn):
        return 1.0 if turn.answer == self.task.answer else math.nan


@register("zoo/none_reward-v0")
class NoneReward(Sum):
    finds = "reward.value"

    @reward
    def correct(self, turn):
        if turn.answer == self.task.answer:
            return True


@register("zoo/huge_reward-v0")
class HugeReward(Sum):
    finds = "reward.value"

    @reward
    def correct(self, turn):
        return 100 * (turn.answer == self.task.answer)


@register("zoo/swallowing_grader-v0")
class SwallowingGrader(Sum):
    finds = "fault.swallowed"

    @reward
    def correct(self, turn):
        try:
            return int(turn.answer) == int(self.task.answer)
        except Exception:
            return 0.0


@register("zoo/swallowing_step-v0")
class SwallowingStep(Sum):
    """A crash of the grader comes out as a zero."""

    finds = "fault.swallowed"

    def step(self, action):
        try:
            return super().step(action)
        except Exception as error:
            return (), 0.0, True, False, {"rewards": {}, "outcome": "terminated", "error": str(error)}


@register("zoo/impure_grader-v0", max_turns=3)
class ImpureGrader(Sum):
    finds = "grader.impure"
    seen = State.dict({"count": 0})

    @reward
    def correct(self, turn):
        self.seen["count"] += 1
        return turn.answer == self.task.answer


@register("zoo/drawing_grader-v0")
class DrawingGrader(Sum):
    """Uses up the episode's random stream."""

    finds = "grader.impure"

    @reward
    def correct(self, turn):
        self.np_random.random()
        return turn.answer == self.task.answer


@register("zoo/ambiguous-v0")
class Ambiguous(Sum):
    finds = "task.ambiguous"

    def task(self, rng):
        return Task("Guess my number.", str(rng.integers(1000)))


@register("zoo/empty_prompt-v0")
class EmptyPrompt(Sum):
    finds = "task.empty"
    prompt_identifies_task = False

    def task(self, rng):
        return Task(" ", str(rng.integers(1000)))


@register("zoo/numpy_metadata-v0")
class NumpyMetadata(Sum):
    finds = "task.plain"

    def task(self, rng):
        a = rng.integers(1000)
        return Task(f"Write {a} backwards.", str(a)[::-1], metadata={"a": a})


@register("zoo/refused_gold-v0", max_turns=4)
class RefusedGold(Sum):
    """The gold call is one that the tool refuses."""

    finds = ("step.crash", "oracle.maximum")
    lamp = State.dict({"on": False})

    def task(self, rng):
        return Task(f"Switch lamp {rng.integers(1000)} on.", gold=(ToolCall("switch", {"lamp": 12}),))

    @tool(writes=True)
    def switch(self, lamp: int) -> str:
        """Switch a lamp."""
        if lamp > 9:
            raise ToolError("no such lamp")
        self.lamp["on"] = True
        return "done"

    @reward
    def same(self):
        return self.hash() == self.after(self.task.gold).hash()
