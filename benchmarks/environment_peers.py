"""The episode and the tool step of benchmarks/environments.py in gymnasium, skyrl-gym and aviary.

    PEERS_PYTHON benchmarks/environment_peers.py REPEATS

Run in the interpreter that has them, where nothing of ours is imported; gymnasium has no tools. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

from measure import best_us

CASES = ("single_turn_us", "tool_step_us")
STEPS = 20  # of an episode with tools: a twentieth of its reset is in each


def gymnasium_figures(repeats: int) -> dict[str, float]:
    class Sum(import_module("gymnasium").Env):  # type: ignore[misc]
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return "What is 2+2?", {}

        def step(self, action: str) -> Any:
            return "", float(action == "4"), True, False, {}

    env = Sum()
    return {"single_turn_us": best_us(lambda n: [(env.reset(), env.step("4")) for _ in range(n)], 5000, repeats)}


def skyrl_gym_figures(repeats: int) -> dict[str, float]:
    """Its way: each episode has an environment made for it, which reads the call out of the text itself."""
    gym, core = import_module("skyrl_gym"), import_module("skyrl_gym.tools.core")

    class Adder(core.ToolGroup):  # type: ignore[misc]
        @core.tool
        def add(self, a: str, b: str) -> str:
            return str(int(a) + int(b))

    class Sum(import_module("skyrl_gym.envs.base_text_env").BaseTextEnv):  # type: ignore[misc]
        def __init__(self, env_config: Any = None, extras: Any = None, tools: bool = False) -> None:
            super().__init__()
            if tools:
                self.init_tool_groups([Adder("adder")])

        def step(self, action: str) -> Any:
            self.turns += 1
            if not action.startswith("<add>"):
                return {"observations": [], "reward": float(action == "4"), "done": True, "metadata": {}}
            said = self._execute_tool("adder", "add", action[5:-6].split(","))
            return {"observations": [{"role": "user", "content": said}], "reward": 0.0, "done": False, "metadata": {}}

    def play(count: int, actions: list[str], tools: bool) -> None:
        for _ in range(count // len(actions)):
            env = gym.make("sum", tools=tools)
            env.init([{"role": "user", "content": "What is 2+2?"}])
            for action in actions:
                env.step(action)
            env.close()

    import_module("skyrl_gym.envs.registration").register(id="sum", entry_point=Sum)
    return {
        "single_turn_us": best_us(lambda n: play(n, ["4"], False), 2000, repeats),
        "tool_step_us": best_us(lambda n: play(n, ["<add>2,2</add>"] * STEPS, True), 100 * STEPS, repeats),
    }


def aviary_figures(repeats: int) -> dict[str, float]:
    core, tools = import_module("aviary.core"), import_module("aviary.tools")

    async def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    class Sum(core.Environment):  # type: ignore[misc]
        async def reset(self) -> Any:
            make = core.Tool.from_function
            self.tools = [make(add, allow_empty_param_descriptions=True)] if self.has_tools else []
            return [core.Message(content="What is 2+2?")], self.tools

        async def step(self, action: Any) -> Any:
            if self.has_tools:
                return await self.exec_tool_calls(action), 0.0, False, False
            return [], float(action.content == "4"), True, False

    async def play(count: int, action: Any, num_steps: int) -> None:
        env = Sum()
        env.has_tools = num_steps > 1
        for _ in range(count // num_steps):
            await env.reset()
            for _ in range(num_steps):
                await env.step(action)

    answer = core.Message(role="assistant", content="4")
    request = tools.ToolRequestMessage(tool_calls=[tools.ToolCall.from_name("add", a=2, b=2)])
    return {
        "single_turn_us": best_us(lambda n: play(n, answer, 1), 1000, repeats),
        "tool_step_us": best_us(lambda n: play(n, request, STEPS), 10 * STEPS, repeats),
    }


def peer_figures(repeats: int) -> dict[str, Any]:
    peers = {"gymnasium": gymnasium_figures, "skyrl-gym": skyrl_gym_figures, "aviary": aviary_figures}
    found: dict[str, Any] = {name: dict.fromkeys(CASES) for name in peers}
    for name, measure in peers.items():
        try:
            found[name] |= measure(repeats)
        except ImportError as error:
            found[name]["reason"] = f"{type(error).__name__}: {error}"
    return found


if __name__ == "__main__":
    print(json.dumps(peer_figures(int(sys.argv[1]))))
