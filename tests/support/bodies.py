"""Step bodies that a test can watch, hold up and break."""

from __future__ import annotations

from typing import Any

from anyio import CancelScope, Event, get_cancelled_exc_class
from anyio.lowlevel import checkpoint


async def give(value: Any) -> Any:
    """Returns what it is given."""
    return value


async def a_cancellation() -> BaseException:
    """The event loop's cancellation, to be raised where nobody was cancelled."""
    with CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except get_cancelled_exc_class() as error:
            return error
    raise AssertionError


class Meeting:
    """A body that ends only once `size` of its kind have begun."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._all_there = Event()

    async def __call__(self, value: int) -> int:
        self._missing -= 1
        if not self._missing:
            self._all_there.set()
        await self._all_there.wait()
        return value


class Steps:
    """A body that notes what it does, by name; it may be held up, or made to fail.

    `log` has "a begins", "a ends" and "a is cancelled" in the order in which they happened.
    """

    def __init__(self, *held: str) -> None:
        self.log: list[str] = []
        self.held = {name: Event() for name in held}
        self.broken: set[str] = set()
        self._news = Event()

    async def __call__(self, name: str) -> str:
        self._note(f"{name} begins")
        try:
            if name in self.held:
                await self.held[name].wait()
        except BaseException:
            self._note(f"{name} is cancelled")
            raise
        self._note(f"{name} ends")
        if name in self.broken:
            raise ValueError(name)
        return name

    @property
    def begun(self) -> list[str]:
        """The names of the bodies that began, in that order."""
        return [line.removesuffix(" begins") for line in self.log if line.endswith(" begins")]

    async def until(self, *lines: str) -> None:
        """Wait until the log has all of `lines`."""
        while not set(lines) <= set(self.log):
            await self._news.wait()

    def _note(self, line: str) -> None:
        self.log.append(line)
        news, self._news = self._news, Event()
        news.set()
