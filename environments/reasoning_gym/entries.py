"""The one door to the reasoning-gym package: making items and grading answers, in this process or in a worker."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..guess import nearest
from .names import EXCLUDED, GENERATED, LEFT_OUT, NAMES, RESEEDED, UNREADABLE

try:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS
except ModuleNotFoundError as error:
    if error.name != "reasoning_gym":
        raise
    raise ModuleNotFoundError(
        "reasoning_gym/... environments need reasoning-gym. Install it: pip install 'swannery[reasoning]'",
        name="reasoning_gym",
    ) from None

NUM_ITEMS = 2**31
Entry = dict[str, Any]
_loaded: dict[tuple[str, str], Any] = {}
_OUTSIDE = re.compile(r"urandom|secrets\.|uuid|\bnow\(|today\(|time\.time|\bid\(|\bopen\(|socket|subprocess")
"""What the program texts of codeio must not hold: clocks, entropy, files and the network. About 3 % do."""


def check(name: str, options: Mapping[str, Any]) -> None:
    """A ValueError with the nearest guess for an unknown data set or option, or with what is wrong with a value."""
    if name in EXCLUDED:
        raise ValueError(f"reasoning-gym's {name!r} is no environment: {EXCLUDED[name]}")
    if name not in NAMES:
        raise ValueError(f"no reasoning-gym data set named {name!r}. {nearest(name, NAMES)}")
    known = {field.name for field in dataclasses.fields(DATASETS[name][1])} - {"seed", "size"}
    for option in options:
        if option in ("seed", "size"):
            raise ValueError(f"reasoning_gym/{name}: {option} is not an option; the seed of reset() draws the task")
        if option not in known:
            raise ValueError(f"reasoning_gym/{name} has no option {option!r}. {nearest(option, known)}")
    try:
        _load(name, options)
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"reasoning_gym/{name} refuses the options {dict(options)}: {error}") from error


def make_entry(name: str, options: Mapping[str, Any], index: int) -> Entry:
    """The item at `index`, the same in every process."""
    if name in GENERATED:
        random.seed(index)
        np.random.seed(index)
    if name in RESEEDED:
        entry = reasoning_gym.create_dataset(name, seed=index, size=1, **options)[0]
    else:
        dataset = _load(name, options)
        if name == "codeio":
            type(dataset)._jsonl_data = dataset.texts  # reasoning-gym keeps them on the class, whatever the options
        entry = dataset[index]
    for key in LEFT_OUT.get(name, ()):
        entry["metadata"].pop(key, None)
    return entry


def score(name: str, options: Mapping[str, Any], answer: str, entry: Mapping[str, Any]) -> float:
    """The data set's score of an answer, from 0 to 1."""
    entry = {**entry, "metadata": dict(entry["metadata"])}  # knight_swap's grader writes into it
    try:
        value = float(_load(name, options).score_answer(answer, entry))
    except UNREADABLE.get(name, ()):
        return 0.0
    if not 0 <= value <= 1:
        raise ValueError(f"the grader of {name} gave {value}, which is not from 0 to 1")
    return value


def _load(name: str, options: Mapping[str, Any]) -> Any:
    """The data set, made once in a process: some read large files."""
    key = (name, repr(sorted(options.items())))
    if key not in _loaded:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # arc_agi leaves its file to the garbage collector
            dataset = reasoning_gym.create_dataset(name, seed=0, size=1, **options)
        dataset.size = NUM_ITEMS  # what an index is checked against; items are made when asked for
        if name == "codeio":
            dataset.texts = [text for text in type(dataset)._jsonl_data if not _OUTSIDE.search(json.dumps(text))]  # type: ignore[attr-defined]
        _loaded[key] = dataset
    return _loaded[key]
