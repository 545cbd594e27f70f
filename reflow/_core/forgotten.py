"""Finds commands that were made and never yielded: `step(charge, card)` on a line of its own does nothing.

Every command made while a workflow body runs is noted by a weak reference. A command that is gone by the next yield
was forgotten, and is reported there, before anything else is performed. One that is still held may be yielded later;
it is reported at the return. An exception on its way excuses all: it may have jumped over a yield.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from sys import exception
from typing import Any
from weakref import ref

__all__ = ["Forgotten", "noted", "replaced"]

_watcher: ContextVar[Forgotten | None] = ContextVar("reflow_forgotten", default=None)


class Forgotten:
    """The commands made by one run and not yet yielded: since the last yield, and before it."""

    __slots__ = ("handled", "held", "made")

    def __init__(self) -> None:
        # The exception (its id) that is being handled, and has excused what was made before it.
        self.handled = 0
        self.made: list[tuple[ref[Any], str]] = []
        self.held: dict[ref[Any], str] = {}

    def watch(self) -> None:
        """Note the commands made in this context from now on."""
        _watcher.set(self)

    def yielded(self, commands: Iterable[object]) -> str | None:
        """Take note that `commands` were yielded; the name of a command that was dropped before it was, or None."""
        for reference, name in self.made:
            if reference() is None:
                self.excuse()
                return name
            self.held[reference] = name
        self.made.clear()
        for command in commands:
            self.held.pop(ref(command), None)
        return None

    def returned(self) -> str | None:
        """At the return: the name of a command that was never yielded, or None."""
        left = next(iter(self.held.values()), self.made[0][1] if self.made else None)
        self.excuse()
        return left

    def excuse(self) -> None:
        """Forget about all that were made so far."""
        self.held.clear()
        self.made.clear()


def noted(command: Any) -> None:
    """Note a command that was just made, if a workflow body is running."""
    if watcher := _watcher.get():
        error = exception()
        if error is None:
            watcher.handled = 0
        elif id(error) != watcher.handled:
            watcher.excuse()
            watcher.handled = id(error)
        watcher.made.append((ref(command), command.name))


def replaced(command: Any) -> None:
    """Take a command back of which a changed copy was made."""
    if watcher := _watcher.get():
        watcher.held.pop(ref(command), None)
        # The last one made, as a rule.
        for index in reversed(range(len(watcher.made))):
            if watcher.made[index][0]() is command:
                del watcher.made[index]
                break
