"""A Responder from an engine and a renderer: how a policy plays a simulated user or a judge."""

from __future__ import annotations

from collections.abc import Sequence

from ..messages import Limits, Message, ToolSchema
from .engine import Engine, GenerationRequest, ReasoningBudget
from .rendering import Renderer
from .sampling import stream_seed


class EngineResponder:
    """Answers a conversation with one completion. The same conversation and seed give the same answer.

    Give it an engine of its own, or an asynchronous one: a synchronous engine moves only when all of its sessions wait,
    and the session whose environment asks here does not.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        *,
        max_new_tokens: int = 256,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.engine, self.renderer = engine, renderer
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed

    async def __call__(
        self, messages: Sequence[Message], tools: Sequence[ToolSchema] = (), limits: Limits | None = None
    ) -> Message:
        thinks = self.renderer.think_end_id is not None
        budget = limits.reasoning_budgets[0] if limits and thinks else None
        ids = self.renderer.open(messages, tools, reasoning=budget != 0)
        session = self.engine.session()
        try:
            result = await session.generate(
                GenerationRequest(
                    token_ids=ids,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self.temperature,
                    seed=stream_seed(self.seed, ids),
                    reasoning=budget != 0,
                    budget=ReasoningBudget(limit=budget) if budget else None,
                )
            )
        finally:
            session.close()
        return self.renderer.parse(result.token_ids, reasoning=budget != 0).message
