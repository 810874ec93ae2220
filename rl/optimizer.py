"""Optimizers' states as named tensors, for checkpoints without pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def optimizer_state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every tensor by the optimizer's place, the parameter's number and its own name."""
    tensors: dict[str, Tensor] = {}
    for index, optimizer in enumerate(optimizers):
        for number, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{index}.{number}.{key}"] = value
    return tensors


def load_optimizer_state(optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            place, number, key = name.split(".", 2)
            if int(place) == index:
                state.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
