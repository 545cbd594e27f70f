"""The contract's verbs as functions of a connection: each runs inside a transaction that somebody else opened.

They can be run again after a roll-back, which is what the lane does when a verb beside them fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

from reflow._core.journal import Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage.records import Claimed, Lease, NewRun, Progress, RunRow

__all__ = ["claim_runs", "create_run", "get_journal", "get_run", "heartbeat", "save_progress"]

_RUN = ", ".join(RunRow.__struct_fields__)
# The digest has no column yet.
_ENTRY = ", ".join(Entry.__struct_fields__[:-1])
_TIMER = ", ".join(Timer.__struct_fields__)

_CREATE = f"""insert into reflow_run (run_id, workflow, version, rules, input, due_at, created_at, updated_at, status,
    executions) values (?, ?, ?, ?, ?, ?, ?, ?, '{RunStatus.PENDING}', 0)
    on conflict (run_id) do nothing returning {_RUN}"""
_GET = f"select {_RUN} from reflow_run where run_id = ?"
_HELD = """select id, (select max(seq) from reflow_entry where run = id) from reflow_run
    where run_id = ? and lease_id = ?"""
_SCAN = """select due_at, id from reflow_run where workflow = ? and version = ? and due_at is not null
    order by due_at limit ?"""
_TAKE = f"""update reflow_run set status = '{RunStatus.RUNNING}', lease_id = ?, due_at = ?, updated_at = ?,
    executions = executions + 1 where id = ? returning {_RUN}"""
_HEARTBEAT = "update reflow_run set due_at = ? where run_id = ? and lease_id = ?"
_END = (
    "update reflow_run set status = ?, lease_id = null, due_at = ?, updated_at = ?, output = ?, error = ? where id = ?"
)
_APPEND = f"insert into reflow_entry (run, seq, {_ENTRY}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_SET_TIMER = f"insert or replace into reflow_timer (run, {_TIMER}) values (?, ?, ?, ?, ?, ?, ?, ?)"
_DROP_TIMER = "delete from reflow_timer where run = ? and position = ?"
_ENTRIES = f"select {_ENTRY} from reflow_entry where run = (select id from reflow_run where run_id = ?) order by seq"
_TIMERS = (
    f"select {_TIMER} from reflow_timer where run = (select id from reflow_run where run_id = ?) order by position"
)


def create_run(db: Connection, run: NewRun) -> tuple[RunRow, bool]:
    """Clauses C."""
    values = (run.run_id, run.workflow, run.version, run.rules, run.input, run.due_at, run.created_at, run.created_at)
    row = db.execute(_CREATE, values).fetchone()
    return (_run(row), True) if row else (_run(db.execute(_GET, (run.run_id,)).fetchone()), False)


def claim_runs(
    db: Connection, workflows: Sequence[tuple[str, int]], limit: int, lease_id: str, now: int, lease_until: int
) -> Claimed:
    """Clauses D.

    One range scan of the partial index for each named pair: the backlog of others, sleepers and ended runs cost
    nothing. One row more than `limit` is read, to know when the next is due.
    """
    waiting = sorted(row for pair in dict.fromkeys(workflows) for row in db.execute(_SCAN, (*pair, limit + 1)))
    due = [id for due_at, id in waiting[:limit] if due_at <= now]
    left = waiting[len(due) :]
    rows = [_run(db.execute(_TAKE, (lease_id, lease_until, now, id)).fetchone()) for id in due]
    return Claimed(rows, left[0][0] if left else None)


def heartbeat(db: Connection, leases: Sequence[Lease], lease_until: int) -> list[Lease]:
    """Clauses E."""
    return [
        lease for lease in leases if not db.execute(_HEARTBEAT, (lease_until, lease.run_id, lease.lease_id)).rowcount
    ]


def save_progress(db: Connection, progress: Progress) -> bool:
    """Clauses F. The fence is the first statement; the transaction holds the write lock, so it stays true."""
    held = db.execute(_HELD, (progress.lease.run_id, progress.lease.lease_id)).fetchone()
    if held is None:
        return False
    run, last = held
    length = 0 if last is None else last + 1
    if length < progress.recorded:
        raise StorageError("save_progress", f"entries of run {progress.lease.run_id!r} are missing")
    for seq, entry in enumerate(progress.entries[length - progress.recorded :], length):
        db.execute(
            _APPEND,
            (
                run, seq, entry.position, entry.kind, entry.name, entry.failed, entry.payload, entry.attempts,
                entry.started_at, entry.recorded_at,
            ),
        )  # fmt: skip
    for timer in progress.timers:
        values = (timer.position, timer.kind, timer.name, timer.due_at, timer.attempts, timer.started_at, timer.failure)
        db.execute(_SET_TIMER, (run, *values))
    for position in progress.settled:
        db.execute(_DROP_TIMER, (run, position))
    if ending := progress.ending:
        db.execute(_END, (ending.status, ending.due_at, progress.now, ending.output, ending.error, run))
    return True


def get_run(db: Connection, run_id: str) -> RunRow | None:
    """Clauses G."""
    row = db.execute(_GET, (run_id,)).fetchone()
    return _run(row) if row else None


def get_journal(db: Connection, run_id: str) -> Journal:
    """Clauses H."""
    entries = [
        Entry(position, kind, name, failed != 0, *rest)
        for position, kind, name, failed, *rest in db.execute(_ENTRIES, (run_id,))
    ]
    return Journal(entries, [Timer(*row) for row in db.execute(_TIMERS, (run_id,))])


def _run(row: tuple[Any, ...]) -> RunRow:
    run_id, workflow, version, rules, status, *rest = row
    try:
        return RunRow(run_id, workflow, version, rules, RunStatus(status), *rest)
    except ValueError:
        raise StorageError("read a run", f"run {run_id!r} has the unknown status {status!r}") from None
