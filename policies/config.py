"""The shape of a hybrid policy: a pattern of layers and the sizes of each kind (Nemotron 3, table of dimensions).

Letters of a pattern, one mixer a layer: `M` Mamba-2, `*` attention without positions, `E` mixture of experts, `-` MLP.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

LETTERS = "M*E-"


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """Defaults are the preset `tiny-1m`. Names follow the published `nemotron_h` configuration where it has one."""

    pattern: str = "M*EM*E"
    vocab_size: int = 512
    hidden_size: int = 128
    # Mamba-2
    mamba_num_heads: int = 2
    mamba_head_dim: int = 64
    mamba_num_groups: int = 1
    ssm_state_size: int = 16
    conv_kernel: int = 4
    chunk_size: int = 16
    time_step_min: float = 0.001
    """Steps are kept at or above this, as transformers' nemotron_h does; also the low end of the initial steps."""
    time_step_max: float = 0.1
    # attention
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    # mixture of experts
    num_experts: int = 8
    experts_per_token: int = 2
    expert_size: int = 128
    shared_expert_size: int = 256
    routed_scaling_factor: float = 1.0
    # MLP
    mlp_size: int = 256
    norm_eps: float = 1e-5
    init_std: float | None = None
    """None: 0.9 / sqrt(hidden_size), which fits the published scales."""
    embedding_std: float = 0.3

    def __post_init__(self) -> None:
        unknown = sorted(set(self.pattern) - set(LETTERS))
        if unknown or not self.pattern:
            raise ValueError(f"a pattern is made of the letters {' '.join(LETTERS)}, got {self.pattern!r}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not value > 0:
                raise ValueError(f"{field.name} must be positive, got {value}")
        for whole, part in (
            ("num_attention_heads", "num_key_value_heads"),
            ("mamba_num_heads", "mamba_num_groups"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} ({getattr(self, whole)}) must be a multiple of {part} ({getattr(self, part)})"
                )
        if self.experts_per_token > self.num_experts:
            raise ValueError(f"experts_per_token ({self.experts_per_token}) exceeds num_experts ({self.num_experts})")
        if self.chunk_size < self.conv_kernel:
            raise ValueError(f"chunk_size ({self.chunk_size}) must be at least conv_kernel ({self.conv_kernel})")

    @property
    def mamba_size(self) -> int:
        return self.mamba_num_heads * self.mamba_head_dim

    @property
    def conv_size(self) -> int:
        """Channels of the convolution: x, B and C."""
        return self.mamba_size + 2 * self.mamba_num_groups * self.ssm_state_size

    @property
    def num_moe_layers(self) -> int:
        return self.pattern.count("E")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> HybridConfig:
        known = {field.name for field in dataclasses.fields(HybridConfig)}
        if unknown := sorted(set(values) - known):
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."
            raise ValueError(f"a policy has no setting {unknown[0]!r}. {hint}")
        return HybridConfig(**values)


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
}  # fmt: skip


def preset(name: str, **changes: Any) -> HybridConfig:
    """A named shape, with changes."""
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        raise ValueError(
            f"no preset {name!r}. " + (f"Did you mean {close[0]!r}?" if close else f"Known: {sorted(PRESETS)}.")
        )
    return HybridConfig.from_dict({**PRESETS[name], **changes})
