"""What is said to a turn without tool calls: by the environment's `respond`, or by its user. None ends the episode."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ..messages import EnvironmentFault, Message, Turn
from .deadline import Deadline, guarded

if TYPE_CHECKING:
    from .env import Env


async def reply_to(env: Env, turn: Turn) -> tuple[Message, ...] | None:
    """The reply as messages. Crashes and lateness are faults, of the user where there is one."""
    has_user = env.user is not None
    limit_s = env.limits.reply_timeout_s
    try:
        reply = await _reply(env, turn, limit_s)
    except EnvironmentFault:
        raise
    except TimeoutError:
        kind, who = ("user_timeout", "the user") if has_user else ("environment_timeout", "respond()")
        raise EnvironmentFault(kind, f"{who} took over {limit_s} s") from None
    except (ConnectionError, EOFError) as error:
        raise EnvironmentFault("connection_lost", f"respond raised {error!r}") from error
    except Exception as error:
        kind = "user_crash" if has_user else "environment_crash"
        raise EnvironmentFault(kind, f"respond raised {error!r}") from error
    return None if reply is None else _as_messages(reply)


async def _reply(env: Env, turn: Turn, limit_s: float) -> Any:
    if env.responds:
        reply = guarded(limit_s, env.respond, turn)
        if not inspect.isawaitable(reply):
            return reply
        async with Deadline(limit_s):
            return await reply
    if env.user is None:
        return None
    if not env.user.awaits:
        return await env.user.reply(env, turn)
    async with Deadline(limit_s):
        return await env.user.reply(env, turn)


def _as_messages(reply: Any) -> tuple[Message, ...]:
    if isinstance(reply, str):
        return (Message("user", reply),)
    if isinstance(reply, Message):
        return (reply,)
    if isinstance(reply, tuple) and all(isinstance(message, Message) for message in reply):
        return reply
    raise EnvironmentFault(
        "environment_crash", f"respond returned {type(reply).__name__}; it gives text, messages, or None to end"
    )
