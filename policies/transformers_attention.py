"""Our attention inside transformers' models: of a paged cache when one is served, of a packed forest when one is trained.

A model runs unchanged but for its attention function, which asks who is calling: an engine's decoder, a learner's forward pass, or
nobody, and then it is transformers' SDPA.
"""

# Shapes: N tokens of a row, H query heads, J key-value heads, D head size.

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

ATTENTION = "swannery"
Attend = Callable[[Any, Tensor, Tensor, Tensor, float | None], Tensor]
"""Of a module, q [1, H, N, D], k and v [1, J, N, D], and a scale: what each token took, [1, N, H, D]."""
_attend: ContextVar[Attend | None] = ContextVar("attend", default=None)


class Unserved(ValueError):
    """A model that cannot be served or trained exactly, with why and what can."""


@contextmanager
def attending(attend: Attend) -> Iterator[None]:
    """Within, models prepared by `use_our_attention` attend by `attend`."""
    token = _attend.set(attend)
    try:
        yield
    finally:
        _attend.reset(token)


def use_our_attention(model: Any) -> None:
    """Let a model of the transformers library attend by ours. Raises Unserved where its attention is not plain."""
    check_served(model)
    _register()
    model.set_attn_implementation(ATTENTION)


def attention_layers(model: Any) -> list[Any]:
    """The modules that call an attention function, in their order."""
    found = [m for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int) and hasattr(m, "k_proj")]
    return sorted(found, key=lambda module: module.layer_idx)


def kv_shape(attention: nn.Module, config: Any) -> tuple[int, int]:
    """Key-value heads and head size of one attention module."""
    D = getattr(attention, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return attention.k_proj.out_features // D, D  # type: ignore[union-attr, operator, return-value]


def check_served(model: Any) -> None:
    """Unserved where pages of keys and values do not hold the whole state, or attention is not plain."""
    config = model.config.get_text_config()
    kind = config.model_type
    if kind == "nemotron_h":
        raise Unserved("nemotron_h has recurrent layers: NativeEngine serves it")
    if len(attention_layers(model)) != config.num_hidden_layers:
        raise Unserved(f"{kind}: not every layer is attention with a k_proj; only such models can be served from pages")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds or (getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)):
        raise Unserved(f"{kind} has {' and '.join(sorted(kinds)) or 'sliding-window attention'}: pages are not freed behind "
                       "a window yet, so only full attention is served")  # fmt: skip
    if getattr(config, "attn_logit_softcapping", None):
        raise Unserved(f"{kind} caps its attention scores, which paged attention does not")


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(
        module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float | None = None, **rest: Any
    ) -> Any:
        ours = _attend.get()
        if ours is None:
            return plain(module, q, k, v, mask, scaling=scaling, **rest)
        if odd := [name for name in ("softcap", "s_aux", "sliding_window") if rest.get(name) is not None]:
            raise Unserved(f"this model's attention has {odd[0]}, which ours does not")
        return ours(module, q, k, v, scaling), None

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
