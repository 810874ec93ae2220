"""Is it what Gymnasium and the contract say: spaces, vector environments, levels, declarations, tasks."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env as gymnasium_check_env

from ...messages import EnvironmentFault, Task, Text
from .. import spaces, wire
from ..declaration import DeclarationError, parameters_of
from ..tool import Tool, ToolError, _argument_docs
from .findings import Finding
from .subject import Subject

_TRIES = 12


def gymnasium_checker(subject: Subject) -> Iterator[Finding]:
    """Gymnasium's own checker, silent; and make_vec's rows like single environments."""
    env = gymnasium.make(subject.env_id, **subject.options).unwrapped
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            gymnasium_check_env(env)
        except EnvironmentFault:
            return  # found where the fault is
        except Exception as error:
            yield subject.finding("gymnasium.checker", f"{type(error).__name__}: {error}")
            return
        finally:
            env.close()
    for warning in told:
        if not issubclass(warning.category, (ResourceWarning, DeprecationWarning, SyntaxWarning)):
            yield subject.finding("gymnasium.checker", str(warning.message))
            return


def vector(subject: Subject) -> Iterator[Finding]:
    for mode in (None, "sync"):
        envs = gymnasium.make_vec(subject.env_id, 2, vectorization_mode=mode, **subject.options)  # type: ignore[arg-type]
        try:
            observations, _ = envs.reset(seed=[3, 4])  # type: ignore[arg-type]
            alone = subject.make()
            expected = [alone.reset(seed=seed)[0] for seed in (3, 4)]
            alone.close()
            if list(observations) != expected:
                yield subject.finding("gymnasium.vector", f"make_vec ({mode or 'default'}) observes something else")
        except EnvironmentFault:
            pass
        except Exception as error:
            yield subject.finding("gymnasium.vector", f"make_vec ({mode or 'default'}) raises {error!r}")
        finally:
            with contextlib.suppress(Exception):
                envs.close()


def space_json(subject: Subject) -> Iterator[Finding]:
    env = subject.make()
    found: list[Any] = [env.observation_space, env.action_space]
    for space in found:
        space.seed(0)
        sampled = [space.sample() for _ in range(4)]
        plain = json.loads(json.dumps(space.to_jsonable(sampled)))
        if space.from_jsonable(plain) != sampled or not all(sample in space for sample in sampled):
            yield subject.finding("space.json", f"samples of {space!r} do not survive JSON")
    for seed in range(3):
        try:
            observation, info = env.reset(seed=seed)
        except EnvironmentFault:
            break
        if observation not in env.observation_space:
            yield subject.finding("space.observation", f"reset gave {str(observation)[:120]}")
            break
    env.close()


def levels(subject: Subject) -> Iterator[Finding]:
    for level in subject.cls.levels:
        try:
            env = subject.make() if subject.options else type(subject)(subject.env_id, {"level": level}).make()
            env.reset(seed=0)
            env.close()
        except Exception as error:
            yield subject.finding("levels.constructor", f"level {level}: {error!r}")


def declarations(subject: Subject) -> Iterator[Finding]:
    """Tools that can be described, and arguments that are read back as the same values."""
    for tool in subject.cls.tools.values():
        try:
            schema = tool.schema
        except DeclarationError as error:
            yield subject.finding("declaration", str(error))
            continue
        names = [parameter.name for parameter in parameters_of(tool.method)]
        for name in _argument_docs(tool.method.__doc__ or "").arguments:
            if name not in names:
                yield subject.finding("declaration.docs", f"tool {tool.name!r} documents {name!r}, which it lacks")
        yield from _defaults(subject, tool)
        rng = np.random.default_rng(0)
        for _ in range(_TRIES):
            given = spaces.random_arguments(schema, rng)
            if problem := _round_trip(tool, given):
                yield subject.finding("schema.round_trip", f"tool {tool.name!r}, {given!r}: {problem}")
                break


def _defaults(subject: Subject, tool: Tool) -> Iterator[Finding]:
    for parameter in parameters_of(tool.method):
        if parameter.default is inspect.Parameter.empty:
            continue
        try:
            tool.adapters[parameter.name].validate_python(parameter.default)
        except Exception:
            yield subject.finding(
                "schema.default",
                f"tool {tool.name!r}: the default {parameter.default!r} of {parameter.name!r} is no {parameter.annotation}",
            )


def _round_trip(tool: Tool, given: dict[str, Any]) -> str:
    from pydantic_core import to_jsonable_python

    try:
        typed = tool.typed(given)
    except ToolError:
        return ""  # a constraint that a random value does not meet
    except Exception as error:
        return f"typing raises {error!r}"
    try:
        plain = to_jsonable_python(typed)
        text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}
        again, from_text = tool.typed(plain), tool.typed(text)
    except Exception as error:
        return f"it is not read back: {error}"
    return "" if again == typed and from_text == typed else f"typed as {typed!r}, read back as {from_text!r}"


def tasks(subject: Subject) -> Iterator[Finding]:
    """Tasks are plain, not empty, and where the prompt tells them apart it does so."""
    answers: dict[Any, tuple[str, ...]] = {}
    env = subject.make()
    # With tools or a user, what differs may be hidden and to be found out.
    tells_apart = env.prompt_identifies_task and not env.tools and env.limits.max_turns == 1
    env.close()
    found: set[str] = set()
    for task in subject.tasks:
        key = tuple((message.role, message.content) for message in task.messages)
        gold = repr([(call.name, sorted(call.arguments.items(), key=str)) for call in task.gold])
        for rule, cause in _task_problems(task, answers.get(key), (str(task.answer), gold), tells_apart):
            if rule not in found:
                found.add(rule)
                yield subject.finding(rule, cause)
        answers[key] = (str(task.answer), gold)


def _task_problems(
    task: Task, before: tuple[str, ...] | None, now: tuple[str, ...], tells_apart: bool
) -> Iterator[tuple[str, str]]:
    if tells_apart and before is not None and before != now:
        yield "task.ambiguous", f"the same prompt has two solutions: {before} and {now}"
    parts = [part for message in task.messages for part in message.content]
    if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        yield "task.empty", "a task's prompt is empty"
    try:
        plain = json.loads(json.dumps(wire.task_to_dict(task), allow_nan=False))
        if not isinstance(task.answer, str):
            raise TypeError(f"the answer is {type(task.answer).__name__}, not text")
        if task.difficulty is not None and not isinstance(task.difficulty, (int, float)):
            raise TypeError(f"the difficulty is {type(task.difficulty).__name__}")
        del plain
    except (TypeError, ValueError) as error:
        yield "task.plain", str(error)


def swallowed(subject: Subject) -> Iterator[Finding]:
    """Broad excepts that make a value of a crash; and rewards whose crash does not surface."""
    cls = subject.cls
    methods: list[Callable[..., Any]] = [reward.method for reward in cls.rewards]
    methods += [tool.method for tool in cls.tools.values()] + [cls.respond, cls.sample_task, cls.start]
    for method in methods:
        if line := _broad_except(method):
            yield subject.finding(
                "fault.swallowed", f"{method.__qualname__}, line {line}: a broad except makes a value of any crash"
            )
    for reward in cls.rewards:
        for value in ("raise", float("nan"), "1"):
            if cause := _survives(subject, reward, value):
                yield subject.finding("fault.swallowed", cause)
                return


def _broad_except(method: Callable[..., Any]) -> int:
    """The line of an `except Exception` (or broader) that does not raise; 0 where there is none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError, SystemError):  # the last: CPython 3.11 parsing while a finalizer parses
        return 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"bare"}
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if names & {"bare", "Exception", "BaseException"} and not raises:
                return node.lineno + method.__code__.co_firstlineno - 1
    return 0


def _survives(subject: Subject, reward: Any, value: Any) -> str:
    """What a step gives though one of its rewards fails; it must raise."""
    env = subject.make()

    def failing(*_: Any) -> Any:
        if value == "raise":
            raise RuntimeError("planted")
        return value

    async def awaiting(*_: Any) -> Any:
        return failing()

    try:
        env.reset(seed=0)
        setattr(env, reward.name, awaiting if reward.is_async else failing)
        for _ in range(env.limits.max_turns):
            _, given, terminated, truncated, _ = env.step("x")
            if reward.when == "turn" or terminated or truncated:
                return f"a failing reward {reward.name!r} ({value!r}) came out as {given}"
    except EnvironmentFault:
        return ""
    except Exception as error:
        return f"a failing reward {reward.name!r} came out as {type(error).__name__}, not as a fault"
    finally:
        env.close()
    return ""
