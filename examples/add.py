"""A single-turn environment in six lines.

swannery check examples/add.py
"""

from swannery.environments import Env, Task, register, reward


@register("examples/Add-v0")
class Add(Env):
    def task(self, rng):
        a, b = rng.integers(1000, size=2); return Task(f"What is {a} + {b}?", str(a + b))  # fmt: skip # noqa: E702

    @reward
    def exact(self, turn): return turn.answer == self.task.answer  # fmt: skip # noqa: E704
