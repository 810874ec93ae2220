"""An environment with a tool in one file: played by hand, then checked and vectorised by Gymnasium.

python examples/stock.py
"""

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

from swannery.environments import Env, Task, ToolCall, ToolError, Turn, make, register, reward, tool


@register("shop/Stock-v0", max_turns=6)
class Stock(Env):
    def sample_task(self, rng: np.random.Generator) -> Task:
        item = ["pear", "plum"][int(rng.integers(2))]
        return Task(f"How many {item}s are in stock?", str(rng.integers(100)), metadata={"item": item})

    @tool
    def look_up(self, item: str) -> str:
        """The number in stock."""
        if item != self.task.metadata["item"]:
            raise ToolError(f"no shelf for {item!r}")
        return self.task.answer

    @reward
    def correct(self, turn: Turn) -> bool:
        return turn.answer.strip() == self.task.answer


def main() -> float:
    env = make("shop/Stock-v0")
    (question,), _ = env.reset(seed=0)
    print("user:", question.text)
    item = env.task.metadata["item"]
    (result,), *_ = env.step(Turn(tool_calls=(ToolCall("look_up", {"item": item}),)))
    print("tool:", result.text)
    _, value, *_ = env.step(result.text)
    print("reward:", value)

    check_env(gymnasium.make("shop/Stock-v0").unwrapped)
    envs = gymnasium.make_vec("shop/Stock-v0", 4)
    envs.reset(seed=0)
    print("four at once:", envs.step(["17"] * 4)[1])
    envs.close()
    return value


if __name__ == "__main__":
    main()
