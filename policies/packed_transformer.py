"""PackedTransformer: a causal LM of the transformers library over packed forests, so that it is trained as HybridModel is.

Its layers run unchanged on one row of tokens whose positions are those on their paths; attention sees each token's path alone
(kernels/attention.py), so a group's prompt is computed once. The head is ours: log-probabilities without logits in memory.
"""

# Shapes: N packed tokens, d model, H query heads, D head size, V vocabulary.

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..kernels.attention import packed_attention
from ..kernels.linear_logprobs import linear_logprobs, weighted_logprobs
from ..kernels.packing import Packing
from .balance import ExpertLoads
from .layers import Linear
from .transformers_attention import Unserved, attending, use_our_attention


class PackedTransformer(nn.Module):
    """A model of plain attention for the learner. It shares the weights: what is trained is what is served. Against transformers' own
    forward pass it agrees to 1e-4 in fp32. Raises Unserved for models that are not plain attention, or whose head is no plain product."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        use_our_attention(model)
        config, head = model.config.get_text_config(), model.get_output_embeddings()
        changed = [
            name
            for name in ("final_logit_softcapping", "logits_scaling", "logit_scale")
            if getattr(config, name, None) not in (None, 1, 1.0)
        ]
        if head is None or head.bias is not None or changed:
            raise Unserved(f"{config.model_type}: its logits are no plain product with a head ({changed or 'a bias'})")
        self.model = model
        for module in model.modules():
            if type(module) is nn.Linear and module.bias is None:
                module.__class__ = Linear

    @property
    def hidden_size(self) -> int:
        return self.head.shape[1]

    @property
    def head(self) -> Tensor:
        return self.model.get_output_embeddings().weight

    def plan(self, lengths: Sequence[int], parents: Sequence[int]) -> Packing:
        return Packing.build(lengths, parents)

    def forward(
        self,
        ids_N: Tensor,
        packing: Packing,
        *,
        routes_NEK: Tensor | None = None,
        scores: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        with attending(partial(_attend, packing)):
            out = self.model.get_decoder()(
                input_ids=ids_N[None],
                position_ids=packing.positions_N[None],
                attention_mask=ids_N.new_zeros(1, 1, 1, 1),  # four dimensions: taken as it is, so none is made
                use_cache=False,
            )
        return out.last_hidden_state[0], ids_N.new_zeros(len(ids_N), 0, 0)

    def logprobs(
        self, hidden_Nd: Tensor, targets_N: Tensor, temperature_N: Tensor, support_NS: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return linear_logprobs(hidden_Nd, self.head, targets_N, temperature_N, support_NS)

    def weighted_logprobs(
        self,
        hidden_Nd: Tensor,
        targets_N: Tensor,
        temperature_N: Tensor,
        coefficients_N: Tensor,
        support_NS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return weighted_logprobs(hidden_Nd, self.head, targets_N, temperature_N, coefficients_N, support_NS)

    def routers(self) -> list[Any]:
        return []

    def loads(self) -> ExpertLoads:
        return ExpertLoads(0, 1)

    def balance(self, loads: ExpertLoads, rate: float) -> None:
        """It has no routers."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The model's own names."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.model.load_state_dict(*args, **kwargs)


def _attend(packing: Packing, module: Any, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    q_NHD, k_NJD, v_NJD = (t[0].transpose(0, 1) for t in (q, k, v))
    H, D = q_NHD.shape[1:]
    if scale is not None and scale != D**-0.5:
        q_NHD = q_NHD * (scale * D**0.5)
    return packed_attention(q_NHD, k_NJD, v_NJD, packing).view(1, -1, H, D)
