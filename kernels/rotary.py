"""Rotary positions (https://arxiv.org/abs/2104.09864): each pair of a head's dimensions is turned by an angle that grows with
the position, so that the product of two heads depends on their distance. Dimension i is paired with i + D/2, as in
transformers."""

# Shapes: N tokens, H heads, D head size.

from __future__ import annotations

import torch
from torch import Tensor


def rotary(x_NHD: Tensor, positions_N: Tensor, theta: float) -> Tensor:
    """Heads turned to their positions. Angles are fp32 at least, whatever the heads' precision."""
    half = x_NHD.shape[-1] // 2
    precise = torch.promote_types(x_NHD.dtype, torch.float32)
    speed = theta ** (-torch.arange(half, dtype=torch.float64, device=x_NHD.device) / half)
    angle_N1h = (positions_N.to(torch.float64).unsqueeze(1) * speed).unsqueeze(1)
    cos, sin = angle_N1h.cos().to(precise), angle_N1h.sin().to(precise)
    a, b = x_NHD.to(precise).split(half, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x_NHD.dtype)
