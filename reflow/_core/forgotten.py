"""Finds commands that were made and never yielded: `step(charge, card)` on a line of its own does nothing.

While a workflow body runs, every command made is noted by a weak reference. One that dies as the value of an expression
statement - the interpreter's POP_TOP, on CPython at that very moment - was forgotten, and is reported at the next yield
or at the return, before anything else is performed. A command that is kept is nobody's business: a saga may collect
the steps that undo it and need none of them; an exception may jump over a yield.
"""

from __future__ import annotations

from contextvars import ContextVar
from dis import opmap
from sys import _getframe as frame_above  # pyright: ignore[reportPrivateUsage]
from typing import Any
from weakref import ref

__all__ = ["Forgotten", "noted", "replaced"]

_watcher: ContextVar[Forgotten | None] = ContextVar("reflow_forgotten", default=None)

_POP_TOP = opmap["POP_TOP"]


class Forgotten:
    """The commands made by one run since its last yield, and the name of the first that was dropped."""

    __slots__ = ("dropped", "made")

    def __init__(self) -> None:
        self.dropped: str | None = None
        self.made: list[tuple[ref[Any], str]] = []

    def watch(self) -> None:
        """Note the commands made in this context from now on."""
        _watcher.set(self)

    def excuse(self) -> None:
        """Forget about all that were made so far."""
        self.dropped = None
        self.made.clear()

    def __call__(self, reference: ref[Any]) -> None:
        """A command that was made and not yielded is gone."""
        frame = frame_above(1)
        if self.dropped is None and frame.f_code.co_code[frame.f_lasti] == _POP_TOP:
            self.dropped = next((name for made, name in self.made if made is reference), None)


def noted(command: Any) -> None:
    """Note a command that was just made, if a workflow body is running."""
    if watcher := _watcher.get():
        watcher.made.append((ref(command, watcher), command.name))


def replaced(command: Any) -> None:
    """Take a command back of which a changed copy was made."""
    if watcher := _watcher.get():
        # The last one made, as a rule.
        for index in reversed(range(len(watcher.made))):
            if watcher.made[index][0]() is command:
                del watcher.made[index]
                break
