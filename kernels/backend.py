"""Which form of a kernel runs: by device, by what is installed, or as one setting says.

    SWANNERY_KERNELS=torch     plain or hand-written torch: any device
    SWANNERY_KERNELS=c         ours in C (compiled.py): fp32 tensors on a CPU where there is a C compiler
    SWANNERY_KERNELS=triton    ours in Triton: CUDA tensors, or with Triton's interpreter (TRITON_INTERPRET=1) all
    SWANNERY_KERNELS=external  those of other packages (external.py) where there are such, else as without the setting

Without the setting CUDA tensors take the Triton form where Triton is installed, fp32 tensors on a CPU that in C, all others the torch
form. So do float64, and what a form cannot do, whatever the setting.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

SETTING = "SWANNERY_KERNELS"
FORMS = ("torch", "c", "triton", "external")


class KernelError(ValueError):
    """A form of kernels that there is not."""


def uses_triton(x: Tensor, *others: Tensor) -> bool:
    """Whether an operation that has a Triton form takes it for these tensors, none of which may be of a wider type than the first."""
    asked = setting()
    if asked in ("torch", "c") or x.dtype is torch.float64:
        return False
    if any(torch.promote_types(x.dtype, t.dtype) is not x.dtype for t in others):
        return False
    if asked == "triton":
        return x.is_cuda or _interpreted()
    return x.is_cuda and _has_triton()


def uses_external(operation: str, x: Tensor) -> bool:
    """Whether an operation takes the form of another package for tensors such as this one."""
    if setting() != "external" or x.dtype is torch.float64 or not (x.is_cuda or _interpreted()):
        return False
    from . import external

    return external.has(operation)


def available() -> tuple[str, ...]:
    """The forms that CUDA tensors can take here; all others take the first."""
    from . import external

    others = any(external.has(operation) for operation in external.PACKAGES)
    return "torch", *(["triton"] if _has_triton() else []), *(["external"] if others else [])


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether autograd would follow an operation on these: the forms that write in place have no gradient."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def setting() -> str:
    """The form that is asked for, or nothing."""
    asked = os.environ.get(SETTING, "")
    if asked and asked not in FORMS:
        raise KernelError(f"{SETTING} is one of {', '.join(FORMS)}, got {asked!r}")
    return asked


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
