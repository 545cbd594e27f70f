"""The contract's verbs as functions of a connection: each runs inside a transaction that somebody else opened.

A verb takes the arguments of neighbouring calls and gives the answers to them: how much is prepared once for all of
them is its own business. It can be run again after a roll-back, which is what the lane does, call by call, when one
fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from reflow._core.journal import Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage.records import Claimed, Lease, NewRun, Progress, RunRow

__all__ = ["Claim", "Heartbeat", "claim_runs", "create_run", "get_journal", "get_run", "heartbeat", "save_progress"]

_RUN = ", ".join(RunRow.__struct_fields__)
_ENTRY = ", ".join(Entry.__struct_fields__)
_TIMER = ", ".join(Timer.__struct_fields__)

_CREATE = f"""insert into reflow_run (run_id, workflow, version, rules, input, due_at, created_at, updated_at, status,
    executions) values (?, ?, ?, ?, ?, ?, ?, ?, '{RunStatus.PENDING}', 0)
    on conflict (run_id) do nothing"""
_GET = f"select {_RUN} from reflow_run where run_id = ?"
_HELD = """select run_id, lease_id, id, (select max(seq) + 1 from reflow_entry where run = id) from reflow_run
    where lease_id is not null and run_id in"""
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


class Claim(NamedTuple):
    """The arguments of a claim."""

    workflows: Sequence[tuple[str, int]]
    limit: int
    lease_id: str
    now: int
    lease_until: int


class Heartbeat(NamedTuple):
    """The arguments of a heartbeat."""

    leases: Sequence[Lease]
    lease_until: int


def create_run(db: Connection, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
    """Clauses C."""
    return [_create(db, run) for run in runs]


def _create(db: Connection, run: NewRun) -> tuple[RunRow, bool]:
    values = (run.run_id, run.workflow, run.version, run.rules, run.input, run.due_at, run.created_at, run.created_at)
    if db.execute(_CREATE, values).rowcount:
        return RunRow(
            run.run_id, run.workflow, run.version, run.rules, RunStatus.PENDING, run.due_at, None, 0, run.created_at,
            run.created_at, run.input, None, None,
        ), True  # fmt: skip
    return _run(db.execute(_GET, (run.run_id,)).fetchone()), False


def claim_runs(db: Connection, claims: Sequence[Claim]) -> list[Claimed]:
    """Clauses D."""
    return [_claim(db, claim) for claim in claims]


def _claim(db: Connection, claim: Claim) -> Claimed:
    """One range scan of the partial index for each named pair: the backlog of others, sleepers and ended runs cost
    nothing. One row more than `limit` is read, to know when the next is due.
    """
    limit, now = claim.limit, claim.now
    waiting = sorted(row for pair in dict.fromkeys(claim.workflows) for row in db.execute(_SCAN, (*pair, limit + 1)))
    due = [id for due_at, id in waiting[:limit] if due_at <= now]
    left = waiting[len(due) :]
    rows = [_run(db.execute(_TAKE, (claim.lease_id, claim.lease_until, now, id)).fetchone()) for id in due]
    return Claimed(rows, left[0][0] if left else None)


def heartbeat(db: Connection, heartbeats: Sequence[Heartbeat]) -> list[list[Lease]]:
    """Clauses E."""
    return [
        [lease for lease in leases if not db.execute(_HEARTBEAT, (until, lease.run_id, lease.lease_id)).rowcount]
        for leases, until in heartbeats
    ]


def save_progress(db: Connection, progresses: Sequence[Progress]) -> list[bool]:
    """Clauses F. The fence comes first, for all at once; the transaction holds the write lock, so it stays true.

    Rows of one kind are written by one statement, run many times: this is what every step costs.
    """
    asked = [progress.lease.run_id for progress in progresses]
    # Padded to a power of two, so that there are few statements to prepare.
    size = 1 << (len(asked) - 1).bit_length()
    rows = db.execute(f"{_HELD} ({', '.join('?' * size)})", (*asked, *[None] * (size - len(asked))))
    runs = {(run_id, lease_id): (id, length) for run_id, lease_id, id, length in rows}
    entries: list[tuple[Any, ...]] = []
    timers: list[tuple[Any, ...]] = []
    settled: list[tuple[Any, ...]] = []
    endings: list[tuple[Any, ...]] = []
    answers: list[bool] = []
    for progress in progresses:
        lease = progress.lease
        held = runs.get((lease.run_id, lease.lease_id))
        answers.append(held is not None)
        if held is None:
            continue
        run, length = held[0], held[1] or 0
        if length < progress.recorded:
            raise StorageError("save_progress", f"entries of run {lease.run_id!r} are missing")
        for entry in progress.entries[length - progress.recorded :]:
            entries.append(
                (
                    run, length, entry.position, entry.kind, entry.name, entry.failed, entry.payload, entry.attempts,
                    entry.started_at, entry.recorded_at,
                )
            )  # fmt: skip
            length += 1
        for timer in progress.timers:
            timers.append(
                (
                    run, timer.position, timer.kind, timer.name, timer.due_at, timer.attempts, timer.started_at,
                    timer.failure,
                )
            )  # fmt: skip
        settled += [(run, position) for position in progress.settled]
        ending = progress.ending
        if ending is None:
            # The same run may come again in this list.
            runs[lease.run_id, lease.lease_id] = run, length
        else:
            endings.append((ending.status, ending.due_at, progress.now, ending.output, ending.error, run))
            del runs[lease.run_id, lease.lease_id]
    for statement, many in ((_APPEND, entries), (_SET_TIMER, timers), (_DROP_TIMER, settled), (_END, endings)):
        if many:
            db.executemany(statement, many)
    return answers


def get_run(db: Connection, run_ids: Sequence[str]) -> list[RunRow | None]:
    """Clauses G."""
    rows = [db.execute(_GET, (run_id,)).fetchone() for run_id in run_ids]
    return [_run(row) if row else None for row in rows]


def get_journal(db: Connection, run_ids: Sequence[str]) -> list[Journal]:
    """Clauses H."""
    return [_journal(db, run_id) for run_id in run_ids]


def _journal(db: Connection, run_id: str) -> Journal:
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
