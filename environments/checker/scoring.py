"""Is the score worth anything: the oracle gets all of it, and those who know nothing, or cheat, stay at the floor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...messages import EnvironmentFault, Turn
from ..env import Env
from . import players
from .findings import Finding
from .players import Played
from .subject import Subject

_KEYWORD = r"(?:answer|solution|gold|target|expected|correct|secret|result)\w*\W{0,12}(?:is|was|be|=|:)?\W{0,6}"


def oracle(subject: Subject) -> Iterator[Finding]:
    """Exists, never crashes, earns the maximum."""
    if not subject.has_oracle:
        env = subject.make()
        if not env.no_oracle:
            yield subject.finding(
                "oracle.missing", "tasks have neither answer nor gold calls, and there is no oracle()"
            )
        env.close()
        return
    top = sum(
        reward.weight * reward.high for reward in subject.cls.rewards if reward.when == "episode" and not reward.gate
    )
    for played in subject.by_oracle:
        episode = sum(_episode_part(subject, played))
        if played.error is not None and not isinstance(played.error, EnvironmentFault):
            yield subject.finding("oracle.crash", f"seed {played.seed}: {played.error!r}")
        elif played.outcome.startswith("truncated") and episode < top - 1e-6:
            yield subject.finding(
                "oracle.truncated", f"seed {played.seed}: ends {played.outcome} after {len(played.turns)} turns"
            )
        elif played.outcome == "terminated" and top > 0 and episode < top - 1e-6:
            yield subject.finding("oracle.maximum", f"seed {played.seed}: the oracle earns {episode:g} of {top:g}")
        elif not played.outcome:
            yield subject.finding("oracle.truncated", f"seed {played.seed}: no end after {len(played.turns)} turns")
        else:
            continue
        return


def _episode_part(subject: Subject, played: Played) -> Iterator[float]:
    """The rewards that are given at the end: those of turns depend on how many there are."""
    names = {reward.name for reward in subject.cls.rewards if reward.when == "episode"}
    for parts in played.rewards:
        for name, value in parts.items():
            if name.partition("/")[0] in names:
                yield value


def floors(subject: Subject) -> Iterator[Finding]:
    """Policies that know nothing, and the environment's own cheats, stay at the declared floor."""
    env = subject.make()
    floor, has_tools = env.floor, bool(env.tool_schemas)
    env.close()
    answers = [str(task.answer) for task in subject.tasks if task.answer]
    ignorant: dict[str, players.Player] = {
        "floor.null": players.null,
        "floor.echo": players.echo,
        "floor.long": players.long,
        "floor.injection": players.injection,
    }
    if has_tools:
        ignorant["floor.idle_calls"] = players.idle_calls
    if len(set(answers)) > 1:
        ignorant["floor.shotgun"] = players.shotgun(answers)
    if answers:
        ignorant["floor.majority"] = players.constant(Counter(answers).most_common(1)[0][0])
    for rule, player in ignorant.items():
        yield from _stays(subject, rule, player, floor)
    yield from _above(subject, "floor.random", "the random policy", subject.by_random, floor)
    for name in subject.cls.cheats:
        yield from _stays(subject, "floor.cheat", players.cheating(name), floor, f"the cheat {name!r}")


def _stays(subject: Subject, rule: str, player: Any, floor: float, who: str = "") -> Iterator[Finding]:
    played = list(subject.episodes(player))
    who = who or f"the {rule.partition('.')[2]} policy"
    crashed = next((p for p in played if p.error is not None and not isinstance(p.error, EnvironmentFault)), None)
    if crashed is not None:
        yield subject.finding("step.crash", f"{who}, seed {crashed.seed}: {crashed.error!r}")
    yield from _above(subject, rule, who, played, floor)


def _above(subject: Subject, rule: str, who: str, played: list[Played], floor: float) -> Iterator[Finding]:
    values = [p.total for p in played if p.error is None]
    if players.surely_above(values, floor):
        mean = sum(values) / len(values)
        yield subject.finding(
            rule, f"{who} earns {mean:.3f} on average over {len(values)} episodes; the floor is {floor:g}"
        )


def values(subject: Subject) -> Iterator[Finding]:
    """Faults of the grader, of tools and of respond, in play that a policy is free to choose."""
    found: set[str] = set()
    for played in [*subject.by_oracle, *subject.by_random]:
        error = played.error
        rule = ""
        if isinstance(error, EnvironmentFault):
            if error.kind == "bad_reward":
                rule = "reward.value"
            elif error.kind == "tool_timeout":
                rule = "tool.timeout"
            elif not played.turns:
                rule = "reset.crash"
            else:
                rule = "step.crash"
        elif error is not None and played in subject.by_random:
            rule = "step.crash"
        if rule and rule not in found:
            found.add(rule)
            yield subject.finding(rule, f"seed {played.seed}: {error}")


def leaks(subject: Subject) -> Iterator[Finding]:
    """The answer is not told: not in the prompt, a tool's description, a reply to a wrong answer, or info."""
    env = subject.make()
    counts: Counter[str] = Counter()
    tried = 0
    distinctive = len({str(task.answer) for task in subject.tasks if task.answer}) > max(2, len(subject.tasks) // 8)
    for seed in range(min(len(subject.tasks), 16)):
        try:
            observation, info = env.reset(seed=seed)
        except EnvironmentFault:
            continue
        answer = str(env.task.answer).strip()
        if not answer or not distinctive:
            continue
        tried += 1
        shown = " ".join(message.text for message in observation)
        described = " ".join(f"{schema.name} {schema.description}" for schema in env.action_space.tools)  # type: ignore[attr-defined]
        counts["leak.prompt"] += not env.answer_in_prompt and (_told(answer, shown) or _given(answer, shown))
        counts["leak.schema"] += len(answer) > 2 and answer in described
        counts["leak.info"] += _inside(answer, info)
        counts["leak.reply"] += _replied(env, answer, shown)
    env.close()
    for rule, count in counts.items():
        if count >= max(2, 0.7 * tried):
            yield subject.finding(rule, f"the answer is there in {count} of {tried} episodes")


def _told(answer: str, text: str) -> bool:
    return re.search(_KEYWORD + re.escape(answer) + r"(?!\w)", text, re.IGNORECASE) is not None


def _given(answer: str, text: str) -> bool:
    """Long answers, word for word in the prompt: chance does not put them there."""
    return len(answer) >= 6 and re.search(r"(?<!\w)" + re.escape(answer) + r"(?!\w)", text) is not None


def _inside(answer: str, info: Any) -> bool:
    if isinstance(info, dict):
        return any(_inside(answer, value) for value in info.values())
    return isinstance(info, str) and info.strip() == answer


def _replied(env: Env, answer: str, prompt: str) -> bool:
    """A wrong answer, and whether what is said to it holds the right one."""
    try:
        said, _, terminated, truncated, _ = env.step(Turn("I do not know."))
    except Exception:
        return False
    text = " ".join(message.text for message in said)
    return (_told(answer, text) or _given(answer, text)) and not _given(answer, prompt)
