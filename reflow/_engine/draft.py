"""What an engine has learned about a run and not yet written."""

from __future__ import annotations

from reflow._core.journal import Entry, Timer
from reflow.storage.records import Ending, Lease, NewRun, Progress

__all__ = ["Draft"]


class Draft:
    """Collects what goes into the next write. `recorded` entries are in the journal already."""

    __slots__ = ("cancelled", "consumed", "entries", "is_cancel_delivered", "recorded", "started", "timers")

    def __init__(self, recorded: int) -> None:
        self.recorded = recorded
        self.entries: list[Entry] = []
        # By position; None where the timer goes.
        self.timers: dict[str, Timer | None] = {}
        self.consumed: list[int] = []
        self.started: list[NewRun] = []
        self.cancelled: list[str] = []
        self.is_cancel_delivered = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write. (Whatever else there is comes with an entry or a timer.)"""
        return not (self.entries or self.timers)

    def progress(self, lease: Lease, now: int, ending: Ending | None) -> Progress:
        """All of it as one write."""
        timers = self.timers
        return Progress(
            lease,
            now,
            self.recorded,
            self.entries,
            [timer for timer in timers.values() if timer is not None] if timers else [],
            [position for position, timer in timers.items() if timer is None] if timers else [],
            ending,
            self.consumed,
            self.started,
            self.cancelled,
            self.is_cancel_delivered,
        )

    def following(self) -> Draft:
        """The draft of what comes after this one was written."""
        return Draft(self.recorded + len(self.entries))
