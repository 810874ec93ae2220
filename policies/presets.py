"""Named shapes: small ones for CPUs, a ladder of small hybrids, and the three of Nemotron 3.

Sources: the reports of Nemotron 3 Nano, Super and Ultra (tables of dimensions) and their published configurations; the ladder
is the one by which NVIDIA scales hybrids with 128 experts and two key-value heads.
"""

from __future__ import annotations

import difflib
from typing import Any

from .config import HybridConfig

_PUBLISHED: dict[str, Any] = dict(
    vocab_size=131072, mamba_head_dim=64, mamba_num_groups=8, ssm_state_size=128, chunk_size=128, head_dim=128,
    num_key_value_heads=2,
)  # fmt: skip
_LADDER: dict[str, Any] = {**_PUBLISHED, "num_experts": 128, "experts_per_token": 6, "routed_scaling_factor": 2.5}
_LATENT: dict[str, Any] = {
    **_PUBLISHED, "num_experts": 512, "experts_per_token": 22, "routed_scaling_factor": 5.0, "mtp_pattern": "*E", "mtp_depth": 2,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "tiny-1m": {},
    "tiny-100k": dict(
        pattern="M*E", vocab_size=320, hidden_size=48, mamba_head_dim=24, ssm_state_size=8, chunk_size=8, head_dim=16,
        num_attention_heads=2, num_key_value_heads=1, num_experts=4, expert_size=32, shared_expert_size=64,
    ),
    "tiny-6m": dict(
        pattern="MEMEM*ME", vocab_size=1024, hidden_size=256, mamba_num_heads=8, ssm_state_size=64, chunk_size=32, num_attention_heads=4,
        head_dim=64, num_experts=16, expert_size=128, shared_expert_size=256,
    ),
    "ladder-1b": dict(
        _LADDER, pattern="MEMEM*EMEME*EMEM*EMEME", hidden_size=768, num_attention_heads=6, mamba_num_heads=24, expert_size=512,
        shared_expert_size=960, init_std=0.0325,
    ),
    "ladder-2b": dict(
        _LADDER, pattern="MEMEM*EMEMEM*EMEMEM*EMEMEME", hidden_size=1024, num_attention_heads=8, mamba_num_heads=32,
        expert_size=640, shared_expert_size=1280, init_std=0.028,
    ),
    "ladder-4b": dict(
        _LADDER, pattern="MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEME", hidden_size=1280, num_attention_heads=12, mamba_num_heads=40,
        expert_size=768, shared_expert_size=1536, init_std=0.025,
    ),
    "nano3": dict(
        _LADDER, pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME", hidden_size=2688, num_attention_heads=32,
        mamba_num_heads=64, expert_size=1856, shared_expert_size=3712, init_std=0.0173,
    ),
    "super3": dict(
        _LATENT,
        pattern="MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size=4096, num_attention_heads=32, mamba_num_heads=128, expert_size=2688, shared_expert_size=5376, latent_size=1024,
        init_std=0.014,
    ),
    "ultra3": dict(
        _LATENT,
        pattern="MEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size=8192, num_attention_heads=64, mamba_num_heads=256, expert_size=5120, shared_expert_size=10240, latent_size=2048,
        init_std=0.0099,
    ),
}  # fmt: skip


def preset(name: str, **changes: Any) -> HybridConfig:
    """A named shape, with changes."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        raise ValueError(
            f"no preset {name!r}. " + (f"Did you mean {close[0]!r}?" if close else f"Known: {sorted(PRESETS)}.")
        )
    return HybridConfig.from_dict({**PRESETS[name], **changes})
