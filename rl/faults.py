"""Named fault points: where a test, or a person who wants to know, makes a run fail on purpose.

    SWANNERY_FAULTS="save.rename:3=kill"             the third time that a checkpoint or another file is put in place
    SWANNERY_FAULTS="*%0.01#7=kill;log.append:2=full"  any point with probability .01 by the seed 7; and a full disk

Nothing costs anything while no plan is set. A plan is seeded, so the same run fails at the same place.
"""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import time
from dataclasses import dataclass, field

POINTS = {
    "save.write": "before a file's bytes are written",
    "save.fsync": "before a file is synced",
    "save.rename": "before a file or folder is put in place",
    "save.replace": "when a folder that is replaced was moved aside, before the new one has its name",
    "save.sync": "before a folder is synced",
    "log.append": "before a step's line is appended to metrics.jsonl",
    "step.begin": "before a step takes its groups",
    "rollout.deliver": "when a group is whole, before it is handed over",
    "learner.gradient": "before an optimizer step, its gradients made",
    "weights.publish": "before the engine is given new weights",
    "step.end": "after a step, before its checkpoint",
}
ACTIONS = ("kill", "stop", "full", "raise", "nan", "late")
_RULE = re.compile(r"(?P<point>[a-z.]+|\*)(:(?P<at>\d+)|%(?P<share>0?\.\d+|1)#(?P<seed>\d+))=(?P<action>[a-z]+)")


class InjectedFault(RuntimeError):
    """What the action `raise` raises."""


@dataclass
class Rule:
    """One action, at the `at`-th time that a point is reached, or each time with a probability."""

    point: str
    action: str
    at: int = 0
    share: float = 0.0
    seed: int = 0
    reached: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def due(self, point: str) -> bool:
        if self.point not in ("*", point):
            return False
        self.reached += 1
        return self.reached == self.at or (self.share > 0 and self.rng.random() < self.share)


class FaultPlan:
    """What is to fail, and when. `met` counts the points that were reached."""

    def __init__(self, text: str) -> None:
        self.rules = [_rule(part.strip()) for part in text.split(";") if part.strip()]
        self.met: dict[str, int] = dict.fromkeys(POINTS, 0)

    def meet(self, point: str) -> str:
        """Do what is due at a point. Returns "nan" where the caller is to spoil its numbers, and nothing otherwise."""
        self.met[point] += 1
        for rule in self.rules:
            if rule.due(point):
                if rule.action == "nan":
                    return "nan"
                _act(rule.action, point)
        return ""


def set_plan(plan: FaultPlan | None) -> None:
    global _plan
    _plan = plan


def fault(point: str) -> str:
    """Say that a point is reached (FaultPlan.meet)."""
    return "" if _plan is None else _plan.meet(point)


def _rule(text: str) -> Rule:
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"a fault is POINT:NUMBER=ACTION or POINT%SHARE#SEED=ACTION, got {text!r}")
    point, action = found["point"], found["action"]
    if point != "*" and point not in POINTS:
        raise ValueError(f"no fault point named {point!r}; there are {', '.join(POINTS)}")
    if action not in ACTIONS:
        raise ValueError(f"no fault named {action!r}; there are {', '.join(ACTIONS)}")
    return Rule(point, action, int(found["at"] or 0), float(found["share"] or 0), int(found["seed"] or 0))


def _act(action: str, point: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "full":
        raise OSError(errno.ENOSPC, f"injected at {point}")
    elif action == "late":
        time.sleep(0.05)
    else:
        raise InjectedFault(point)


_plan: FaultPlan | None = FaultPlan(os.environ["SWANNERY_FAULTS"]) if os.environ.get("SWANNERY_FAULTS") else None
