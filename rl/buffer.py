"""Groups under way, and groups that wait to be trained: what makes one loop synchronous or asynchronous.

    lookahead 0    a step's prompts are admitted when the step begins, and all of them are waited for
    lookahead n    prompts of the next n steps are admitted besides, and begin when the engine has slots for them

A group that began under the weights v is trained by the step that makes v + n + 1 at the latest: a step waits until what it leaves can
still be trained in time, and otherwise takes the oldest that are whole. So slow rollouts are late and never lost, nothing is discarded,
and what is trained has the lengths of what was sampled. A group is one unit: its rollouts begin, are waited for and are trained together.

Just before new weights come no group begins: a moment later it would have a whole step more until it is due, and the few that turn out long
are what steps wait for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from .admission import Prompt
from .trajectory import Group

Play = Callable[[Prompt], Awaitable[Group]]
HELD_SHARE = 0.06
"""The last share of a step in which no group begins. Slots lie idle for it and steps wait less; in benchmarks/scheduler.py 0.03 to 0.1
win more than they cost."""


@dataclass(frozen=True)
class Trained:
    """A group that a step takes, and how many versions older than the step's weights those are that it began under."""

    prompt: Prompt
    group: Group
    lag: int


class GroupBuffer:
    """Rolls groups out, at most `room` at once. `pending` is what a snapshot must hold of it: what was admitted and not trained."""

    def __init__(
        self, play: Play, *, lookahead: int, room: int, version: int = 0, step_size: int | None = None
    ) -> None:
        """With `step_size` no more groups are begun than steps of that many can train in time. Only a run that goes on with smaller steps
        or less lookahead than it had admitted prompts for has more; the rest of them wait in the queue."""
        self.play, self.lookahead, self.room, self._version, self.step_size = play, lookahead, room, version, step_size
        self.queue: deque[Prompt] = deque()
        self.running: dict[Prompt, asyncio.Task[Group]] = {}
        self.whole: dict[Prompt, asyncio.Task[Group]] = {}
        self.began: dict[Prompt, int] = {}
        """The version of the weights that each started group began under."""
        self._step_began: float | None = None
        """When the step that trains now took its groups."""
        self._step_s: float | None = None
        """How long the last step trained."""

    @property
    def version(self) -> int:
        """Of the engine's weights. New ones end the step that trained."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        if self._step_began is not None:
            self._step_s = asyncio.get_running_loop().time() - self._step_began
            self._step_began = None
            self._start()

    def admit(self, prompts: Iterable[Prompt]) -> None:
        """Take prompts on. One that is on its way already is not begun again: admitted twice, it is trained once."""
        known = {*self.queue, *self.running, *self.whole}
        self.queue.extend(prompt for prompt in dict.fromkeys(prompts) if prompt not in known)
        self._start()

    @property
    def pending(self) -> list[Prompt]:
        """What was admitted and not trained, oldest first."""
        return sorted([*self.running, *self.whole, *self.queue], key=lambda prompt: (prompt.step, prompt.number))

    async def take(self, count: int) -> list[Trained]:
        """The groups of one training step: the oldest that are whole, once all that is left can still be trained in time. Whatever a
        rollout raised is raised here."""
        while True:
            chosen = sorted(self.whole, key=lambda p: (self.began[p], p.step, p.number))[:count]
            enough = len(chosen) >= min(count, len(self.whole) + len(self.running))
            if not self.running or (enough and self._in_time(set(chosen), count)):
                self._step_began = asyncio.get_running_loop().time()
                return [
                    Trained(prompt, self.whole.pop(prompt).result(), self.version - self.began.pop(prompt))
                    for prompt in chosen
                ]
            await asyncio.wait(self.running.values(), return_when=asyncio.FIRST_COMPLETED)
            self._start()

    def _in_time(self, chosen: set[Prompt], count: int) -> bool:
        """Whether without `chosen` no more is due at any later step than the steps to then can train."""
        due = [began + self.lookahead for prompt, began in self.began.items() if prompt not in chosen]
        return all(
            sum(last <= self.version + ahead for last in due) <= ahead * count for ahead in range(self.lookahead + 1)
        )

    def _start(self) -> None:
        """Put aside the groups that are whole, and begin others in their place."""
        for prompt in [prompt for prompt, task in self.running.items() if task.done()]:
            task = self.running.pop(prompt)
            task.result()
            self.whole[prompt] = task
        while self.queue and self._has_room() and not self._holds_back():
            prompt = self.queue.popleft()
            self.began[prompt] = self.version
            self.running[prompt] = asyncio.ensure_future(self._played(prompt))

    def _has_room(self) -> bool:
        steps = self.lookahead + (self._step_began is None)  # the present one has its groups, once it trains
        begun = len(self.running) + len(self.whole)
        return len(self.running) < self.room and (self.step_size is None or begun < steps * self.step_size)

    def _holds_back(self) -> bool:
        """Whether new weights are about to come, by how long the last step took."""
        if not self.lookahead or self._step_began is None or self._step_s is None:
            return False
        trained_s = asyncio.get_running_loop().time() - self._step_began
        return (
            (1 - HELD_SHARE) * self._step_s < trained_s < 2 * self._step_s
        )  # a step that is late is no longer waited for

    async def _played(self, prompt: Prompt) -> Group:
        group = await self.play(prompt)
        asyncio.get_running_loop().call_soon(self._refill)
        return group

    def _refill(self) -> None:
        """While a learner works nobody takes groups, and the engine's slots must not wait for it."""
        if any(task.done() and not task.cancelled() and task.exception() for task in self.running.values()):
            return  # the next `take` raises it
        self._start()

    async def close(self) -> None:
        """Stop what is under way."""
        self.queue.clear()
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)
