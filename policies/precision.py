"""The precision policy, in one place.

| what | precision |
|---|---|
| projections, experts, attention, embeddings, the residual stream, keys and values, convolution inputs | the model's |
| `A_log`, `D`, `dt_bias`; the scan, its convolution and its states | fp32 |
| the router: weights, scores, selection bias | fp32 |
| the head: weights, logits, log-probabilities, entropies | fp32 |
| sums inside norms and softmax | fp32 |

Rollout engine and learner share all of it: both run this model. States in bf16 alone cost up to 4 nats in a token's log-probability,
and a router in bf16 sends tokens to other experts than it did during the rollout.
"""

from __future__ import annotations

import torch

from .hybrid import HybridModel

IN_FP32 = ("A_log", "D", "dt_bias", "gate.weight", "e_score_correction_bias", "lm_head.weight")
"""Ends of the names of tensors that are fp32 whatever the model's precision."""


def cast(model: HybridModel, dtype: torch.dtype) -> HybridModel:
    """The model itself, its weights in `dtype` but for those of IN_FP32."""
    fp32 = torch.promote_types(dtype, torch.float32)
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(fp32 if name.endswith(IN_FP32) else dtype)
    return model
