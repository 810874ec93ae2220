"""The published `nemotron_h` layout: our shape from its configuration, our weights from its names and back.

Source of the names: transformers `models/nemotron_h`. Checkpoints older than transformers 5 say `backbone.` and keep each
expert apart; both are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .config import HybridConfig

_KINDS = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "moe": "E", "mlp": "-"}
_EXPERT = re.compile(r"(.*\.mixer\.experts)\.(\d+)\.(up_proj|down_proj)\.weight")


def config_from_nemotron_h(published: Mapping[str, Any]) -> HybridConfig:
    """Our configuration of a published one (its config.json as a dict). Raises ValueError on what we do not have yet."""
    pattern = published.get("hybrid_override_pattern") or "".join(_KINDS[k] for k in published["layers_block_type"])
    unsupported = {
        "use_bias": (False,),
        "mlp_bias": (False,),
        "attention_bias": (False,),
        "tie_word_embeddings": (False,),
        "norm_topk_prob": (True,),
        "use_conv_bias": (True,),
    }
    for key, accepted in unsupported.items():
        if key in published and published[key] not in accepted:
            raise ValueError(f"nemotron_h with {key}={published[key]!r} is not supported; {key}={accepted[0]!r} is")
    return HybridConfig(
        pattern=pattern,
        vocab_size=published["vocab_size"],
        hidden_size=published["hidden_size"],
        mamba_num_heads=published["mamba_num_heads"],
        mamba_head_dim=published["mamba_head_dim"],
        mamba_num_groups=published["n_groups"],
        ssm_state_size=published["ssm_state_size"],
        conv_kernel=published["conv_kernel"],
        chunk_size=published["chunk_size"],
        time_step_min=published["time_step_min"],
        time_step_max=published["time_step_max"],
        num_attention_heads=published["num_attention_heads"],
        num_key_value_heads=published["num_key_value_heads"],
        head_dim=published["head_dim"],
        num_experts=published["n_routed_experts"],
        experts_per_token=published["num_experts_per_tok"],
        expert_size=published["moe_intermediate_size"],
        shared_expert_size=published["moe_shared_expert_intermediate_size"],
        routed_scaling_factor=float(published["routed_scaling_factor"]),
        mlp_size=published["intermediate_size"],
        norm_eps=published["layer_norm_epsilon"],
        latent_size=published.get("moe_latent_size"),
        num_expert_groups=published.get("n_group", 1),
        expert_groups_per_token=published.get("topk_group", 1),
        mtp_pattern=_mtp_pattern(published),
        mtp_depth=published.get("num_nextn_predict_layers") or 0,
    )


def _mtp_pattern(published: Mapping[str, Any]) -> str:
    """The block that predicts further tokens, where there is one (transformers names a default even without)."""
    if not published.get("num_nextn_predict_layers"):
        return ""
    pattern = published.get("mtp_hybrid_override_pattern")
    return pattern or "".join(_KINDS[kind] for kind in published.get("mtp_layers_block_type") or ())


def place_of(name: str) -> tuple[str, int | None]:
    """A published name as ours, and the expert whose part of a stacked tensor it is, where experts are kept apart."""
    name = re.sub(r"^(model|backbone)\.", "", name)
    if match := _EXPERT.fullmatch(name):
        return f"{match[1]}.{match[3]}", int(match[2])
    return name, None


def weights_from_nemotron_h(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under our names: the prefix falls away and single experts are stacked."""
    weights: dict[str, Tensor] = {}
    single: dict[str, dict[int, Tensor]] = {}
    for source, tensor in published.items():
        if source.startswith("mtp."):
            continue
        name, expert = place_of(source)
        if expert is None:
            weights[name] = tensor
        else:
            single.setdefault(name, {})[expert] = tensor
    for name, tensors in single.items():
        weights[name] = torch.stack([tensors[e] for e in range(len(tensors))])
    return weights


def weights_to_nemotron_h(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under transformers' names."""
    return {name if name.startswith("lm_head.") else f"model.{name}": tensor for name, tensor in weights.items()}


def config_to_nemotron_h(config: HybridConfig) -> dict[str, Any]:
    """The published form of our configuration: transformers builds the same model from it. ValueError for what it has not."""
    if "W" in config.pattern:
        raise ValueError(f"nemotron_h has no sliding-window layers, and the pattern is {config.pattern!r}")
    return {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "hybrid_override_pattern": config.pattern,
        "num_hidden_layers": len(config.pattern),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "mamba_num_heads": config.mamba_num_heads,
        "mamba_head_dim": config.mamba_head_dim,
        "n_groups": config.mamba_num_groups,
        "ssm_state_size": config.ssm_state_size,
        "conv_kernel": config.conv_kernel,
        "chunk_size": config.chunk_size,
        "time_step_min": config.time_step_min,
        "time_step_max": config.time_step_max,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "n_routed_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "moe_intermediate_size": config.expert_size,
        "moe_shared_expert_intermediate_size": config.shared_expert_size,
        "routed_scaling_factor": config.routed_scaling_factor,
        "intermediate_size": config.mlp_size,
        "layer_norm_epsilon": config.norm_eps,
        "moe_latent_size": config.latent_size,
        "n_group": config.num_expert_groups,
        "topk_group": config.expert_groups_per_token,
        "tie_word_embeddings": False,
        **(
            {"num_nextn_predict_layers": config.mtp_depth, "mtp_hybrid_override_pattern": config.mtp_pattern}
            if config.mtp_depth
            else {}
        ),
    }
