"""reasoning-gym's data sets as environments, `reasoning_gym/<data set>-v0`. Imports the package when one is made."""

from ..registry import register_entry
from .names import NAMES

for _name in NAMES:
    register_entry(f"reasoning_gym/{_name}-v0", f"{__name__}.adapter:ReasoningGym", {"dataset": _name})
