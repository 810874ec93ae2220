"""What tests/kernels/test_triton.py runs in a process of its own: every Triton kernel against its reference, or compiled.

TRITON_INTERPRET=1 python triton_checks.py reference [cpu|cuda]
TRITON_INTERPRET=1 python triton_checks.py model [cpu|cuda]
python triton_checks.py compile
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from swannery.kernels import backend
from swannery.kernels.conv1d import causal_conv1d_chunks, causal_conv1d_step
from swannery.kernels.norm import gated_rms_norm, rms_norm_ref
from swannery.kernels.ssd import ssd_step

MODULES = sorted(path.stem for path in Path(backend.__file__).parent.glob("*_triton.py"))
MORE = ("triton_scan_checks", "triton_moe_checks", "triton_head_checks")
"""Modules beside this one with checks of their own: a DEVICE, and a list `scan_checks` or `moe_checks` (`*_checks`)."""
DEVICE = "cpu"


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE)


def close(got: object, wanted: object, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def gradients(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> list[torch.Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


def norms() -> None:
    from swannery.kernels.norm_triton import gated_rms_norm_triton

    for rows, size, groups in ((7, 48, 1), (5, 40, 2), (3, 129, 1), (1, 8, 4)):
        x, gate, weight = rand(rows, size), rand(rows, size), rand(size)
        close(
            gradients(lambda x, g, w, n=groups: gated_rms_norm_triton(x, g, w, 1e-5, n), x, gate, weight),
            gradients(lambda x, g, w, n=groups: gated_rms_norm(x, g, w, 1e-5, n), x, gate, weight),
        )
    x, weight = rand(4, 6, 33), rand(33)
    close(
        gradients(lambda x, w: gated_rms_norm_triton(x, None, w, 1e-5), x, weight),
        gradients(lambda x, w: rms_norm_ref(x, w, 1e-5), x, weight),
    )
    half = x.bfloat16()
    close(gated_rms_norm_triton(half, None, weight, 1e-5).float(), rms_norm_ref(half.float(), weight, 1e-5), 2e-2)


def steps() -> None:
    from swannery.kernels.ssd_triton import ssd_step_triton

    for batch, H, P, G, N in ((3, 4, 8, 2, 16), (2, 3, 5, 1, 7), (1, 2, 64, 1, 128)):
        x, dt, decay = rand(batch, H, P), torch.rand(batch, H, device=DEVICE), -torch.rand(H, device=DEVICE) * 16
        b, c, state = rand(batch, G, N), rand(batch, G, N), rand(batch, H, P, N)
        dt[0] = torch.tensor([0.0, 60.0, *[0.1] * (H - 2)])  # nothing happens; all is forgotten
        states = state.clone(), state.clone()
        close(ssd_step_triton(x, dt, decay, b, c, states[0]), ssd_step(x, dt, decay, b, c, states[1]))
        close(states[0], states[1])


def convolutions() -> None:
    from swannery.kernels.conv1d_triton import causal_conv1d_chunks_triton, causal_conv1d_step_triton

    for chunks, size, channels, kernel in ((3, 8, 130, 4), (2, 5, 7, 3), (1, 1, 128, 2), (2, 70, 65, 4)):
        x, weight, bias = rand(chunks, kernel - 1 + size, channels), rand(channels, kernel), rand(channels)
        close(gradients(causal_conv1d_chunks_triton, x, weight, bias), gradients(causal_conv1d_chunks, x, weight, bias))
        inputs = rand(4, kernel - 1, channels)
        both, new = (inputs.clone(), inputs.clone()), rand(4, channels)
        close(causal_conv1d_step_triton(new, weight, bias, both[0]), causal_conv1d_step(new, weight, bias, both[1]))
        close(both[0], both[1])
    wide = rand(2, 8, 200)[..., :130]  # a part of wider rows
    weight, bias = rand(130, 4), rand(130)
    close(causal_conv1d_chunks_triton(wide, weight, bias), causal_conv1d_chunks(wide, weight, bias))


def more_checks(device: str) -> Iterator[Callable[[], None]]:
    for name in MORE:
        if (Path(__file__).parent / f"{name}.py").exists():
            module: ModuleType = importlib.import_module(name)
            module.DEVICE = device
            yield from getattr(module, name.removeprefix("triton_"))


def whole_model() -> None:
    """A tiny hybrid's log-probabilities, gradients and decoding, in Triton's forms and in torch's."""
    from swannery.policies import HybridModel, preset

    model = HybridModel(preset("tiny-100k"), seed=1).to(DEVICE)
    results = []
    for form in ("torch", "triton"):
        os.environ[backend.SETTING] = form
        model.zero_grad()
        results.append({**trained(model), **decoded(model)})
    os.environ[backend.SETTING] = "torch"
    for name, wanted in results[0].items():
        close(results[1][name], wanted, 1e-4 * max(float(wanted.abs().max()), 1e-2))


