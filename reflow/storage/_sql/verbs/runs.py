"""Creating runs, and reading one."""

from __future__ import annotations

from collections.abc import Sequence

from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import RUN, as_text, marks, run_of
from reflow.storage.records import NewRun, RunRow

__all__ = [
    "INSERT",
    "NEW_RUN",
    "SAME",
    "TAG",
    "create_run",
    "create_runs",
    "create_runs_of_each",
    "get_run",
    "known_run",
    "new_run_values",
    "tag",
]

NEW_RUN = """run_id, workflow, version, rules, priority, due_at, created_at, updated_at, tags, idempotency_key,
    keyed_as, parent, parent_position, input"""
"""The columns that new runs differ in; what is the same for all is not bound."""

INSERT = f"""insert into reflow_run (status, executions, idle_claims, generation, cancel_requested, cancel_delivered,
    last_message, {NEW_RUN})"""
"""How a statement begins that inserts `SAME` and `NEW_RUN`."""

SAME = f"'{RunStatus.PENDING}', 0, 0, 0, 0, 0, 0"
"""The values of the other columns."""

_CREATE = f"{INSERT} values ({SAME}, {marks(NEW_RUN)}) on conflict do nothing"
TAG = "insert into reflow_tag (tag, run) select ?, id from reflow_run where run_id = ?"
_BY_ID = f"select {RUN} from reflow_run where run_id = ?"
_BY_KEY = f"select {RUN} from reflow_run where keyed_as = ? and idempotency_key = ?"


def create_runs_of_each(db: Database, calls: Sequence[Sequence[NewRun]]) -> list[list[tuple[RunRow, bool]]]:
    """Clauses C, for each of several calls."""
    return [create_runs(db, runs) for runs in calls]


def create_runs(db: Database, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
    """Clauses C."""
    return [create_run(db, run) for run in runs]


def create_run(db: Database, new: NewRun) -> tuple[RunRow, bool]:
    """The row of a run, and whether it was created."""
    if db.execute(_CREATE, new_run_values(new)).rowcount:
        tag(db, [new])
        return new.row(), True
    return known_run(db, new), False


def new_run_values(new: NewRun) -> tuple[object, ...]:
    """What is bound to `NEW_RUN`."""
    return (
        new.run_id, new.workflow, new.version, new.rules, new.priority, new.due_at, new.created_at, new.created_at,
        as_text(new.tags), new.idempotency_key, new.workflow, new.parent, new.parent_position, new.input,
    )  # fmt: skip


def tag(db: Database, runs: Sequence[NewRun]) -> None:
    """Write down the tags of runs that were created."""
    if rows := [(text, new.run_id) for new in runs for text in dict.fromkeys(new.tags)]:
        db.executemany(TAG, rows)


def known_run(db: Database, new: NewRun) -> RunRow:
    """The run that has the id of a new one, or its key."""
    return get_run(db, new.run_id) or run_of(db.execute(_BY_KEY, (new.workflow, new.idempotency_key)).fetchone())


def get_run(db: Database, run_id: str) -> RunRow | None:
    """Clauses G."""
    row = db.execute(_BY_ID, (run_id,)).fetchone()
    return run_of(row) if row else None
