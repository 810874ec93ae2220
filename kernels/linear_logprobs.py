"""Linear layer -> log-probability of the chosen token and entropy, without keeping the logits.

Two passes (`linear_logprobs`): the forward streams tiles of rows x vocabulary through the cache and keeps each row's log-sum-exp
(https://arxiv.org/abs/1805.02867); the backward makes each tile once more. Memory is a tile, at 8 N d V FLOPs instead of 6.

One pass (`weighted_logprobs`): where the gradient's coefficient of each token is known beforehand (cross-entropy, a policy gradient
at ratio 1), a few rows' whole logits give value and gradient at once, and nothing is made twice.

Tokens that do not count are left out of both. The temperature is each token's own.
"""

# Shapes: N tokens, d model, V vocabulary, S ids of the widest support, R rows of a tile, U vocabulary entries of a tile.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from . import external
from .backend import uses_external, uses_triton
from .linear import times

_TILE = 1 << 19
"""Numbers of a tile of the two-pass form: 2 MB, so that what is done to it after the product stays in a core's cache."""
_ROWS = 1 << 22
"""Numbers of the rows that the one-pass form holds: 16 MB."""
_NEVER = -1e30
"""The logit of what lies outside of a support. Finite, so that a tile of nothing else has no NaN."""


def linear_logprobs_ref(
    x_Nd: Tensor, weight_Vd: Tensor, targets_N: Tensor, temperature_N: Tensor, support_NS: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log p(target) [N] and entropy [N] through the full logits. With a support (ids, -1 behind them; a row of -1 keeps all)
    the probabilities are those within it."""
    logits_NV = (x_Nd @ weight_Vd.T) / temperature_N.unsqueeze(1)
    if support_NS is not None:
        logits_NV = logits_NV.masked_fill(_dropped(support_NS, weight_Vd.shape[0]), float("-inf"))
    logprobs_NV = logits_NV.log_softmax(-1)
    entropy_N = -torch.where(logprobs_NV > float("-inf"), logprobs_NV.exp() * logprobs_NV, 0).sum(-1)
    return logprobs_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1), entropy_N


def linear_logprobs(
    x_Nd: Tensor,
    weight_Vd: Tensor,
    targets_N: Tensor,
    temperature_N: Tensor,
    support_NS: Tensor | None = None,
    *,
    counted_N: Tensor | None = None,
    tile: int = _TILE,
) -> tuple[Tensor, Tensor]:
    """`linear_logprobs_ref` in two passes of tiles. The entropy carries no gradient: it is a metric. Where `counted_N` is False
    both are 0, and nothing is computed."""
    if counted_N is not None:
        kept = counted_N.nonzero().squeeze(1)
        rows = (t.index_select(0, kept) for t in (x_Nd, targets_N, temperature_N))
        x, targets, temperature = rows
        support = None if support_NS is None else support_NS.index_select(0, kept)
        found = linear_logprobs(x, weight_Vd, targets, temperature, support, tile=tile)
        return tuple(t.new_zeros(len(x_Nd)).index_put((kept,), t) for t in found)  # type: ignore[return-value]
    if support_NS is None and uses_external("linear_logprobs", x_Nd):
        return external.linear_logprobs(x_Nd, weight_Vd, targets_N, temperature_N)
    if _takes_triton(x_Nd, weight_Vd, support_NS):
        from .linear_logprobs_triton import linear_logprobs_triton

        return linear_logprobs_triton(x_Nd, weight_Vd, targets_N, temperature_N)
    return _LinearLogprobs.apply(x_Nd, weight_Vd, targets_N, temperature_N, support_NS, tile)  # type: ignore[no-any-return]


def weighted_logprobs(
    x_Nd: Tensor,
    weight_Vd: Tensor,
    targets_N: Tensor,
    temperature_N: Tensor,
    coefficients_N: Tensor,
    support_NS: Tensor | None = None,
    *,
    rows: int = _ROWS,
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_n coefficient_n log p_n, which has a gradient, and beside it the log-probabilities and entropies [N], which have none. One
    pass; tokens of coefficient 0 are left out, and theirs are 0."""
    kept = coefficients_N.nonzero().squeeze(1)
    x, targets, temperature, coefficients = (
        t.index_select(0, kept) for t in (x_Nd, targets_N, temperature_N, coefficients_N)
    )
    support = None if support_NS is None else support_NS.index_select(0, kept)
    found: Sequence[Tensor]
    if _takes_triton(x, weight_Vd, support):
        # Whole rows of logits would save a quarter of the products, and cost more: the weights' gradient, added to by each few rows.
        from .linear_logprobs_triton import linear_logprobs_triton

        logprobs, entropy = linear_logprobs_triton(x, weight_Vd, targets, temperature)
        value, found = (coefficients * logprobs).sum(), (logprobs.detach(), entropy)
    else:
        value, *found = _WeightedLogprobs.apply(x, weight_Vd, targets, temperature, coefficients, support, rows)
    logprobs_N, entropy_N = (t.new_zeros(len(x_Nd)).index_put((kept,), t) for t in found)
    return value, logprobs_N, entropy_N


def _takes_triton(x: Tensor, weight: Tensor, support: Tensor | None) -> bool:
    """Either may be of the wider type: what comes out is fp32."""
    return support is None and uses_triton(x) and uses_triton(weight)


def _dropped(support_NS: Tensor, vocab_size: int) -> Tensor:
    """[N, V]: what lies outside of each row's support."""
    dropped = torch.ones(support_NS.shape[0], vocab_size + 1, dtype=torch.bool, device=support_NS.device)
    dropped.scatter_(1, support_NS + 1, False)  # -1 goes to a column of its own
    dropped = dropped[:, 1:]
    return dropped & (support_NS >= 0).any(1, keepdim=True)


class _Head:
    """A linear head and its rows, cut into tiles. Logits are fp32 at least, and a row's temperature is in the row."""

    def __init__(self, x_Nd: Tensor, weight_Vd: Tensor, temperature_N: Tensor, support_NS: Tensor | None) -> None:
        self.precise = torch.promote_types(x_Nd.dtype, torch.float32)
        self.x, self.weight, self.temperature, self.support = x_Nd, weight_Vd, temperature_N, support_NS

    def row_blocks(self, size: int) -> Iterator[slice]:
        size = max(size, 1)
        return (slice(start, start + size) for start in range(0, len(self.x), size))

    def rows(self, block: slice) -> tuple[Tensor, Tensor | None]:
        """Rows divided by their temperatures, and what their supports drop."""
        scaled = self.x[block].to(self.precise) / self.temperature[block].unsqueeze(1)
        return scaled, None if self.support is None else _dropped(self.support[block], len(self.weight))

    def tiles(self, width: int) -> Iterator[tuple[slice, Tensor]]:
        width = max(width, 1)
        for start in range(0, len(self.weight), width):
            columns = slice(start, start + width)
            yield columns, self.weight[columns].to(self.precise)


def _tile_shape(tile: int, num_rows: int, vocab_size: int) -> tuple[int, int]:
    """Rows and width of a tile: whole rows where a useful number of them fits, else about twice as wide as high."""
    if tile // vocab_size >= min(64, num_rows):
        return tile // vocab_size, vocab_size
    height = max(int((tile / 2) ** 0.5), 1)
    return height, max(tile // height, 1)


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, temperature: Tensor, support: Tensor | None, tile: int
    ) -> tuple[Tensor, Tensor]:
        head = _Head(x, weight, temperature, support)
        height, width = _tile_shape(tile, len(x), len(weight))
        logprobs, entropy, lse = (x.new_empty(len(x), dtype=head.precise) for _ in range(3))
        for block in head.row_blocks(height):
            rows, dropped = head.rows(block)
            largest = rows.new_full((len(rows),), _NEVER)
            mass, moment = rows.new_zeros(2, len(rows))  # sums of exp(l - largest), and of these times l - largest
            chosen = torch.empty_like(largest)
            for columns, part in head.tiles(width):
                logits = times(rows, part.T.contiguous())
                if dropped is not None:
                    logits.masked_fill_(dropped[:, columns], _NEVER)
                place = targets[block] - columns.start
                here = (place >= 0) & (place < logits.shape[1])
                found = logits.gather(1, place.clamp(0, logits.shape[1] - 1).unsqueeze(1)).squeeze(1)
                chosen = torch.where(here, found, chosen)
                larger = torch.maximum(largest, logits.amax(1))
                shrink = (largest - larger).exp_()
                moment = shrink * (moment + mass * (largest - larger))
                weights = logits.sub_(larger.unsqueeze(1)).exp()
                mass = mass * shrink + weights.sum(1)
                moment += torch.linalg.vecdot(weights, logits)
                largest = larger
            lse[block] = largest + mass.log()
            entropy[block] = mass.log() - moment / mass
            logprobs[block] = chosen - lse[block]
        ctx.save_for_backward(x, weight, targets, temperature, lse, support)
        ctx.tile = tile
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, targets, temperature, lse, support = ctx.saved_tensors
        head = _Head(x, weight, temperature, support)
        height, width = _tile_shape(ctx.tile, len(x), len(weight))
        grad_x = torch.empty_like(x)
        grad_weight = torch.zeros_like(weight, dtype=head.precise)
        for block in head.row_blocks(height):
            rows, dropped = head.rows(block)
            weighted = rows * -grad[block].unsqueeze(1)  # d log p / d logits = onehot - p
            mean = torch.zeros_like(rows)
            for columns, part in head.tiles(width):
                probs = times(rows, part.T.contiguous()).sub_(lse[block].unsqueeze(1)).exp_()
                if dropped is not None:
                    probs.masked_fill_(dropped[:, columns], 0.0)
                times(probs, part, mean, add=True)
                times(probs.T, weighted, grad_weight[columns], add=True)
            _finish(block, mean, weighted, grad_x, grad_weight, head, targets, grad)
        return grad_x, grad_weight.to(weight.dtype), None, None, None, None


class _WeightedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: Tensor,
        coefficients: Tensor,
        support: Tensor | None,
        num_held: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = _Head(x, weight, temperature, support)
        logprobs, entropy = (x.new_empty(len(x), dtype=head.precise) for _ in range(2))
        wanted = any(ctx.needs_input_grad)
        grad_x = torch.empty_like(x) if wanted else None
        grad_weight = torch.zeros_like(weight, dtype=head.precise) if wanted else None
        part = weight.to(head.precise)
        part_dV = part.T.contiguous()
        for block in head.row_blocks(num_held // len(weight)):
            rows, dropped = head.rows(block)
            logits = times(rows, part_dV)
            if dropped is not None:
                logits.masked_fill_(dropped, _NEVER)
            chosen = logits.gather(1, targets[block].unsqueeze(1)).squeeze(1)
            largest = logits.amax(1)
            weights = logits.sub_(largest.unsqueeze(1)).exp()
            mass = weights.sum(1)
            logprobs[block] = chosen - largest - mass.log()
            entropy[block] = mass.log() - torch.linalg.vecdot(weights, logits) / mass
            if grad_x is not None and grad_weight is not None:
                weighted = rows * -coefficients[block].unsqueeze(1)
                mean = times(weights, part).div_(mass.unsqueeze(1))
                times(weights.T, weighted / mass.unsqueeze(1), grad_weight, add=True)
                _finish(block, mean, weighted, grad_x, grad_weight, head, targets, coefficients)
        ctx.save_for_backward(grad_x, None if grad_weight is None else grad_weight.to(weight.dtype))
        ctx.mark_non_differentiable(logprobs, entropy)
        return (coefficients * logprobs).sum(), logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_x, grad_weight = ctx.saved_tensors
        return grad_x * grad, grad_weight * grad, None, None, None, None, None


def _finish(
    block: slice,
    mean: Tensor,
    weighted: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    head: _Head,
    targets: Tensor,
    coefficients: Tensor,
) -> None:
    """The gradient of a block's rows, and what the chosen tokens add to that of the weights. `mean` is what the rows expect of
    the weights."""
    chosen = head.weight.index_select(0, targets[block]).to(head.precise)
    scale = (coefficients[block] / head.temperature[block]).unsqueeze(1)
    grad_x[block] = (chosen - mean).mul_(scale).to(grad_x.dtype)
    grad_weight.index_add_(0, targets[block], weighted, alpha=-1)
