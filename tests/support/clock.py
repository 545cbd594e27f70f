"""A virtual clock in a hurry."""

from __future__ import annotations

from anyio import Event
from anyio.lowlevel import checkpoint

from reflow import Duration
from reflow._core.duration import to_micros
from reflow.testing import VirtualClock


class HastyClock(VirtualClock):
    """A wait that ends within `passes_at_once` takes no waiting: the clock turns itself."""

    def __init__(self, passes_at_once: Duration) -> None:
        super().__init__()
        self._passes_us = to_micros(passes_at_once)

    async def wait(self, event: Event, until: int | None) -> None:
        """Return when `event` is set or the clock was turned to `until`."""
        if until is not None and not event.is_set() and 0 < until - self.now() <= self._passes_us:
            self.turn_to(until)
            await checkpoint()
        else:
            await super().wait(event, until)
