"""The signals that stop workers: SIGTERM, and SIGINT, which Ctrl-C sends.

The first one asks to stop. Some who send a signal send it twice, to a process and to its group: what comes right behind
is the same one. Another one after that means: at once.

The handlers are Python's and not those of the event loop: a loop that is busy cannot put them off, and from the first
to the last there is no moment in which the system's own are there again.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from anyio import Event

from reflow.storage.loop import call_soon_here

__all__ = ["Signals", "ignored_in_the_end"]

_STOPPING = (signal.SIGTERM, signal.SIGINT)
_ONE_S = 0.5


class Signals:
    """Heard from now on: the first one sets `told`, a second one calls `at_once`, in the midst of whatever is done.

    To be made in the main thread, within an event loop. `name` is that of the first, empty before it.
    """

    def __init__(self, told: Event, at_once: Callable[[int], None]) -> None:
        self.name = ""
        self._told = told
        self._at_once = at_once
        self._again_at = 0.0
        self._call_soon = call_soon_here()
        for number in _STOPPING:
            signal.signal(number, self._hear)

    def hurry(self, code: int) -> None:
        """All is done: from now on a second signal only hurries the end, which has this exit code."""

        def end(_number: int) -> None:
            os._exit(code)

        self._at_once = end

    def _hear(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if not self.name:
            self.name, self._again_at = signal.Signals(number).name, now + _ONE_S
            with suppress(RuntimeError):  # the event loop is gone
                self._call_soon(self._told.set)
        elif now > self._again_at:
            self._at_once(number)


def ignored_in_the_end() -> None:
    """Call it before modules are loaded, so that it comes last. Python gives the signals back to the system in its very
    last moments, and one that comes then must not look as if it had ended a process that was done."""
    atexit.register(_ignore)


def _ignore() -> None:
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
