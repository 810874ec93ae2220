"""New weights into a model that is being served: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is infinite or no number, without a second tensor as large."""
    if not tensor.numel() or not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def copy_weights(present: Mapping[str, Tensor], new: Mapping[str, Any]) -> None:
    """Copy new tensors into those of a state dict. ValueError, and nothing is copied, where names, shapes or values do not
    fit. Tensors that are the present ones already are left alone."""
    wanted = {name: tuple(tensor.shape) for name, tensor in present.items()}
    found = {name: tuple(tensor.shape) for name, tensor in new.items()}
    if wanted != found:
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise ValueError(
            f"the new weights are of another shape: {len(names)} tensors differ; {names[0]} is "
            f"{found.get(names[0], 'absent')}, the model's is {wanted.get(names[0], 'absent')}"
        )
    if broken := next((name for name, tensor in new.items() if not is_finite(tensor)), None):
        raise ValueError(f"the new weights are not finite, in {broken}")
    with torch.no_grad():
        for name, tensor in present.items():
            if tensor.data_ptr() != new[name].data_ptr():
                tensor.copy_(new[name])
