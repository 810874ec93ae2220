"""Is an episode a function of its seed and its turns: again, after others, beside others, in another process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..env import Env
from . import players
from .findings import Finding
from .players import Played, Player
from .subject import Subject

HASH_SEEDS = ("1", "4242")
_PROBE_TIMEOUT_S = 600.0
_IN_PROBE = "SWANNERY_CHECKER_PROBE"


def explorers(subject: Subject) -> list[Player]:
    """Who plays where episodes are compared: chance and the oracle; in slow single-turn environments one is enough."""
    if not subject.has_oracle:
        return [players.random]
    return [players.oracle] if subject.is_slow and not subject.cls.tools else [players.random, players.oracle]


def seeded(subject: Subject) -> Iterator[Finding]:
    """The same seed, a new environment: the same task, and the same answers to the same turns."""
    for player in explorers(subject):
        for seed in subject.seeds[:4]:
            first, second = _alone(subject, seed, player), _alone(subject, seed, player)
            if first.prompt != second.prompt or (player is players.oracle and first.turns[:1] != second.turns[:1]):
                yield subject.finding(
                    "determinism.seed", f"seed {seed} gives {first.prompt[:80]} and {second.prompt[:80]}"
                )
                return
            if first.digest != second.digest:
                yield subject.finding("determinism.step", f"seed {seed}: {_difference(first, second)}")
                return


def graded_twice(subject: Subject) -> Iterator[Finding]:
    """A reward asked again says the same, and leaves state and random stream as they were."""
    env = subject.make()
    for seed in subject.seeds[:3]:
        try:
            env.reset(seed=seed)
            turn = env.oracle() if subject.has_oracle else players.Turn("x")
            while not env.step(turn)[2] and env.outcome is None:
                turn = env.oracle() if subject.has_oracle else players.Turn("x")
            for reward in env.rewards:
                if reward.is_async or reward.when == "turn":
                    continue
                before = _inside(env)
                arguments = (turn,) if reward.takes_turn else ()
                given = [getattr(env, reward.name)(*arguments) for _ in range(3)]
                if _inside(env) != before:
                    yield subject.finding("grader.impure", f"reward {reward.name!r} changes the episode")
                    return
                if any(str(value) != str(given[0]) for value in given):
                    yield subject.finding(
                        "grader.nondeterministic", f"reward {reward.name!r} gave {given} for one turn"
                    )
                    return
        except Exception:
            break  # told by another check
    env.close()


def _inside(env: Env) -> str:
    """The episode as text: attributes, states and random stream."""
    taken = env.snapshot()
    return repr((sorted(taken.attributes.items(), key=lambda item: item[0]), env.hash(), taken.generator))


def after_others(subject: Subject) -> Iterator[Finding]:
    """The same seed in an environment that has played other episodes, one of them left in the middle."""
    for player in explorers(subject):
        used = subject.make()
        for seed in subject.seeds:
            players.play(used, seed + 100, player)
            try:
                used.reset(seed=seed + 200)
                used.step(player(used, np.random.default_rng(0), ()))
            except Exception:
                pass
            fresh, again = _alone(subject, seed, player), players.play(used, seed, player)
            if fresh.digest != again.digest:
                yield subject.finding(
                    "isolation.episode", f"seed {seed} after other episodes: {_difference(fresh, again)}"
                )
                used.close()
                return
        used.close()


def interleaved(subject: Subject) -> Iterator[Finding]:
    """Episodes side by side, turn about and on one event loop, go as each goes alone."""
    for player in explorers(subject):
        alone = [_alone(subject, seed, player) for seed in subject.seeds]
        for way, together in (("turn about", _turn_about), ("on one event loop", _on_one_loop)):
            for expected, got in zip(alone, together(subject, player), strict=True):
                if expected.digest != got.digest:
                    cause = f"seed {expected.seed}, {way}: {_difference(expected, got)}"
                    yield subject.finding("isolation.concurrent", cause)
                    return


def _alone(subject: Subject, seed: int, player: Player) -> Played:
    env = subject.make()
    played = players.play(env, seed, player)
    env.close()
    return played


def _turn_about(subject: Subject, player: Player) -> list[Played]:
    envs = [subject.make() for _ in subject.seeds]
    played = [Played(seed) for seed in subject.seeds]
    rngs = [np.random.default_rng([seed, 7]) for seed in subject.seeds]
    going = []
    for env, one in zip(envs, played, strict=True):
        try:
            players.open_episode(env, one)
            going.append(True)
        except Exception as error:
            players.note_error(one, error)
            going.append(False)
    for _ in range(players.MAX_STEPS):
        for i, env in enumerate(envs):
            if not going[i] or played[i].outcome:
                continue
            try:
                players.take_step(env, played[i], player(env, rngs[i], played[i].observation))
            except Exception as error:
                players.note_error(played[i], error)
    for env in envs:
        env.close()
    return played


def _on_one_loop(subject: Subject, player: Player) -> list[Played]:
    async def one(seed: int) -> Played:
        env, played, rng = subject.make(), Played(seed), np.random.default_rng([seed, 7])
        try:
            observation, _ = await env.areset(seed=seed)
            played.observation, played.prompt = observation, players.as_json(observation)
            while not played.outcome and len(played.turns) < players.MAX_STEPS:
                turn = player(env, rng, played.observation)
                played.turns.append(turn)
                players.note_step(env, played, await env.astep(turn))
        except Exception as error:
            players.note_error(played, error)
        env.close()
        return played

    async def all_of_them() -> list[Played]:
        return list(await asyncio.gather(*(one(seed) for seed in subject.seeds)))

    with asyncio.Runner() as runner:
        return runner.run(all_of_them())


def _difference(first: Played, second: Played) -> str:
    for number, (a, b) in enumerate(zip(first.said, second.said, strict=False)):
        if a != b:
            return f"turn {number} was answered {a[:80]} and {b[:80]}"
    if first.rewards != second.rewards:
        return f"rewards {first.rewards[-1:]} and {second.rewards[-1:]}"
    if first.prompt != second.prompt:
        return f"the prompt was {first.prompt[:80]} and {second.prompt[:80]}"
    return f"it ended {first.outcome or 'never'} ({first.error!r}) and {second.outcome or 'never'} ({second.error!r})"


# Other processes.


def digests(subject: Subject, *, backwards: bool = False) -> dict[str, str]:
    """What the episodes of a subject come to, by player and seed. Their order must not matter either."""
    found = {}
    for player in explorers(subject):
        for seed in sorted(subject.seeds[:3], reverse=backwards):
            found[f"{player.__name__} {seed}"] = _alone(subject, seed, player).digest
    return found


def in_other_processes(subjects: Sequence[Subject]) -> list[Finding]:
    """Two processes with hash seeds of their own play all subjects; what differs from here is a finding."""
    asked = [{"env_id": s.env_id, "options": dict(s.options), "place": s.place, "is_slow": s.is_slow} for s in subjects]
    running = [_start(asked, seed) for seed in HASH_SEEDS]
    first, second = (_finish(process) for process in running)
    findings = []
    for subject in subjects:
        one, two = (there.get(subject.name, {"error": "it did not answer"}) for there in (first, second))
        here = digests(subject)
        if cause := one.get("error") or two.get("error"):
            findings.append(subject.finding("determinism.process", cause))
        elif not one == two == here:
            where = f"with PYTHONHASHSEED={HASH_SEEDS[0] if one != here else HASH_SEEDS[1]}, in another order"
            findings.append(subject.finding("determinism.process", f"{where}, the episodes of the same seeds differ"))
    return findings


def in_probe() -> bool:
    """Whether this process was started by the checker."""
    return _IN_PROBE in os.environ


def _start(asked: list[dict[str, Any]], hash_seed: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__package__}.probe import main; main(backwards={hash_seed != HASH_SEEDS[0]})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            _IN_PROBE: "1",
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    return process, json.dumps(asked)


def _finish(started: tuple[subprocess.Popen[str], str]) -> Mapping[str, Any]:
    process, asked = started
    try:
        out, _ = process.communicate(asked, timeout=_PROBE_TIMEOUT_S)
        return json.loads(out.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        process.kill()
        process.wait()
        return {}
