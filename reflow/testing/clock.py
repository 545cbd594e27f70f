"""`VirtualClock`: time that stands still until it is turned, by hand or by itself.

Model. Whoever waits on the clock has a timer there. `advance` and `turn_to` move the time and wake those whose time has
come. Inside `async with clock.autojump():` the clock also turns itself: when nobody can do anything but wait for it, it
jumps to the next timer. Two weeks are then as short as the work that is done in them.

When does everything wait? Two different questions hide in that one.

1. *Can any task of this event loop go on?* Trio knows. On asyncio a task cannot go on while the future that it waits
   for is pending. All tasks are looked at, in two passes of the loop in a row: a callback between them may wake one.
   (`anyio.wait_all_tasks_blocked` sleeps for real in between, too long to do it for each jump.)
2. *Will something outside the loop wake one?* A thread, a socket, a timer of the loop itself: no task runs, and yet the
   work is under way. No event loop can tell that from waiting for ever. So whoever does such work says so: while it
   `hold`s the clock, the clock stands still. `Sandbox` does that for step bodies. A body that waits for what never
   comes must not hold up a test for ever either: once all tasks have waited for `patience`, in real time, the clock
   jumps all the same.

So nothing here knows of a lane thread of a `SQLiteStorage`: use virtual time with `MemoryStorage`, which waits for
nobody, or turn the clock by hand.

An engine that looks every second for what other processes did has a timer every second, and no jump is longer than
that. `Sandbox` is an engine that has no others to look for.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime

from anyio import CancelScope, Event, create_task_group, move_on_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow._core.duration import Duration, from_micros, to_instant, to_micros
from reflow.storage.loop import trio_here

__all__ = ["START", "VirtualClock", "set_or_due"]

START = 1_750_000_000_000_000
"""Where virtual clocks begin unless they are told: 2025-06-15 15:06:40 UTC, in microseconds since 1970."""


class VirtualClock:
    """A `Clock` for tests: `Engine(storage, [...], clock=VirtualClock())`.

    It begins at `start`, an aware datetime. `patience` is for how long, in real time, work that holds the clock may
    give no sign of life before the clock jumps all the same.
    """

    def __init__(self, *, start: datetime | None = None, patience: Duration = "5s") -> None:
        self._now = START if start is None else to_instant(start, what="start")
        self._patience_s = to_micros(patience, what="patience") / 1_000_000
        self._timers: list[tuple[int, CancelScope]] = []
        self._holds = 0
        # Set when there is a new timer, or a hold less.
        self._changed = Event()
        self._stalled = Event()

    # ---- what an engine asks ----------------------------------------------------------------------------------------

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return self._now

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set, or the clock was turned to `until` or back."""
        await set_or_due(event, until, self._now, self._timer)

    @contextmanager
    def _timer(self, until: int, scope: CancelScope) -> Generator[None]:
        timer = (until, scope)
        self._timers.append(timer)
        self._change()
        try:
            yield
        finally:
            self._timers.remove(timer)

    # ---- what a test does -------------------------------------------------------------------------------------------

    @property
    def time(self) -> datetime:
        """What time it is."""
        return from_micros(self._now)

    def advance(self, duration: Duration) -> None:
        """Turn the clock on."""
        self.turn_to(self._now + to_micros(duration))

    def turn_to(self, instant: int) -> None:
        """Turn the clock to an instant as of `now`, also backwards: then all who wait look again."""
        is_back, self._now = instant < self._now, instant
        for until, scope in self._timers:
            if is_back or until <= instant:
                scope.cancel()

    async def sleep(self, duration: Duration) -> None:
        """Wait until somebody has turned the clock on so far."""
        until = self._now + to_micros(duration)
        while self._now < until:
            await self.wait(Event(), until)
        await checkpoint()

    @property
    def next_timer(self) -> int | None:
        """The earliest instant that anybody waits for; None while nobody does."""
        return min((until for until, _ in self._timers), default=None)

    async def has_timer(self, within: Duration) -> None:
        """Wait until somebody waits for an instant not later than `within` from now."""
        while (self.next_timer or sys.maxsize) > self._now + to_micros(within):
            await self._changed.wait()

    # ---- turning by itself ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def autojump(self, *, limit: Duration | None = None) -> AsyncGenerator[None]:
        """Inside `async with` the clock jumps to the next timer whenever everything waits for it; by `limit` in all, if
        there is one. Errors pass through as they are, in no group."""
        last = None if limit is None else self._now + to_micros(limit, what="limit")
        async with AsyncExitStack() as leaving:
            tasks = create_task_group()
            await tasks.__aenter__()
            leaving.push_async_callback(tasks.__aexit__, None, None, None)
            leaving.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._keep_jumping, last)
            yield

    @contextmanager
    def hold(self) -> Generator[None]:
        """Inside `with` something is under way that the event loop does not know of: the clock stands still."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._change()

    async def stalled(self) -> None:
        """Wait until everything waits, while the clock turns itself, and there is no timer that it could jump to."""
        await self._stalled.wait()

    def _change(self) -> None:
        changed, self._changed = self._changed, Event()
        changed.set()

    async def _keep_jumping(self, last: int | None) -> None:
        """Jump until cancelled, no further than to `last`."""
        while True:
            changed = self._changed
            await _all_others_blocked()
            if self._holds:
                with move_on_after(self._patience_s) as patience:
                    await changed.wait()
                if not patience.cancelled_caught:
                    continue
            next_timer = self.next_timer
            if next_timer is not None and (last is None or next_timer <= last):
                self.turn_to(next_timer)
            else:
                self._stalled.set()
                await changed.wait()
                self._stalled = Event()


async def set_or_due(
    event: Event, until: int | None, now: int, timer: Callable[[int, CancelScope], AbstractContextManager[object]]
) -> None:
    """Return when `event` is set, or when its instant has come: then whoever keeps the `timer` cancels its scope."""
    if until is None:
        await event.wait()
    elif until > now and not event.is_set():
        with CancelScope() as scope, timer(until, scope):
            await event.wait()


async def _all_others_blocked() -> None:
    """Wait until no other task of this event loop can go on."""
    if trio_here() is not None:
        await wait_all_tasks_blocked()
        return
    passes = 0
    while passes < 2:
        await checkpoint()
        passes = passes + 1 if _are_others_blocked() else 0


def _are_others_blocked() -> bool:
    # Loaded: an event loop of it is running.
    asyncio = sys.modules["asyncio"]
    me = asyncio.current_task()
    futures = (task._fut_waiter for task in asyncio.all_tasks() if task is not me)
    return all(future is not None and not future.done() for future in futures)
