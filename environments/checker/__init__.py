"""The checker: what Gymnasium's own does, and what makes an environment for language models worth training on.

    check_env("family/Name-v0") -> findings            swannery check ID [--all] [--json]

Determinism across processes, hash seeds and interleavings; isolation of episodes; an oracle at the maximum and everyone who
knows nothing at the floor; no leaks; graders that are pure; snapshots that hold; faults that surface; nothing left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ...messages import EnvironmentFault
from ..env import Env
from ..registry import find, ids_of
from . import contract, determinism, running, scoring, travel
from .findings import CURES, Finding
from .subject import Subject

TOO_SLOW = {"reset.slow", "step.slow", "tool.timeout"}
"""Found first; the rest would take an hour and is left until this is mended."""
CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    contract.declarations,
    contract.gymnasium_checker,
    contract.vector,
    contract.space_json,
    contract.levels,
    contract.tasks,
    contract.swallowed,
    determinism.seeded,
    determinism.graded_twice,
    determinism.after_others,
    determinism.interleaved,
    scoring.oracle,
    scoring.values,
    scoring.floors,
    scoring.leaks,
    travel.snapshots,
    travel.replay,
    travel.writes,
    running.blocks_loop,
    running.teardown,
)


def check_env(target: str | type[Env] | Env, *, levels: bool = True, **options: Any) -> list[Finding]:
    """All findings of an environment: an id, a registered class, or an instance (made anew by its id)."""
    return check_all([_id_of(target)], options, levels=levels)


def check_all(
    env_ids: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    levels: bool = True,
    on_subject: Callable[[str], None] = lambda name: None,
) -> list[Finding]:
    """The findings of several environments; the processes of the process check are shared."""
    if determinism.in_probe():  # a script that checks as it is imported: the checker is importing it
        return []
    findings: list[Finding] = []
    sound: list[Subject] = []
    for env_id in env_ids:
        for subject in _subjects(env_id, dict(options or {}), levels, findings):
            on_subject(subject.name)
            found = _checked(subject)
            findings += found
            if not any(finding.rule in TOO_SLOW for finding in found):
                sound.append(subject)
    findings += _in_other_processes(sound)
    return findings


def _subjects(env_id: str, options: dict[str, Any], levels: bool, findings: list[Finding]) -> Iterator[Subject]:
    """An id, and each of its levels. One that cannot be made or reset at all is a finding by itself."""
    subject = Subject(env_id, options)
    if problem := _unplayable(subject):
        findings.append(problem)
        return
    yield subject
    chosen = subject.cls.levels if levels and "level" not in options else ()
    for level in [*chosen][1:]:
        at_level = Subject(env_id, {**options, "level": level})
        if _unplayable(at_level) is None:  # contract.levels tells
            yield at_level


def _unplayable(subject: Subject) -> Finding | None:
    try:
        env = subject.make()
    except (TypeError, ValueError) as error:
        return subject.finding("declaration", str(error))
    try:
        env.reset(seed=0)
    except (EnvironmentFault, NotImplementedError) as fault:
        return subject.finding("reset.crash", str(fault))
    finally:
        env.close()
    return None


def _checked(subject: Subject) -> list[Finding]:
    found = list(running.cost(subject))
    if any(finding.rule in TOO_SLOW for finding in found):
        return found
    for check in CHECKS:
        if check is contract.levels and "level" in subject.options:
            continue
        try:
            found += check(subject)
        except Exception as error:  # a check must not hide what the others find
            found.append(subject.finding("step.crash", f"{check.__name__}: {error!r}"))
    return found


def _in_other_processes(subjects: Sequence[Subject]) -> list[Finding]:
    return determinism.in_other_processes(subjects) if subjects else []


def _id_of(target: Any) -> str:
    if isinstance(target, str):
        find(target)
        return target
    if isinstance(target, Env):
        if target.spec is None:
            raise ValueError("check_env takes a registered id: this environment was not made by one")
        return target.spec.id
    for env_id in ids_of(target):
        return env_id
    raise ValueError(f"check_env takes a registered id or class, got {target!r}: decorate it with @register first")


__all__ = ["CURES", "Finding", "check_all", "check_env"]
