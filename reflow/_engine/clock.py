"""Time for the engine: one question and one way to wait, so that tests can turn the clock."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from anyio import Event, move_on_after

from reflow._core.journal import NEVER

__all__ = ["Clock", "SystemClock"]

_LOOK_AGAIN_S = 1.0


class Clock(Protocol):
    """The engine's only source of time."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or `until` (an instant as of `now`) has come, whichever is first.

        A clock may be put back, by a year even. Then this may return before either, so that who waits looks again: at
        what the time is now, and whether it would still wait for that instant.
        """
        ...


class SystemClock:
    """The clock of the machine, or one that all machines share: as far ahead of it as `follow` has found."""

    def __init__(self) -> None:
        self._ahead_us = 0

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1_000 + self._ahead_us

    async def follow(self, shared: Callable[[], Awaitable[int]]) -> None:
        """Ask a shared clock for the time, and go by it from now on.

        It was asked between two instants, so the answer leaves a span of how far it may be ahead. Within that span
        nothing is changed: clocks that agree are not made to differ by the time that asking took.
        """
        before = time.time_ns() // 1_000
        there = await shared()
        after = time.time_ns() // 1_000
        self._ahead_us = min(max(self._ahead_us, there - after), there - before)

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or `until` has come; or when the clock turns out to have been put back."""
        if until is None:
            await event.wait()
            return
        # The wall clock may be set while we wait, and does not stop while a laptop sleeps: long waits look again.
        before, left = NEVER, until - self.now()
        while not event.is_set() and 0 < left <= before:
            with move_on_after(min(left / 1_000_000, _LOOK_AGAIN_S)):
                await event.wait()
            before, left = left, until - self.now()
