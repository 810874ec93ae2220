"""The shape of a hybrid policy: a pattern of layers and the sizes of each kind (Nemotron 3, table of dimensions).

Letters of a pattern, one mixer a layer: `M` Mamba-2, `*` attention without positions over all, `W` attention with rotary
positions over a sliding window, `E` mixture of experts (in a latent space, where `latent_size` is given), `-` MLP.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

LETTERS = "M*WE-"


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
    window_size: int = 512
    """Tokens that `W` layers see, the present one included."""
    rope_theta: float = 10_000.0
    # mixture of experts
    num_experts: int = 8
    experts_per_token: int = 2
    expert_size: int = 128
    shared_expert_size: int = 256
    routed_scaling_factor: float = 1.0
    latent_size: int | None = None
    """Routed experts work in this many dimensions, between two projections (LatentMoE); None: in hidden_size."""
    num_expert_groups: int = 1
    expert_groups_per_token: int = 1
    """A token's experts come from this many groups, those whose two best experts score highest."""
    # MLP
    mlp_size: int = 256
    # multi-token prediction: kept with a checkpoint, not yet built
    mtp_pattern: str = ""
    mtp_depth: int = 0
    norm_eps: float = 1e-5
    init_std: float | None = None
    """None: 0.9 / sqrt(hidden_size), which fits the published scales."""
    embedding_std: float = 0.3

    def __post_init__(self) -> None:
        for name in ("pattern", "mtp_pattern"):
            if unknown := sorted(set(getattr(self, name)) - set(LETTERS)):
                raise ValueError(
                    f"{name} is made of the letters {' '.join(LETTERS)}, got {unknown[0]!r} in {getattr(self, name)!r}"
                )
        if not self.pattern:
            raise ValueError("a pattern has at least one layer")
        if bool(self.mtp_pattern) != bool(self.mtp_depth):
            raise ValueError(
                f"mtp_pattern and mtp_depth belong together, got {self.mtp_pattern!r} and {self.mtp_depth}"
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not (value > 0 or (field.name == "mtp_depth" and value == 0)):
                raise ValueError(f"{field.name} must be positive, got {value}")
        for whole, part in (
            ("num_attention_heads", "num_key_value_heads"),
            ("mamba_num_heads", "mamba_num_groups"),
            ("num_experts", "num_expert_groups"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"{whole} ({getattr(self, whole)}) must be a multiple of {part} ({getattr(self, part)})"
                )
        in_reach = self.num_experts // self.num_expert_groups * self.expert_groups_per_token
        if self.experts_per_token > in_reach:
            raise ValueError(
                f"experts_per_token ({self.experts_per_token}) exceeds the experts that a token can reach ({in_reach})"
            )
        if self.expert_groups_per_token > self.num_expert_groups or self.num_experts < 2 * self.num_expert_groups > 2:
            raise ValueError(
                f"expert_groups_per_token ({self.expert_groups_per_token}) is at most num_expert_groups "
                f"({self.num_expert_groups}), and a group has at least two experts"
            )
        if "W" in self.pattern and self.head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim must be even, got {self.head_dim}")
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
