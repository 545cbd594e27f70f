"""What is in a place after a measurement, so that a workload can tell that it measured what it meant to."""

from __future__ import annotations

from typing import NamedTuple

from tests.bench.place import Place


class Contents(NamedTuple):
    """The runs by status, the entries of all journals, and the timers."""

    runs: dict[str, int]
    entries: int
    timers: int = 0


def contents(place: Place) -> Contents:
    """Counted by a connection of its own."""
    with place.connected() as db:
        runs = dict(db.execute("select status, count(*) from reflow_run group by status").fetchall())
        [entries] = db.execute("select count(*) from reflow_entry").fetchone()
        [timers] = db.execute("select count(*) from reflow_timer").fetchone()
    return Contents(runs, entries, timers)
