"""One reader's view of the lifecycle events: a buffer between the runs that tell and the loop that reads.

Model. `_held` is what was told and not read yet. Who tells more than the buffer holds is paused: its event stands in
`_paused` and moves up when there is room, in order. So `_paused` is not empty only while `_held` is full; with a buffer
of 0, where nothing is ever held, an event goes straight from there to a reader. Offering and taking do not wait: only
`Pause.over` and a reader with nothing to read do.

Leaving a loop tells nobody in Python, and a reader that has gone without closing would pause runs for ever. So a stream
closes itself when the last loop over it, or the stream itself, is let go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from anyio import Event, Lock

from reflow.events import LifecycleEvent

__all__ = ["Pause", "Stream"]

_KEPT = 10_000


class Pause:
    """A lifecycle event that waits for room in a stream. It knows the queue that it stands in, and not the stream:
    who is paused must not keep alive what nobody reads."""

    __slots__ = ("_over", "_queue", "event")

    def __init__(self, event: LifecycleEvent, queue: deque[Pause]) -> None:
        self.event = event
        self._queue = queue
        self._over = Event()
        queue.append(self)

    def end(self) -> None:
        """Go on: there is room, or nobody reads any more."""
        self._over.set()

    async def over(self) -> None:
        """Return when there is room, or nobody reads any more."""
        await self._over.wait()

    def withdraw(self) -> None:
        """Whoever was paused does not wait any longer; what has moved up stays."""
        with suppress(ValueError):
            self._queue.remove(self)


class Stream:
    """The lifecycle events from now on: `async for event in engine.stream(): ...`

    Each stream is given all of them; several readers of one share them. Leaving the loop ends it (with several, leaving
    the last), and so does `close`, or leaving `async with engine.stream() as stream`. When the engine stops, what is
    buffered can still be read; then the loop ends.

    `dropped` counts the lifecycle events that this stream has lost, because it was not read for too long.
    """

    def __init__(self, buffer: int | None, on_close: Callable[[Stream], None]) -> None:
        self.dropped = 0
        self._limit = buffer
        self._on_close = on_close
        self._held: deque[LifecycleEvent] = deque()
        self._paused: deque[Pause] = deque()
        self._loops = 0
        self._is_over = False
        # Readers take turns, in the order in which they came; only one looks for news.
        self._turn = Lock()
        self._news: Event | None = None

    def offer(self, event: LifecycleEvent) -> Pause | None:
        """Tell of `event`; gives a pause, to be waited for, where the buffer is full."""
        self._look()
        if self._limit is not None and len(self._held) >= self._limit:
            return Pause(event, self._paused)
        if self._limit is None and len(self._held) == _KEPT:
            self._held.popleft()
            self.dropped += 1
        self._held.append(event)
        return None

    def end(self) -> None:
        """Nothing more will come; what was told can still be read."""
        self._is_over = True
        while self._paused:
            self._move_up()
        self._look()

    def close(self) -> None:
        """Read no more: what is buffered is dropped, and nobody is paused any longer. Again is fine."""
        self.end()
        self._held.clear()
        self._on_close(self)

    async def aclose(self) -> None:
        """The same as `close`, for `contextlib.aclosing` and the like."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[LifecycleEvent]:
        self._loops += 1
        return _Loop(self.__anext__, self._loop_left)

    async def __anext__(self) -> LifecycleEvent:
        async with self._turn:
            while not (self._held or self._paused):
                if self._is_over:
                    raise StopAsyncIteration
                self._news = Event()
                await self._news.wait()
            if self._paused:
                self._move_up()
            return self._held.popleft()

    def __del__(self) -> None:
        self.close()

    def _loop_left(self) -> None:
        self._loops -= 1
        if not self._loops:
            self.close()

    def _move_up(self) -> None:
        pause = self._paused.popleft()
        self._held.append(pause.event)
        pause.end()

    def _look(self) -> None:
        """Have the reader look that waits for news."""
        if self._news is not None:
            self._news.set()


class _Loop:
    """One `async for` over a stream: the interpreter lets go of it when the loop is left, in whatever way."""

    def __init__(self, read: Callable[[], Awaitable[LifecycleEvent]], leave: Callable[[], None]) -> None:
        self._read = read
        self._leave = leave

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LifecycleEvent:
        return await self._read()

    def __del__(self) -> None:
        self._leave()
