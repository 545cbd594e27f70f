"""Reading journals."""

from __future__ import annotations

from reflow._core.journal import Entry, Journal, Timer
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.mailbox import get_messages
from reflow.storage._sql.verbs.rows import ENTRY, TIMER

__all__ = ["get_cut_entries", "get_journal", "read_entries"]

_OF_RUN = "where run = (select id from reflow_run where run_id = ?)"
_ENTRIES = f"select {ENTRY} from reflow_entry {_OF_RUN} order by seq"
_TIMERS = f"select {TIMER} from reflow_timer {_OF_RUN} order by position"
_CUT_ENTRIES = f"select {ENTRY} from reflow_cut_entry {_OF_RUN} order by cut, seq"


def get_journal(db: Database, run_id: str) -> Journal:
    """Clauses H."""
    timers = [Timer(*row) for row in db.execute(_TIMERS, (run_id,))]
    return Journal(read_entries(db, _ENTRIES, run_id), timers, get_messages(db, run_id, after=0))


def get_cut_entries(db: Database, run_id: str) -> list[Entry]:
    """Clauses N."""
    return read_entries(db, _CUT_ENTRIES, run_id)


def read_entries(db: Database, query: str, *values: str | int) -> list[Entry]:
    """The entries that a query of `ENTRY` finds."""
    # Spelled out: this is what replay costs, and journals may be long.
    return [
        Entry(position, kind, name, failed != 0, payload, attempts, started_at, recorded_at, digest)
        for position, kind, name, failed, payload, attempts, started_at, recorded_at, digest in db.execute(
            query, values
        )
    ]
