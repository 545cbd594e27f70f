"""What anyio has no call for, or a dear one: how a thread reaches the event loop that waits for it, of asyncio or trio,
without blocking; an event in that loop, and one turn of it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["CallSoon", "Signal", "call_soon_here", "next_turn", "signal_here"]

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


def signal_here() -> Signal:
    """A new one for the event loop that runs here. Making one of anyio's is several times as much work."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        event: Signal = trio.Event()
        return event
    return _AsyncioSignal(sys.modules["asyncio"].get_running_loop())


def call_soon_here() -> CallSoon:
    """The one of the event loop that runs here."""
    # Looked up among what is loaded: one of them runs here. asyncio second, because trio may be a guest in its loop.
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        call_soon: CallSoon = trio.lowlevel.current_trio_token().run_sync_soon
        return call_soon
    loop_call_soon: CallSoon = sys.modules["asyncio"].get_running_loop().call_soon_threadsafe
    return loop_call_soon


async def next_turn() -> None:
    """Let everybody run who is ready. May be cancelled."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        await trio.lowlevel.checkpoint()
    else:
        await sys.modules["asyncio"].sleep(0)
