"""`Place`: one of the places for threads that an engine has, held until the thread is done with it.

A thread goes on when nobody waits for it any more. Were its place given back then, a service that hangs would be called
by one more thread with each attempt. So the place is left by two: by who waits for the body, and by the thread; who is
last gives it back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Self, TypeVar

from anyio import CapacityLimiter

from reflow.storage.loop import call_soon_here

__all__ = ["Place"]

T = TypeVar("T")


class Place:
    """`async with Place(threads) as place:` waits for a place; inside, `place.call` is what a thread is to call."""

    def __init__(self, threads: CapacityLimiter) -> None:
        self._threads = threads
        self._call_soon = call_soon_here()
        # Both know of both.
        self._lock = Lock()
        self._is_busy = False
        self._is_left = False

    async def __aenter__(self) -> Self:
        await self._threads.acquire_on_behalf_of(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._lock:
            self._is_left = True
            if self._is_busy:
                return
        self._give_back()

    def call(self, function: Callable[..., T], *arguments: object) -> T | None:
        """In a thread: the function's result. It does not begin once nobody waits for it."""
        with self._lock:
            if self._is_left:
                return None
            self._is_busy = True
        try:
            return function(*arguments)
        finally:
            with self._lock:
                self._is_busy = False
                is_last = self._is_left
            if is_last:
                with suppress(RuntimeError):  # the event loop is gone, and nobody is left who wants it
                    self._call_soon(self._give_back)

    def _give_back(self) -> None:
        self._threads.release_on_behalf_of(self)
