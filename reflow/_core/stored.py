"""What is stored of a run, while replay works through it: what is still to come says how far the run was."""

from __future__ import annotations

from collections.abc import Container

from reflow._core.journal import PATCHED, Journal

__all__ = ["Stored"]


class Stored:
    """A journal, of which the first `fed` entries have been fed."""

    __slots__ = ("entries", "fed", "timers")

    def __init__(self, journal: Journal) -> None:
        self.entries = journal.entries
        self.timers = journal.timers
        self.fed = 0

    @property
    def is_empty(self) -> bool:
        """Whether the run has left nothing behind."""
        return not (self.entries or self.timers)

    def takes_part_in(self, change: str) -> bool:
        """Whether it stands written that the run takes the new way through `change`."""
        return any(entry.kind == PATCHED and entry.name == change for entry in self.entries)

    def goes_on(self, open_: Container[str]) -> bool:
        """Whether the run was further than this, where the commands at `open_` are open: an outcome is still to come,
        or a timer waits for a command that is not open yet. Marks do not count: they stand behind the entry that led to
        them, and several may."""
        return any(entry.kind != PATCHED for entry in self.entries[self.fed :]) or any(
            timer.position not in open_ for timer in self.timers
        )
