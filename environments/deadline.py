"""Deadlines that hold: for code that awaits, for code that does not, and for code that will not end.

    awaiting code            Deadline       asyncio's timeout, but a late event loop is not held against what was awaited
    plain code               guarded()      a watchdog thread raises Overtime inside the thread that runs over
    plain code beside others in_thread()    the same in a daemon thread; one that is stuck in C code is left behind

All clocks are monotonic. Work that ignores Overtime, or that crashes its process, belongs into a process of its own
(`isolated=True`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_TICK_S = 0.05
_QUIET_TICKS = 100
"""After five seconds in which it saw no guarded call the watchdog sleeps until there is one."""


class Overtime(BaseException):
    """Raised inside a call that ran over its limit. Not an Exception, so that `except Exception` lets it pass."""


class _Alarm:
    __slots__ = ("deadline", "fired", "thread")

    def __init__(self, deadline: float) -> None:
        self.deadline, self.thread, self.fired = deadline, threading.get_ident(), False


class _Watchdog:
    """One daemon thread that looks at all running alarms twenty times a second.

    An alarm is in `alarms` until its call has ended or its time is over: whoever takes it out decides which, without a lock.
    """

    def __init__(self) -> None:
        self.alarms: set[_Alarm] = set()
        self.fired: set[_Alarm] = set()
        self.lock = threading.Lock()
        self.awake = False

    def disarm(self, alarm: _Alarm) -> None:
        try:
            self.alarms.remove(alarm)
        except KeyError:  # fired: perhaps raised already, perhaps still on its way
            with self.lock:
                self.fired.discard(alarm)
                _call_back()

    def wake(self) -> None:
        with self.lock:
            if self.awake:
                return
            self.awake = True
            threading.Thread(target=self._watch, name="swannery-watchdog", daemon=True).start()

    def _watch(self) -> None:
        quiet = 0
        while True:
            time.sleep(_TICK_S)
            with self.lock:
                now = time.monotonic()
                for alarm in [alarm for alarm in list(self.alarms) if now >= alarm.deadline]:
                    with contextlib.suppress(KeyError):  # it ended meanwhile
                        self.alarms.remove(alarm)
                        alarm.fired = True
                        self.fired.add(alarm)
                for alarm in self.fired:
                    if now >= alarm.deadline:
                        alarm.deadline = now + 1.0  # raised again where it was swallowed
                        _raise_in(alarm.thread, Overtime)
                quiet = 0 if self.alarms or self.fired else quiet + 1
                if quiet > _QUIET_TICKS:
                    self.awake = False
                    if not self.alarms:  # else one came just now, and saw a watchdog awake
                        return
                    self.awake = True


def _raise_in(thread: int, exception: type[BaseException]) -> None:
    """Raise in another thread at its next bytecode."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(exception))


def _call_back() -> None:
    """Take back what was not raised in this thread yet: it is raised here, and caught. Were it replaced by NULL, CPython 3.11
    would go on to look for it in every thread, and a line tracer (coverage, a debugger) would never get past a call."""
    try:
        _raise_in(threading.get_ident(), Overtime)
        for _ in range(2):  # a jump back, where it is raised at the latest
            pass
    except Overtime:
        pass


_watchdog = _Watchdog()


def guarded(limit_s: float, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """The function's value. TimeoutError where it is still running after `limit_s` seconds."""
    watchdog, alarm = _watchdog, _Alarm(time.monotonic() + limit_s)
    watchdog.alarms.add(alarm)
    if not watchdog.awake:
        watchdog.wake()
    try:
        value = function(*arguments, **keywords)
        watchdog.disarm(alarm)
        return value
    except Overtime:
        with contextlib.suppress(Overtime):
            watchdog.disarm(alarm)
        if not alarm.fired:  # an outer call's alarm, not ours
            raise
        raise TimeoutError(f"still running after {limit_s} s") from None
    except BaseException:
        watchdog.disarm(alarm)
        raise


class _Clock:
    """One timer of an event loop, that looks at all its deadlines twenty times a second: ten thousand timers are slow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop, self.deadlines, self.ticking = loop, set[Deadline](), False

    def start(self) -> None:
        self.ticking, self.due = True, self.loop.time() + _TICK_S
        self.loop.call_at(self.due, self._tick)

    def _tick(self) -> None:
        now = self.loop.time()
        late = now - self.due
        for deadline in [deadline for deadline in self.deadlines if now >= deadline.when]:
            if late > 2 * _TICK_S:
                deadline.when = now + min(late, deadline.limit_s)
            else:
                self.deadlines.remove(deadline)
                deadline.expired = True
                deadline.task.cancel()
        if self.deadlines:
            self.start()
        else:
            self.ticking = False


class _Here(threading.local):
    clock: _Clock | None = None


_here = _Here()


class Deadline:
    """`async with Deadline(seconds)`: TimeoutError inside when they are over.

    A clock that ticks late says that the event loop was blocked, by someone else: what is awaited may be done and only
    not noticed yet. It then gets as much more time as the loop was late.
    """

    __slots__ = ("clock", "expired", "limit_s", "task", "when")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.expired = False

    async def __aenter__(self) -> Deadline:
        loop, task, clock = asyncio.get_running_loop(), asyncio.current_task(), _here.clock
        assert task is not None
        if clock is None or clock.loop is not loop:
            clock = _here.clock = _Clock(loop)
        self.clock, self.task, self.when = clock, task, loop.time() + self.limit_s
        clock.deadlines.add(self)
        if not clock.ticking:
            clock.start()
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.clock.deadlines.discard(self)
        if self.expired and self.task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError(f"still waiting after {self.limit_s} s") from error


class _ToolThread:
    """A daemon thread that runs one call at a time."""

    def __init__(self) -> None:
        self.work: SimpleQueue[Any] = SimpleQueue()
        self.left_behind = False
        threading.Thread(target=self._run, name="swannery-tool", daemon=True).start()

    def _run(self) -> None:
        while (item := self.work.get()) is not None:
            limit_s, function, arguments, deliver = item
            try:
                result: tuple[Any, BaseException | None] = (guarded(limit_s, function, *arguments), None)
            except BaseException as error:
                result = (None, error)
            deliver(result)
            del item, function, arguments, deliver, result
            if self.left_behind:
                return
            _idle.append(self)


_idle: list[_ToolThread] = []
_GRACE_S = 0.5


async def in_thread(limit_s: float, function: Callable[..., T], *arguments: Any) -> T:
    """`guarded` in a daemon thread, so that other episodes go on. One that cannot be ended is left behind."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def deliver(result: tuple[Any, BaseException | None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(result))

    thread = _idle.pop() if _idle else _ToolThread()
    thread.work.put((limit_s, function, arguments, deliver))
    try:
        async with Deadline(limit_s + _GRACE_S):
            value, error = await future
    except BaseException:
        thread.left_behind = True
        raise
    if error is not None:
        raise error
    return value


def _forget() -> None:
    """After a fork the threads are the parent's."""
    global _watchdog
    _watchdog = _Watchdog()
    _idle.clear()


def close_idle_threads() -> None:
    """End the tool threads that have nothing to do."""
    while _idle:
        _idle.pop().work.put(None)


os.register_at_fork(after_in_child=_forget)
