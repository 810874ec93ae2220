"""Which form of an operation runs."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from swannery.kernels import external
from swannery.kernels.backend import SETTING
from swannery.kernels.norm import rms_norm


class Taken(Exception):
    pass


def test_a_setting_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "cuda")
    with pytest.raises(ValueError, match=r"SWANNERY_KERNELS is one of torch, c, triton, external, got 'cuda'"):
        rms_norm(torch.ones(2, 4), torch.ones(4), 1e-5)


@pytest.mark.parametrize("name", external.PACKAGES)
def test_the_form_of_another_package_is_taken_when_asked_for(
    name: str, benchmark: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(*_: object) -> None:
        raise Taken

    cases = benchmark("kernel_cases")
    case = cases.cases(cases.SMALL, "cpu", torch.float32)[name]
    monkeypatch.setattr(external, "has", lambda operation: operation == name)
    monkeypatch.setattr(external, name, take)
    case.run()
    monkeypatch.setenv(SETTING, "external")
    case.run()  # tensors of a CPU, and no interpreter
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    case.run(dtype=torch.float64)
    with pytest.raises(Taken):
        case.run()
