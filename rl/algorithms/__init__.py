"""The algorithms, each in a file of its own with its paper. `[algorithm] name = ...` chooses one."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from .bundle import Algorithm
from .cispo import CISPO
from .dapo import DAPO
from .dr_grpo import DrGRPO
from .grpo import GRPO
from .gspo import GSPO
from .maxrl import MaxRL
from .ppo import PPO
from .reinforce_pp import ReinforcePP
from .rloo import RLOO


def _named(value: Any) -> Any:
    """Settings without a name are GRPO's."""
    return {"name": "grpo", **value} if isinstance(value, dict) else value


AnyAlgorithm = Annotated[
    Annotated[GRPO | DrGRPO | DAPO | GSPO | CISPO | RLOO | ReinforcePP | MaxRL | PPO, Field(discriminator="name")],
    BeforeValidator(_named),
]
ALGORITHMS: dict[str, type[Algorithm]] = {
    str(kind.model_fields["name"].default): kind
    for kind in (GRPO, DrGRPO, DAPO, GSPO, CISPO, RLOO, ReinforcePP, MaxRL, PPO)
}

__all__ = ["ALGORITHMS", "Algorithm", "AnyAlgorithm"]
