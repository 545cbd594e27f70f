"""What anyio has no call for, or a dear one: how a thread reaches the event loop that waits for it, of asyncio or trio,
without blocking; an event in that loop, and one turn of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = ["CallSoon", "Signal", "call_soon_here", "next_turn", "signal_here"]

CallSoon: TypeAlias = Callable[[Callable[[], object]], object]
"""Has something called in an event loop, from any thread; RuntimeError when the loop is gone."""


class Signal(Protocol):
    """An event, as far as both libraries have the same: who waits for it goes on once it is set."""

    def set(self) -> object:
        """Let everybody go on who waits, now or later; to be called in the event loop."""
        ...

    async def wait(self) -> object:
        """Return once it is set. May be cancelled; need not give others a turn where it is set already."""
        ...


def signal_here() -> Signal:
    """A new one for the event loop that runs here. Making one of anyio's is several times as much work."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        event: Signal = trio.Event()
    else:
        event = sys.modules["asyncio"].Event()
    return event


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
