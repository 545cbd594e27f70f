"""Event loops in which nothing is left to chance: what happens follows from a seed.

Three things are random in a program of tasks that share one thread: which of several runnable tasks goes first, when
the world outside answers, and what is drawn from `random`. In lockstep, the world answers only when every task is
blocked, one answer at a time. What is left is the order of those that one answer sets off:

    asyncio    runs them first in, first out. That all are blocked shows where the loop asks its selector to wait
    trio       shuffles them on purpose, by a generator of its own, which is seeded; it has a test for "all blocked"

`random` is seeded as well, and set back afterwards. Threads are beyond anybody's order, so there must be none but those
that the one answer under way waits for.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, TypeVar

import anyio

__all__ = ["AllBlocked", "Backend", "run_in_lockstep"]

T = TypeVar("T")

Backend: TypeAlias = Literal["asyncio", "trio"]
"""The event loop in which something is simulated."""

AllBlocked: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when all other tasks are blocked."""


def run_in_lockstep(main: Callable[[AllBlocked], Awaitable[T]], seed: int, backend: Backend) -> T:
    """Run `main` in an event loop of its own, in this thread, where none may run already."""
    before = random.getstate()
    random.seed(seed)
    try:
        if backend == "trio":
            with _seeded_trio(seed):
                return anyio.run(main, anyio.wait_all_tasks_blocked, backend="trio")
        return _run_in_asyncio(main)
    finally:
        random.setstate(before)


def _run_in_asyncio(main: Callable[[AllBlocked], Awaitable[T]]) -> T:
    # Not needed by those who use trio.
    import asyncio
    import selectors

    class IdleSelector(selectors.DefaultSelector):
        """Asked to wait, it says first that nobody can go on."""

        idle: asyncio.Future[None] | None = None

        def select(self, timeout: float | None = None) -> Any:
            if self.idle is not None and (timeout is None or timeout > 0):
                self.idle.set_result(None)
                self.idle, timeout = None, 0
            return super().select(timeout)

    selector = IdleSelector()

    async def all_blocked() -> None:
        selector.idle = asyncio.get_running_loop().create_future()
        await selector.idle

    def new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selector)

    return anyio.run(main, all_blocked, backend="asyncio", backend_options={"loop_factory": new_loop})


@contextmanager
def _seeded_trio(seed: int) -> Generator[None]:
    # There is no public way to it; this is what Hypothesis and pytest-trio do.
    import trio._core._run as scheduling

    shuffler: random.Random = scheduling._r  # pyright: ignore[reportPrivateUsage]
    before, was_allowed = shuffler.getstate(), scheduling._ALLOW_DETERMINISTIC_SCHEDULING  # pyright: ignore[reportPrivateUsage]
    shuffler.seed(seed)
    scheduling._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    try:
        yield
    finally:
        shuffler.setstate(before)
        scheduling._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed  # type: ignore[misc]
