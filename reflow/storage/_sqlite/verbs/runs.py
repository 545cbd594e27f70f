"""Creating runs, and reading one."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from reflow.storage._sqlite.verbs.rows import RUN, marks, run_of, run_values
from reflow.storage.records import NewRun, RunRow

__all__ = ["create_run", "create_runs", "get_run"]

_CREATE = f"insert into reflow_run ({RUN}, keyed_as) values ({marks(RUN)}, ?) on conflict do nothing"
_TAG = "insert into reflow_tag (tag, run) values (?, ?)"
_BY_ID = f"select {RUN} from reflow_run where run_id = ?"
_BY_KEY = f"select {RUN} from reflow_run where keyed_as = ? and idempotency_key = ?"


def create_runs(db: Connection, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
    """Clauses C."""
    return [create_run(db, run) for run in runs]


def create_run(db: Connection, new: NewRun) -> tuple[RunRow, bool]:
    """The row of a run, and whether it was created."""
    row = new.row()
    created = db.execute(_CREATE, (*run_values(row), new.workflow))
    if created.rowcount:
        db.executemany(_TAG, [(tag, created.lastrowid) for tag in dict.fromkeys(new.tags)])
        return row, True
    known = get_run(db, new.run_id)
    return known or run_of(db.execute(_BY_KEY, (new.workflow, new.idempotency_key)).fetchone()), False


def get_run(db: Connection, run_id: str) -> RunRow | None:
    """Clauses G."""
    row = db.execute(_BY_ID, (run_id,)).fetchone()
    return run_of(row) if row else None
