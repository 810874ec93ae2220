"""A policy before a learner: what is trained of it, what a checkpoint holds of it, what it is afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import lora
from .folder import Policy, policy_files
from .transformers_policy import TransformersPolicy, transformers_files

if TYPE_CHECKING:
    from .trainable import Trainable


def trainable(policy: Policy | TransformersPolicy) -> Trainable:
    """The model as a learner takes it. It shares the policy's weights."""
    if isinstance(policy, Policy):
        return policy.model
    from .packed_transformer import PackedTransformer

    return PackedTransformer(policy.model)


def finished_files(policy: Policy | TransformersPolicy) -> dict[str, bytes]:
    """A policy folder by file name: a whole model, LoRA merged."""
    return policy_files(policy) if isinstance(policy, Policy) else transformers_files(policy)


def checkpoint_files(policy: Policy | TransformersPolicy, base: str = "") -> dict[str, bytes]:
    """What `open_policy` makes the policy of again, to the bit: with LoRA the adapter alone, which stands beside the folder `base`."""
    if isinstance(policy, TransformersPolicy) and lora.lora_of(policy.model):
        return lora.adapter_files(policy.model, base)
    return finished_files(policy)
