"""Who listens to an adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import Event, create_task_group, fail_after

from reflow import StorageAdapter


class Heard:
    """What a listener was told, and a signal for the next time."""

    def __init__(self) -> None:
        self.count = 0
        self._next = Event()

    def __call__(self, run_id: str | None) -> None:
        self.count += 1
        self._next.set()

    async def by(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Return when something is heard after `call`."""
        self._next = Event()
        with fail_after(20):
            await call()
            await self._next.wait()


@asynccontextmanager
async def listening(storage: StorageAdapter) -> AsyncIterator[Heard]:
    """Who listens to this adapter."""
    heard = Heard()
    async with create_task_group() as tasks:
        tasks.start_soon(storage.listen, heard)
        yield heard
        tasks.cancel_scope.cancel()
