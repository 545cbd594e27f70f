"""A clock that stands still until a test turns it."""

from __future__ import annotations

import sys

from anyio import Event, create_task_group
from anyio.lowlevel import checkpoint

from reflow._core.duration import Duration, to_micros

START = 1_750_000_000_000_000


class VirtualClock:
    """Time as the engine sees it: `advance` moves it on and wakes whoever waited for that.

    A wait that ends within `passes_at_once` takes no waiting: the clock turns itself.
    """

    def __init__(self, passes_at_once: Duration = 0) -> None:
        self._now = START
        self._timers: list[tuple[int, Event]] = []
        self._set = Event()
        self._passes_us = to_micros(passes_at_once)

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return self._now

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or the clock was turned to `until`."""
        if until is None:
            await event.wait()
            return
        if event.is_set() or until <= self._now:
            return
        if until - self._now <= self._passes_us:
            self.turn_to(until)
            await checkpoint()
            return
        timer = (until, Event())
        self._timers.append(timer)
        is_set, self._set = self._set, Event()
        is_set.set()
        try:
            async with create_task_group() as tasks:

                async def first(signal: Event) -> None:
                    await signal.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(first, event)
                tasks.start_soon(first, timer[1])
        finally:
            self._timers.remove(timer)

    def advance(self, duration: Duration) -> None:
        """Turn the clock on."""
        self.turn_to(self._now + to_micros(duration))

    def turn_to(self, instant: int) -> None:
        """Turn the clock, also backwards."""
        self._now = instant
        for until, signal in self._timers:
            if until <= instant:
                signal.set()

    async def has_timer(self, within: Duration) -> None:
        """Wait until somebody waits for an instant not later than `within` from now."""
        while (self.next_timer or sys.maxsize) > self._now + to_micros(within):
            await self._set.wait()

    @property
    def next_timer(self) -> int | None:
        """The earliest instant anybody waits for."""
        return min((until for until, _ in self._timers), default=None)
