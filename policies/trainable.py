"""What a learner needs of a model, whatever it is made of: hidden states of packed tokens, and log-probabilities from them."""

# Shapes: N packed tokens, d model, E mixture-of-experts layers, K experts of a token, S ids of a support.

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from ..kernels.packing import Packing
from .balance import ExpertLoads


class Trainable(Protocol):
    """HybridModel and PackedTransformer are. Beside what stands here they are a torch module."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def head(self) -> Tensor:
        """The output embeddings [V, d]."""
        ...

    def plan(self, lengths: Sequence[int], parents: Sequence[int]) -> Packing:
        """The index plan of packed segments, as its layers want it."""
        ...

    def __call__(
        self,
        ids_N: Tensor,
        packing: Packing,
        *,
        routes_NEK: Tensor | None = None,
        scores: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Hidden states before the head [N, d], and the routes taken [N, E, K]."""
        ...

    def logprobs(
        self, hidden_Nd: Tensor, targets_N: Tensor, temperature_N: Tensor, support_NS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and the entropy of its distribution, without keeping the logits."""
        ...

    def weighted_logprobs(
        self,
        hidden_Nd: Tensor,
        targets_N: Tensor,
        temperature_N: Tensor,
        coefficients_N: Tensor,
        support_NS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """sum_n coefficient_n log p_n in one pass, and beside it log-probabilities and entropies, which have no gradient."""
        ...

    def routers(self) -> list[Any]:
        """Its mixture-of-experts layers."""
        ...

    def loads(self) -> ExpertLoads:
        """A count of what its experts were given, still empty."""
        ...

    def balance(self, loads: ExpertLoads, rate: float) -> None:
        """Move the routers' selection biases towards even loads."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, weights: Mapping[str, Tensor], /) -> Any: ...


def frozen_copy(model: Trainable) -> Trainable:
    """The model as it is now, for comparisons."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied
