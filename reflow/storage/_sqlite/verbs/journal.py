"""Reading journals."""

from __future__ import annotations

from sqlite3 import Connection

from reflow._core.journal import Entry, Journal, Timer
from reflow.storage._sqlite.verbs.mailbox import get_messages
from reflow.storage._sqlite.verbs.rows import ENTRY, TIMER, entry_of

__all__ = ["get_cut_entries", "get_journal"]

_OF_RUN = "where run = (select id from reflow_run where run_id = ?)"
_ENTRIES = f"select {ENTRY} from reflow_entry {_OF_RUN} order by seq"
_TIMERS = f"select {TIMER} from reflow_timer {_OF_RUN} order by position"
_CUT_ENTRIES = f"select {ENTRY} from reflow_cut_entry {_OF_RUN} order by cut, seq"


def get_journal(db: Connection, run_id: str) -> Journal:
    """Clauses H."""
    entries = [entry_of(row) for row in db.execute(_ENTRIES, (run_id,))]
    timers = [Timer(*row) for row in db.execute(_TIMERS, (run_id,))]
    return Journal(entries, timers, get_messages(db, run_id, after=0))


def get_cut_entries(db: Connection, run_id: str) -> list[Entry]:
    """Clauses N."""
    return [entry_of(row) for row in db.execute(_CUT_ENTRIES, (run_id,))]
