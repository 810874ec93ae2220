"""A real policy with a tool: SmolLM2-135M multiplies with a calculator, after four worked examples in its context.

swannery fetch smollm2
python examples/smollm2_tool.py
"""

import asyncio

import numpy as np
from rich.console import Console

from swannery.environments import Env, Message, Task, ToolCall, make, register, reward, tool
from swannery.environments.tools.calculator import one_step
from swannery.policies import make_engine, make_renderer, open_policy
from swannery.policies.fetch import fetch
from swannery.rl import EnvironmentPool, RolloutSpec, rollout
from swannery.rl.transcript import print_transcript


def worked(step: str) -> list[Message]:
    """One example: the question, the call, the result, the answer."""
    result = str(one_step(step))
    call = ToolCall("calculate", {"expression": step})
    said = [Message("user", f"What is {step}?"), Message("assistant", "", tool_calls=(call,)), Message("tool", result)]
    return [*said, Message("assistant", f"The result is {result}.")]


@register("examples/Multiply-v0", max_turns=3)
class Multiply(Env):
    def task(self, rng: np.random.Generator) -> Task:
        a, b = rng.integers(11, 99, size=2)
        shown = [message for step in ("12 * 7", "35 + 49", "90 / 6", "58 - 31") for message in worked(step)]
        step = f"{a} * {b}"
        gold = (ToolCall("calculate", {"expression": step}),)
        return Task((*shown, Message("user", f"What is {step}?")), f"The result is {a * b}.", gold=gold)

    @tool
    def calculate(self, expression: str) -> str:
        """Compute an expression."""
        return str(one_step(expression))

    @reward
    def right(self, turn) -> bool:
        return self.task.answer in turn.answer


async def main(num_tasks: int = 20) -> None:
    policy = open_policy(fetch("smollm2", print))
    pool, renderer = EnvironmentPool(lambda: make("examples/Multiply-v0")), make_renderer(policy)
    async with make_engine(policy, num_slots=num_tasks, capacity=1024, synchronous=False) as engine:
        specs = [
            RolloutSpec(env_id="examples/Multiply-v0", task_seed=seed, temperature=0.0, max_new_tokens=48)
            for seed in range(num_tasks)
        ]
        played = await asyncio.gather(*(rollout(pool, engine, renderer, spec) for spec in specs))
    print_transcript(Console(width=100), played[0], policy.tokenizer)
    print(f"{np.mean([branches[-1].reward for branches in played]):.2f} of {num_tasks} tasks right")


if __name__ == "__main__":
    asyncio.run(main())
