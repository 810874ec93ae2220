"""Environments: `Env`, `@register`, `@tool`, `@reward`, `make`. Needs neither torch nor Ray."""

from ..messages import EnvironmentFault, Limits, Message, Outcome, Task, ToolCall, Turn
from .env import Env
from .registry import make, register, registered
from .reward import reward
from .spaces import ChatSpace, TurnSpace
from .tool import ToolError, tool
from .vector import AsyncioVectorEnv

from . import chat, math, reasoning_gym, tools  # isort: skip  (registers the families)

__all__ = [
    "AsyncioVectorEnv",
    "ChatSpace",
    "Env",
    "EnvironmentFault",
    "Limits",
    "Message",
    "Outcome",
    "Task",
    "ToolCall",
    "ToolError",
    "Turn",
    "TurnSpace",
    "chat",
    "make",
    "math",
    "reasoning_gym",
    "register",
    "registered",
    "reward",
    "tool",
    "tools",
]
