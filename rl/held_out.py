"""The held-out evaluations of a run, before reinforcement and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..policies import make_renderer
from .evaluation import Score, evaluate, evaluation_budget

if TYPE_CHECKING:
    from .controller import Controller


def evaluate_run(run: Controller, when: str) -> None:
    """Sampled and greedy scores on held-out tasks, kept in evaluation-WHEN.json. Done once, also over a resume."""
    name, config = f"evaluation-{when}.json", run.config.evaluation
    if not config.num_tasks or run.folder.read_json(name) is not None:
        return
    with run.timed(f"evaluate_{when}"):
        scores: list[Score] = []
        total = 2 * config.num_tasks * len(run.envs)
        with run.display.phase(f"Held-out, {when}", total) as phase:

            def advance() -> None:
                phase.advance()
                run.heed_signal()

            for temperature in (1.0, 0.0):
                scores += asyncio.run(_scores(run, temperature, advance))
    run.folder.write_json(name, [score.to_dict() for score in scores])


async def _scores(run: Controller, temperature: float, on_episode: Callable[[], None]) -> list[Score]:
    config = run.config
    async with run.engine(config.generation.num_slots) as engine:
        scores, _ = await evaluate(
            run.envs,
            run.pools,
            engine,
            make_renderer(run.policy),
            split=config.evaluation.split,
            num_tasks=config.evaluation.num_tasks,
            temperature=temperature,
            max_new_tokens=config.generation.max_new_tokens,
            budgets={env_id: evaluation_budget(run.admission.budgets(env_id)) for env_id in run.envs},
            grace=config.generation.budget_grace,
            on_episode=on_episode,
        )
    return scores
