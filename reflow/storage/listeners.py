"""Who in this process wants to hear that there may be something new to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import NamedTuple, TypeAlias

from anyio import sleep_forever

from reflow.storage.loop import CallSoon, call_soon_here

__all__ = ["Listeners", "Wake"]

Wake: TypeAlias = Callable[[str | None], object]
"""Says that there may be something new to do, and for which run; None where that is not known, or for a new one."""


class _Listener(NamedTuple):
    wake: Wake
    thread: int
    call_soon: CallSoon


class Listeners:
    """The callbacks of those who listen to one adapter; each is called in the event loop in which it was given."""

    def __init__(self) -> None:
        self._listeners: list[_Listener] = []

    def wake(self, run_id: str | None = None) -> None:
        """Call all of them: those of this thread here and now, others soon, if they still listen then."""
        for listener in tuple(self._listeners):
            if listener.thread == get_ident():
                listener.wake(run_id)
            else:
                with suppress(RuntimeError):  # that event loop is gone
                    listener.call_soon(partial(self._wake_here, listener, run_id))

    def _wake_here(self, listener: _Listener, run_id: str | None) -> None:
        if listener in self._listeners:
            listener.wake(run_id)

    async def listen(self, wake: Wake) -> None:
        """Add `wake` until cancelled."""
        listener = _Listener(wake, get_ident(), call_soon_here())
        self._listeners.append(listener)
        try:
            await sleep_forever()
        finally:
            self._listeners.remove(listener)
