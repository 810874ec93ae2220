"""Do snapshots hold: what is restored goes on as it went, a branch disturbs nothing, a record replays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

from ...messages import EnvironmentFault
from ..env import Env
from . import players
from .determinism import explorers
from .findings import Finding
from .players import Played, Player
from .subject import Subject


def snapshots(subject: Subject) -> Iterator[Finding]:
    for player in explorers(subject):
        for seed in (0, 1):
            for finding in _one(subject, player, seed):
                yield finding
                return


def _one(subject: Subject, player: Player, seed: int) -> Iterator[Finding]:
    env = subject.make()
    whole = players.play(env, seed, player)
    if whole.error is not None or not whole.turns:
        env.close()
        return
    try:
        taken, past = [], Played(seed)
        players.open_episode(env, past)
        for turn in whole.turns:
            taken.append(env.snapshot())
            twin = env.branch()
            players.take_step(twin, Played(seed), turn)  # what a branch does is unknown here
            twin.close()
            players.take_step(env, past, turn)
        if past.digest != whole.digest:
            yield subject.finding("snapshot.restore", f"seed {seed}: a branch's step changed the episode it came from")
            return
        for number in reversed(range(len(taken))):
            if cause := _goes_on_differently(env, taken[number], whole, number):
                yield subject.finding("snapshot.restore", f"seed {seed}, restored to turn {number}: {cause}")
                return
    except TypeError as error:
        yield subject.finding("snapshot.copy", str(error))
    except EnvironmentFault as fault:
        yield subject.finding("snapshot.restore", f"seed {seed}: the same turns ended in {fault}")
    finally:
        env.close()


def _goes_on_differently(env: Env, taken: object, whole: Played, number: int) -> str:
    env.restore(taken)  # type: ignore[arg-type]
    again = Played(whole.seed)
    for turn in whole.turns[number:]:
        players.take_step(env, again, turn)
    if again.said != whole.said[number:]:
        return f"it was answered {str(again.said)[:100]} instead of {str(whole.said[number:])[:100]}"
    if again.rewards != whole.rewards[number:]:
        return f"rewards {again.rewards[-1:]} instead of {whole.rewards[-1:]}"
    return ""


def replay(subject: Subject) -> Iterator[Finding]:
    """A record of seed and turns, played by another environment, gives the same bytes."""
    for played in [*subject.by_oracle[:3], *subject.by_random[:3]]:
        if played.error is not None:
            continue
        env = subject.make()
        again = players.play(env, played.seed, players.repeating(played.turns))
        env.close()
        if again.digest != played.digest:
            yield subject.finding("replay.differs", f"seed {played.seed}: the same turns went another way")
            return


def writes(subject: Subject) -> Iterator[Finding]:
    """A tool that changes declared state says so."""
    if not subject.cls.declared:
        return
    env = subject.make()
    told: set[str] = set()
    for player in explorers(subject):
        for seed in range(6):
            try:
                observation, _ = env.reset(seed=seed)
                rng = players.np.random.default_rng([seed, 7])
                while env.outcome is None:
                    before, count = env.hash(), len(env.calls)
                    observation = env.step(player(env, rng, observation))[0]
                    made = env.calls[count:]
                    if env.hash() != before and len(made) == 1 and made[0].ok and not made[0].writes:
                        told.add(made[0].name)
            except Exception:
                continue
    env.close()
    for name in sorted(told):
        yield subject.finding("tool.undeclared_write", f"tool {name!r} changes the state without writes=True")
