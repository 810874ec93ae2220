"""Well-kept kernels of others behind our operations' signatures, for machines that have them (`pip install swannery[cuda]`).

    gated_rms_norm, ssd_chunks, ssd_step     mamba-ssm, Apache-2
    causal_conv1d_chunks, _step              causal-conv1d, BSD-3
    linear_logprobs                          liger-kernel, BSD-2

Taken with SWANNERY_KERNELS=external, and beside ours in `python benchmarks/kernels.py --parity`.
"""

# Shapes: as in the operations' own files.

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

PACKAGES = {
    "gated_rms_norm": "mamba_ssm",
    "ssd_chunks": "mamba_ssm",
    "ssd_step": "mamba_ssm",
    "causal_conv1d_chunks": "causal_conv1d",
    "causal_conv1d_step": "causal_conv1d",
    "linear_logprobs": "liger_kernel",
}
"""Of each operation that has an external form."""


@cache
def has(operation: str) -> bool:
    """Whether an operation has an external form, and its package is installed."""
    return operation in PACKAGES and importlib.util.find_spec(PACKAGES[operation]) is not None


def gated_rms_norm(x_D: Tensor, gate_D: Tensor, weight_D: Tensor, eps: float, num_groups: int = 1) -> Tensor:
    from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn  # type: ignore[import-not-found]

    group_size = x_D.shape[-1] // num_groups
    x, gate = x_D.contiguous(), gate_D.contiguous()
    return rmsnorm_fn(x, weight_D, None, z=gate, eps=eps, group_size=group_size, norm_before_gate=False)


def ssd_step(x_BHP: Tensor, dt_BH: Tensor, A_H: Tensor, B_BGN: Tensor, C_BGN: Tensor, state_BHPN: Tensor) -> Tensor:
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update  # type: ignore[import-not-found]

    P, N = state_BHPN.shape[2:]
    dt, A = dt_BH.unsqueeze(2).expand(-1, -1, P), A_H[:, None, None].expand(-1, P, N)
    none = torch.zeros_like(A_H).unsqueeze(1).expand(-1, P)  # it cannot do without D and a bias
    return selective_state_update(state_BHPN, x_BHP, dt, A, B_BGN, C_BGN, none, dt_bias=none)  # type: ignore[no-any-return]


def ssd_chunks(
    x_CQHP: Tensor,
    dt_CQH: Tensor,
    A_H: Tensor,
    B_CQGN: Tensor,
    C_CQGN: Tensor,
    levels: Sequence[Tensor],
    initial_SHPN: Tensor | None = None,
    last_S: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Where no chunk has two children each chain is one sequence, filled up with tokens of dt = 0; else depth by depth."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # type: ignore[import-not-found]

    chains = _chains(levels)
    if chains is None:
        return _by_depth(x_CQHP, dt_CQH, A_H, B_CQGN, C_CQGN, levels, initial_SHPN, last_S)
    Q = x_CQHP.shape[1]
    rows_SD, chain_C, place_C = chains
    at = rows_SD.clamp(min=0)
    x, B, C = (t[at].flatten(1, 2) for t in (x_CQHP, B_CQGN, C_CQGN))
    dt = torch.where((rows_SD >= 0)[:, :, None, None], dt_CQH[at], 0.0).flatten(1, 2)
    initial = None if initial_SHPN is None else initial_SHPN[levels[0]]
    y, states = mamba_chunk_scan_combined(x, dt, A_H, B, C, Q, initial_states=initial, return_final_states=True)
    y_CQHP = y.unflatten(1, (-1, Q))[chain_C, place_C]
    if last_S is None:
        return y_CQHP, None
    return y_CQHP, states.detach()[chain_C[last_S]]


def _chains(levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
    """The chunks of each chain in order [S, D], -1 behind them, and each chunk's chain and place. None where chains part."""
    S, device = len(levels[0]), levels[0].device
    chain = torch.arange(S, device=device)
    chains, rows, start = [chain], [chain], S
    for parents in levels[1:]:
        if len(parents.unique()) < len(parents):
            return None
        chain = chain[parents]
        row = torch.full((S,), -1, device=device)
        row[chain] = torch.arange(start, start + len(parents), device=device)
        chains.append(chain)
        rows.append(row)
        start += len(parents)
    place_C = torch.cat([torch.full_like(c, depth) for depth, c in enumerate(chains)])
    return torch.stack(rows, dim=1), torch.cat(chains), place_C


def _by_depth(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    levels: Sequence[Tensor],
    initial: Tensor | None,
    last_S: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # type: ignore[import-not-found]

    ys, states, start = [], [], 0
    for depth, parents in enumerate(levels):
        here = slice(start, start + len(parents))
        before = states[-1][parents] if depth else None if initial is None else initial[parents]
        y, after = mamba_chunk_scan_combined(
            x[here], dt[here], A, B[here], C[here], x.shape[1], initial_states=before, return_final_states=True
        )
        ys.append(y)
        states.append(after)
        start = here.stop
    return torch.cat(ys), None if last_S is None else torch.cat(states).detach()[last_S]


def causal_conv1d_chunks(x_CXD: Tensor, weight_DK: Tensor, bias_D: Tensor) -> Tensor:
    from causal_conv1d import causal_conv1d_fn  # type: ignore[import-not-found]

    y_CDX = causal_conv1d_fn(x_CXD.transpose(1, 2), weight_DK, bias_D, activation="silu")
    return y_CDX[:, :, weight_DK.shape[1] - 1 :].transpose(1, 2)  # type: ignore[no-any-return]


def causal_conv1d_step(x_BD: Tensor, weight_DK: Tensor, bias_D: Tensor | None, inputs_BXD: Tensor) -> Tensor:
    from causal_conv1d import causal_conv1d_update  # type: ignore[import-not-found]

    return causal_conv1d_update(x_BD, inputs_BXD.transpose(1, 2), weight_DK, bias_D, "silu")  # type: ignore[no-any-return]


def linear_logprobs(x_Nd: Tensor, weight_Vd: Tensor, targets_N: Tensor, temperature_N: Tensor) -> tuple[Tensor, Tensor]:
    """Its temperature is one for all, so each token's own goes into its row. It knows no support of sampled tokens."""
    from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction  # type: ignore[import-not-found]

    rows_Nd = (x_Nd / temperature_N.unsqueeze(1)).to(x_Nd.dtype)
    loss_N, entropy_N = LigerFusedLinearScaledCrossEntropyFunction.apply(
        rows_Nd, weight_Vd, targets_N, return_entropy=True
    )
    return -loss_N, entropy_N.detach()
