"""What anyio has no call for, or a dear one: how a thread reaches the event loop that waits for it, of asyncio or trio,
without blocking; an event in that loop, and one turn of it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["CallSoon", "Signal", "call_soon_here", "next_turn", "signal_here", "trio_here"]

CallSoon: TypeAlias = Callable[[Callable[[], object]], object]
"""Has something called in an event loop, from any thread; RuntimeError when the loop is gone."""


class Signal(Protocol):
    """An event, as far as both libraries have the same: who waits for it goes on once it is set."""

    def set(self) -> object:
        """Let everybody go on who waits, now or later; to be called in the event loop."""
        ...

    def wait(self) -> Awaitable[object]:
        """To be awaited: until it is set. May be cancelled; need not give others a turn where it is set already."""
        ...


class _AsyncioSignal:
    """asyncio's own event asks, for each that waits, which event loop this is, and looks for it when it goes on; for a
    signal that is set once that is half of the work."""

    __slots__ = ("_is_set", "_loop", "_waiting")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Future[None]] = []
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def wait(self) -> Future[None]:
        waiter = self._loop.create_future()
        if self._is_set:
            waiter.set_result(None)
        else:
            self._waiting.append(waiter)
        return waiter


def trio_here() -> Any:
    """The module trio, in a task of it; None in a task of asyncio, also where trio is a guest in that loop."""
    # Looked up among what is loaded: it need not be installed.
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        return trio if trio.lowlevel.in_trio_task() else None
    except AttributeError:
        # Another thread is just importing it, so nothing of it can be running.
        return None


def signal_here() -> Signal:
    """A new one for the event loop that runs here. Making one of anyio's is several times as much work."""
    if (trio := trio_here()) is not None:
        event: Signal = trio.Event()
        return event
    return _AsyncioSignal(sys.modules["asyncio"].get_running_loop())


def call_soon_here() -> CallSoon:
    """The one of the event loop that runs here."""
    if (trio := trio_here()) is not None:
        call_soon: CallSoon = trio.lowlevel.current_trio_token().run_sync_soon
        return call_soon
    loop_call_soon: CallSoon = sys.modules["asyncio"].get_running_loop().call_soon_threadsafe
    return loop_call_soon


async def next_turn() -> None:
    """Let everybody run who is ready. May be cancelled."""
    if (trio := trio_here()) is not None:
        await trio.lowlevel.checkpoint()
    else:
        await sys.modules["asyncio"].sleep(0)
