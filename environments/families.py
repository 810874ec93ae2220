"""The families that come with the package: their ids, each imported when it is first made."""

from __future__ import annotations

from .reasoning_gym.names import NAMES
from .registry import register_entry, register_module

_HERE = __name__.rpartition(".")[0]

FAMILIES = {
    "math/Arithmetic-v0": "math.arithmetic",
    "tools/Calculator-v0": "tools.calculator",
    "chat/Guess-v0": "chat.guess",
    "workplace/Assistant-v0": "workplace.assistant",
    "service_desk/Tickets-v0": "service_desk.tickets",
    "banking/Support-v0": "banking.support",
    "structured/Output-v0": "structured.output",
    "tool_calls/Accuracy-v0": "tool_calls.accuracy",
}
"""Id to module, beside this one."""

for env_id, module in FAMILIES.items():
    register_module(env_id, f"{_HERE}.{module}")
for name in NAMES:
    register_entry(f"reasoning_gym/{name}-v0", f"{_HERE}.reasoning_gym.adapter:ReasoningGym", {"dataset": name})
