"""The ends of runs, as far as they are seen in this process: what handles wait for.

There is one `Ends` for each storage and event loop, shared by all clients and engines on it: a run may be started by
one and ended by another. Handles alone keep an `End`: one that nobody holds waits for nothing. What ends in another
process gives no signal, and has to be looked for.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary, WeakValueDictionary

from anyio import Event
from anyio.lowlevel import RunVar

from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending

__all__ = ["End", "Ends"]


class End:
    """The end of one run, once it was seen; there is a signal while somebody waits for it."""

    __slots__ = ("__weakref__", "_signal", "ending")

    def __init__(self) -> None:
        self.ending: Ending | None = None
        self._signal: Event | None = None

    def news(self) -> Event:
        """Set when there is reason to look again."""
        if self._signal is None:
            self._signal = Event()
        return self._signal

    def look(self, ending: Ending | None = None) -> None:
        """Wake whoever waits: the run has ended so, or may have ended elsewhere."""
        self.ending = ending or self.ending
        signal, self._signal = self._signal, None
        if signal is not None:
            signal.set()


class Ends:
    """The ends of the runs in one storage that somebody may wait for."""

    def __init__(self) -> None:
        self._ends: WeakValueDictionary[str, End] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._ends)

    @staticmethod
    def of(storage: StorageAdapter) -> Ends:
        """Those of this storage, in the event loop that runs here."""
        known: WeakKeyDictionary[StorageAdapter, Ends] | None = _known.get(None)
        if known is None:
            _known.set(known := WeakKeyDictionary[StorageAdapter, Ends]())
        ends = known.get(storage)
        if ends is None:
            ends = known[storage] = Ends()
        return ends

    def end_of(self, run_id: str) -> End:
        """The end of this run; keep it as long as you wait."""
        end = self._ends.get(run_id)
        if end is None:
            end = self._ends[run_id] = End()
        return end

    def ended(self, run_id: str, ending: Ending) -> None:
        """Tell of an end."""
        if end := self._ends.get(run_id):
            end.look(ending)

    def look(self) -> None:
        """Have everybody look who waits."""
        for end in list(self._ends.values()):
            end.look()


_known: RunVar[WeakKeyDictionary[StorageAdapter, Ends] | None] = RunVar("reflow_ends")
