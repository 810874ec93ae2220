"""What a batching engine writes down for each conversation: ids, log-probabilities, routes, how to sample, when to stop.

A conversation keeps its *place* in these arrays while its state moves between rows; a step reads and writes those of the
decoding conversations by one index array.
"""

# Shapes: B conversations of a step, V vocabulary, S ids of a support, E mixture-of-experts layers, K experts of a token.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .budget import BudgetRows, ReasoningTokens
from .engine import GenerationRequest, GenerationResult, StopReason
from .sampling import Warp, uniforms


class Records:
    """Arrays over [places, capacity] or [places]. Memory is touched only as far as conversations reach."""

    def __init__(self, num_places: int, capacity: int, route_shape: tuple[int, int], num_experts: int) -> None:
        shape = (num_places, capacity)
        self.ids = np.zeros(shape, np.int64)
        self.logprobs = np.zeros(shape, np.float32)
        self.forced = np.zeros(shape, bool)
        self.versions = np.zeros(shape, np.int32)
        self.routes = np.zeros((*shape, *route_shape), np.uint8 if num_experts <= 256 else np.uint16)
        self.length = np.zeros(num_places, np.int64)
        self.start = np.zeros(num_places, np.int64)
        """Where the request's own tokens begin."""
        self.routes_start = np.zeros(num_places, np.int64)
        self.end = np.zeros(num_places, np.int64)
        self.temperature = np.ones(num_places, np.float32)
        self.top_k = np.zeros(num_places, np.int64)
        self.top_p = np.ones(num_places, np.float32)
        self.min_end = np.zeros(num_places, np.int64)
        """Stop tokens are held back before this length."""
        self.held: set[int] = set()
        """Places with a min_end."""
        self.seed = np.zeros(num_places, np.uint64)
        self.budget = BudgetRows(num_places)
        self.supports: dict[int, list[np.ndarray]] = {}
        """Of the places that record one: the support of each token so far."""
        self.stop_ids: dict[int, np.ndarray] = {}
        """Of the places whose request brings its own."""
        self.unstopped = np.zeros(num_places, bool)
        """Places that nothing but their length stops."""

    def begin(self, place: int, request: GenerationRequest, ids: np.ndarray, tokens: ReasoningTokens | None) -> None:
        length, capacity = len(ids), self.ids.shape[1]
        self.ids[place, :length] = ids
        self.length[place] = self.start[place] = length
        self.end[place] = min(capacity, length + request.max_new_tokens)
        self.temperature[place] = request.temperature
        self.top_k[place], self.top_p[place] = request.top_k, request.top_p
        self.min_end[place] = length + request.min_new_tokens if request.min_new_tokens else 0
        (self.held.add if request.min_new_tokens else self.held.discard)(place)
        self.seed[place] = np.uint64(request.seed % 2**64)
        self.budget.begin(place, request.reasoning, request.budget, tokens)
        self.supports.pop(place, None)
        self.stop_ids.pop(place, None)
        if not request.full_support:
            self.supports[place] = []
        self.unstopped[place] = request.stop_ids == ()
        if request.stop_ids:
            self.stop_ids[place] = np.array(request.stop_ids, np.int64)

    def uniforms(self, places_B: np.ndarray) -> np.ndarray:
        return uniforms(self.seed[places_B], self.length[places_B] - self.start[places_B])

    def warp(self, places_B: np.ndarray, stop_ids: np.ndarray, logits_BV: Tensor) -> Warp | None:
        """What narrows the distributions of these conversations' next tokens; None where nothing does."""
        device = logits_BV.device
        if not self.supports and not self.held:
            return None
        held_B = self.length[places_B] < self.min_end[places_B]
        banned = None
        if held_B.any():
            banned = torch.zeros(logits_BV.shape, dtype=torch.bool)
            for row in np.flatnonzero(held_B):
                banned[row, torch.from_numpy(self.stop_ids.get(int(places_B[row]), stop_ids))] = True
            banned = banned.to(device)
        top_k, top_p = self.top_k[places_B], self.top_p[places_B]
        if not top_k.any() and (top_p == 1).all():
            return None if banned is None else Warp(banned_BV=banned)
        padded = logits_BV.shape[0] - len(places_B)
        return Warp(
            torch.from_numpy(np.pad(top_k, (0, padded))).to(device),
            torch.from_numpy(np.pad(top_p, (0, padded), constant_values=1)).to(device),
            banned,
        )

    def write(
        self,
        places_B: np.ndarray,
        tokens_B: np.ndarray,
        logprobs_B: np.ndarray,
        forced_B: np.ndarray,
        version: int,
        routes_BEK: np.ndarray,
        support_BS: np.ndarray | None,
    ) -> None:
        """One more token for each conversation, and the routes of the token before it."""
        at_B = self.length[places_B]
        self.ids[places_B, at_B] = tokens_B
        self.logprobs[places_B, at_B] = np.where(forced_B, 0.0, logprobs_B)
        self.forced[places_B, at_B] = forced_B
        self.versions[places_B, at_B] = version
        if routes_BEK.size:
            self.routes[places_B, at_B - 1] = routes_BEK
        self.length[places_B] = at_B + 1
        if self.supports:
            for row, place in enumerate(places_B.tolist()):
                if place in self.supports:
                    found = np.zeros(0, np.int64) if support_BS is None else support_BS[row]
                    self.supports[place].append(tokens_B[row : row + 1] if forced_B[row] else found[found >= 0])

    def stopped(self, places_B: np.ndarray, tokens_B: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """Whether each conversation's newest token ends it; `stops` tells for each token of the vocabulary."""
        stopped_B = stops[tokens_B] & ~self.unstopped[places_B]
        if self.stop_ids:
            for row, place in enumerate(places_B.tolist()):
                if place in self.stop_ids:
                    stopped_B[row] = tokens_B[row] in self.stop_ids[place]
        return stopped_B

    def has_sampled(self, place: int) -> bool:
        """Whether the request of a place has a token yet."""
        return bool(self.length[place] > self.start[place])

    @property
    def num_bytes(self) -> int:
        return sum(array.nbytes for array in vars(self).values() if isinstance(array, np.ndarray))

    def result(self, place: int, request: GenerationRequest, reason: StopReason) -> GenerationResult:
        start, end = int(self.start[place]), int(self.length[place])
        routes_start = int(self.routes_start[place])
        return GenerationResult(
            token_ids=self.ids[place, start:end].tolist(),
            logprobs=self.logprobs[place, start:end].copy(),
            forced=self.forced[place, start:end].copy(),
            policy_versions=self.versions[place, start:end].copy(),
            temperatures=np.full(end - start, self.temperature[place], np.float32),
            support=_padded(self.supports[place]) if place in self.supports else None,
            stop_reason=reason,
            budget_hit=bool(self.budget.hit[place]),
            num_reasoning_tokens=int(self.budget.used[place]),
            routes=self.routes[place, routes_start : end - 1].copy(),
            routes_start=routes_start,
            media=request.media,
        )


def _padded(supports: list[np.ndarray]) -> np.ndarray:
    widest = max((len(ids) for ids in supports), default=0)
    padded = np.full((len(supports), widest), -1, np.int64)
    for row, ids in enumerate(supports):
        padded[row, : len(ids)] = ids
    return padded