def trained(model: Any) -> dict[str, torch.Tensor]:
    from swannery.kernels.packing import Packing

    lengths = [9, 12, 3]
    packing = Packing.build(lengths, [-1, 0, 0], chunk_size=model.config.chunk_size, device=DEVICE)
    ids = torch.arange(sum(lengths), device=DEVICE) * 7 % model.config.vocab_size
    hidden, _ = model(ids, packing)
    ones = torch.ones(len(ids), device=DEVICE)
    logprobs, entropies = model.logprobs(hidden, ids.roll(-1), ones)
    (logprobs.mean() + 0.1 * entropies.mean()).backward()
    gradients_by_name = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logprobs": logprobs.detach(), "entropies": entropies.detach(), **gradients_by_name}


@torch.no_grad()
def decoded(model: Any) -> dict[str, torch.Tensor]:
    import numpy as np

    from swannery.kernels.packing import Packing
    from swannery.kernels.paged_attention import DecodeLayout
    from swannery.policies.cache import Cache
    from swannery.policies.hybrid import CachePlace

    lengths, tables = np.array([10, 3]), np.array([[1, 0], [2, 3]])
    cache = Cache(model.config, 2, 4, page_size=8, device=torch.device(DEVICE))
    place = CachePlace.build(cache, np.arange(2), tables, np.zeros(2, np.int64), lengths)
    ids = torch.arange(13, device=DEVICE)
    packing = Packing.build(lengths.tolist(), chunk_size=model.config.chunk_size, device=torch.device(DEVICE))
    hidden = [model(ids, packing, place=place)[0]]
    for step in range(2):
        layout = DecodeLayout.build(tables, lengths + step + 1, 8, device=torch.device(DEVICE))
        hidden.append(model.step(torch.tensor([5, 6 + step], device=DEVICE), cache, layout)[0])
    return {"hidden": torch.cat(hidden)}


def compiled_cases(module: ModuleType) -> Iterator[tuple[Any, dict[str, str], dict[str, Any]]]:
    """(kernel, signature, constants), from a list of them or a table by kernel."""
    table = getattr(module, "COMPILED", ())  # one with launches alone has none
    if isinstance(table, dict):
        yield from ((kernel, *case) for kernel, case in table.items())
    else:
        yield from table


def compile_all() -> None:
    """For Hopper, with all numbers known to be divisible by 16, as a launch knows those of larger models: loads are wide then."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for name in MODULES:
        for kernel, signature, given in compiled_cases(importlib.import_module(f"swannery.kernels.{name}")):
            options = {"num_warps": 4} | {k: given[k] for k in ("num_warps", "num_stages") if k in given}
            constants = {k: v for k, v in given.items() if k not in options}
            types = {**signature, **dict.fromkeys(constants, "constexpr")}
            wide = [types[name][0] in "*i" for name in kernel.arg_names]
            source = ASTSource(
                fn=kernel,
                signature={n: types[n] for n in kernel.arg_names},
                constexprs=constants,
                attrs={(i,): [["tt.divisibility", 16]] for i, is_wide in enumerate(wide) if is_wide},
            )
            compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            assert ".target sm_90a" in compiled.asm["ptx"] and len(compiled.asm["cubin"]) > 1000
            if any("bf16" in str(value) for value in constants.values()):
                assert "wgmma" in compiled.asm["ptx"], f"{kernel.__name__} does not use tensor cores"
            assert compiled.metadata.shared <= 227 << 10
            print(name, kernel.__name__, len(compiled.asm["cubin"]))


if __name__ == "__main__":
    os.environ[backend.SETTING] = "torch"  # the references
    if sys.argv[1] == "compile":
        compile_all()
    else:
        DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"
        checks = [whole_model] if sys.argv[1] == "model" else [norms, steps, convolutions, *more_checks(DEVICE)]
        for check in checks:
            torch.manual_seed(0)  # a check's numbers are the same in whatever company
            check()
            print(check.__name__)
