"""The signals that stop workers."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

import anyio

__all__ = ["hearing", "next_signal", "pass_over", "stop_hearing"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Some who send a signal send it twice, to the process and to its group: that is one.
_ONE_S = 0.5


def hearing() -> AbstractContextManager[AsyncIterator[signal.Signals]]:
    """SIGTERM and SIGINT, which Ctrl-C sends, while this is entered; in the main thread only."""
    return anyio.open_signal_receiver(*_SIGNALS)


async def next_signal(signals: AsyncIterator[signal.Signals]) -> str:
    """The name of the next signal."""
    return signal.Signals(await anext(signals)).name


async def pass_over(signals: AsyncIterator[signal.Signals]) -> None:
    """Take no notice of what comes right behind a signal."""
    with anyio.move_on_after(_ONE_S):
        async for _ in signals:
            pass


def stop_hearing() -> None:
    """From now on a signal ends the process, however busy it is."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
