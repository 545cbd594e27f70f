"""What is in a file after a measurement, so that a workload can tell that it measured what it meant to."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple


class Contents(NamedTuple):
    """The runs by status, the entries of all journals, and the timers."""

    runs: dict[str, int]
    entries: int
    timers: int = 0


def contents(path: Path) -> Contents:
    """Counted by a connection of its own."""
    with closing(sqlite3.connect(path)) as db:
        runs = dict(db.execute("select status, count(*) from reflow_run group by status"))
        [entries] = db.execute("select count(*) from reflow_entry").fetchone()
        [timers] = db.execute("select count(*) from reflow_timer").fetchone()
    return Contents(runs, entries, timers)
