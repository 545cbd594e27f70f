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
        """Call all of them: those of this thread here and now, others soon."""
        for wake, thread, call_soon in tuple(self._listeners):
            if thread == get_ident():
                wake(run_id)
            else:
                with suppress(RuntimeError):  # that event loop is gone
                    call_soon(partial(wake, run_id))

    async def listen(self, wake: Wake) -> None:
        """Add `wake` until cancelled."""
        listener = _Listener(wake, get_ident(), call_soon_here())
        self._listeners.append(listener)
        try:
            await sleep_forever()
        finally:
            self._listeners.remove(listener)
