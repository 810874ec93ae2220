"""Dr. GRPO (https://arxiv.org/abs/2503.20783): no division by the deviation, which favours prompts that are nearly solved or hopeless,
and none by a sequence's own length, which favours long wrong answers. A sequence's sum is divided by a constant: a setting, never the
width of a tensor, or padding would move the learning rate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..advantages import Baseline, Scale
from .bundle import Clipped, GroupRelative, SummedSequences


class DrGRPO(GroupRelative, SummedSequences, Clipped):
    """GRPO done right."""

    name: Literal["dr_grpo"] = "dr_grpo"
    baseline: Baseline = "mean"
    scale: Scale = "none"
    clip_high: float = Field(default=0.2, gt=0)
