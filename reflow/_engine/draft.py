"""What an engine has learned about a run and not yet written."""

from __future__ import annotations

from msgspec import Struct

from reflow._core.journal import Entry, Timer
from reflow.storage.records import Ending, Lease, NewRun, Progress

__all__ = ["Draft"]


class Draft(Struct, eq=False):
    """Collects what goes into the next write. `recorded` entries are in the journal already; `timers` are by position,
    None where one goes."""

    recorded: int
    entries: list[Entry] = []
    timers: dict[str, Timer | None] = {}
    consumed: list[int] = []
    started: list[NewRun] = []
    cancelled: list[str] = []
    is_cancel_delivered: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write. (Whatever else there is comes with an entry or a timer.)"""
        return not (self.entries or self.timers)

    def progress(self, lease: Lease, now: int, ending: Ending | None) -> Progress:
        """All of it as one write."""
        if self._is_plain:
            return Progress(lease, now, self.recorded, self.entries, ending=ending)
        timers = self.timers
        return Progress(
            lease,
            now,
            self.recorded,
            self.entries,
            [timer for timer in timers.values() if timer is not None],
            [position for position, timer in timers.items() if timer is None],
            ending,
            self.consumed,
            self.started,
            self.cancelled,
            self.is_cancel_delivered,
        )

    def written(self) -> None:
        """What is here is in the storage now: begin the next write."""
        self.recorded += len(self.entries)
        self.entries = []
        if not self._is_plain:
            self.timers, self.consumed, self.started, self.cancelled = {}, [], [], []
            self.is_cancel_delivered = False

    @property
    def _is_plain(self) -> bool:
        """Whether there are only entries, as nearly always."""
        return not (self.timers or self.consumed or self.started or self.cancelled or self.is_cancel_delivered)
