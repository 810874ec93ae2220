"""Environments: `Env`, `@register`, `@tool`, `@reward`, `make`. Needs neither torch nor Ray."""

from ..messages import EnvironmentFault, Limits, Message, Outcome, Task, ToolCall, Turn
from . import spaces
from .calling import CallRecord
from .cheat import cheat
from .checker import check_env
from .curriculum import Curriculum, CurriculumConfig
from .declaration import DeclarationError
from .env import Env
from .jsonl import TaskFileError, jsonl
from .mixture import Mixture
from .record import EpisodeRecord, replay
from .registry import make, make_vec, register, register_module, registered
from .reward import reward
from .snapshot import Snapshot
from .state import DictState, SQLite, State
from .tool import ToolError, tool
from .user import END, RespondingUser, Rule, ScriptedUser
from .vector import AsyncioVectorEnv

from . import families  # isort: skip  (registers the families)

__all__ = [
    "END",
    "AsyncioVectorEnv",
    "CallRecord",
    "Curriculum",
    "CurriculumConfig",
    "DeclarationError",
    "DictState",
    "Env",
    "EnvironmentFault",
    "EpisodeRecord",
    "Limits",
    "Message",
    "Mixture",
    "Outcome",
    "RespondingUser",
    "Rule",
    "SQLite",
    "ScriptedUser",
    "Snapshot",
    "State",
    "Task",
    "TaskFileError",
    "ToolCall",
    "ToolError",
    "Turn",
    "cheat",
    "check_env",
    "families",
    "jsonl",
    "make",
    "make_vec",
    "register",
    "register_module",
    "registered",
    "replay",
    "reward",
    "spaces",
    "tool",
]
