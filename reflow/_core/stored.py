"""What is stored of a run, while replay works through it: what is still to come says how far the run was."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property

from reflow._core.journal import PATCHED, Journal

__all__ = ["Stored"]


class Stored:
    """A journal, of which the first `fed` entries have been fed."""

    def __init__(self, journal: Journal) -> None:
        self.entries = journal.entries
        self.timers = journal.timers
        self.fed = 0

    @property
    def is_empty(self) -> bool:
        """Whether the run has left nothing behind."""
        return not (self.entries or self.timers)

    @cached_property
    def changes(self) -> frozenset[str]:
        """The changes of the code that the run takes the new way through, as its marks say."""
        return frozenset(entry.name for entry in self.entries if entry.kind == PATCHED)

    def goes_on(self, open_: Container[str]) -> bool:
        """Whether the run was further than this, where the commands at `open_` are open: an outcome is still to come,
        or a timer waits for a command that is not open yet. Marks do not count: they stand behind the entry that led to
        them, and several may."""
        left = range(self.fed, len(self.entries))
        return any(self.entries[index].kind != PATCHED for index in left) or any(
            timer.position not in open_ for timer in self.timers
        )
