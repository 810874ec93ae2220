"""Tasks by number, in three splits that share no prompt: train, validation (for tuning), test (drawn once, at the end).

A task is an environment's seed. Its split is a hash of its prompt, so a task that is held out stays so whatever the run's
seed. Where the prompt does not tell tasks apart (a number to be guessed), splits differ by seed alone.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from ..environments import Env, EnvironmentFault
from ..policies.sampling import stream_seed

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_SHARES = 16
"""One prompt in 16 is validation, one in 16 is test."""


def split_of(env: Env) -> Split | None:
    """The split of the task that `env` was reset to; None where its prompt does not identify it."""
    if not env.prompt_identifies_task:
        return None
    text = "\x1e".join(message.text for message in env.task.messages)
    share = hashlib.blake2b(text.encode(), digest_size=4).digest()[0] % _SHARES
    return "test" if share == 0 else "validation" if share == 1 else "train"


def task_seed(env: Env, env_id: str, split: Split, number: int, run_seed: int) -> int:
    """The seed of the `number`-th task of a split. Validation and test tasks do not depend on the run's seed."""
    for attempt in range(10_000):
        seed = stream_seed(env_id, split, run_seed if split == "train" else 0, number, attempt) % 2**32
        try:
            env.reset(seed=seed)
        except EnvironmentFault:  # this one cannot be made; another can
            continue
        if split_of(env) in (None, split):
            return seed
    raise ValueError(
        f"{env_id} seems to have no {split} tasks: none of 10,000 draws could be made and fell into that split"
    )
