"""Time for the engine: one question and one way to wait, so that tests can turn the clock."""

from __future__ import annotations

import time
from typing import Protocol

from anyio import Event, move_on_after

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """The engine's only source of time."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        ...

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or `until` (an instant as of `now`) has come, whichever is first."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return time.time_ns() // 1_000

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or `until` has come."""
        if until is None:
            await event.wait()
            return
        # The wall clock may be set while we wait, and does not stop while a laptop sleeps: long waits look again.
        while not event.is_set() and (left := until - self.now()) > 0:
            with move_on_after(min(left / 1_000_000, 60.0)):
                await event.wait()
