"""The two writes that throughput depends on, over arrays: new runs, and new entries.

Differs from SQLite because each statement is a journey to the server, and because nobody locks the others out.

An entry is appended by a statement that looks at the lease as it was when the statement began. So a claim may come in
between, and the entry may still get in; then the new holder, who does not know it, meets an entry in its place, which
the primary key (run, seq) forbids. Its batch is tried again, with locks, and finds (F4) that the journal went on
without it: it is told that its lease is lost, and whoever claims next replays what is there. A journal is never made of
two.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import astuple

from reflow.storage._postgres.arrays import arrays, columns
from reflow.storage._postgres.connection import ServerDatabase
from reflow.storage._postgres.session import LookAgain
from reflow.storage._sql import verbs
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import ENTRY
from reflow.storage._sql.verbs.runs import INSERT, NEW_RUN, SAME, known_run, new_run_values, tag
from reflow.storage.records import NewRun, Progress, RunRow

__all__ = ["create_runs_of_each", "save_progress"]

_CREATE = f"""{INSERT} select {SAME}, {NEW_RUN}
    from unnest({arrays(NEW_RUN)}) with ordinality as new ({NEW_RUN}, place)
    order by place on conflict do nothing returning run_id"""
_ADDED = f"run_id, lease, first, seq, {ENTRY}"
# Laterally, each with a limit: a plan that joins may read all runs, and does while a table is new and nothing is known
# of it. `first` is the number of the first entry of a write: the one before must be there, or the journal had a gap.
# Of runs that were idle the row is written too. Where somebody has locked it, that is left to the attempt with locks:
# this one, which locks in no order, waits for nobody.
_APPEND = f"""with held as materialized (
    select run.id as run, run.idle_claims, added.*
    from unnest({arrays(_ADDED)}) as added ({_ADDED})
    cross join lateral (
        select id, idle_claims from reflow_run where run_id = added.run_id and lease_id = added.lease limit 1
    ) as run left join lateral (
        select true as is_there from reflow_entry where run = run.id and seq = added.first - 1 limit 1
    ) as before on true
    where first = 0 or before.is_there
), not_idle as (
    update reflow_run as run set idle_claims = 0
    from (select distinct run, lease from held where idle_claims > 0) as idle cross join lateral (
        select ctid as place from reflow_run where id = idle.run and lease_id = idle.lease limit 1
        for no key update skip locked
    ) as free
    where run.ctid = free.place returning run.id
), appended as (
    insert into reflow_entry (run, seq, {ENTRY}) select run, seq, {ENTRY} from held
    where idle_claims = 0 or run in (select id from not_idle) returning run
) select count(distinct run) from appended"""


def create_runs_of_each(db: Database, calls: Sequence[Sequence[NewRun]]) -> list[list[tuple[RunRow, bool]]]:
    """Clauses C, for all calls together."""
    new_runs = [run for runs in calls for run in runs]
    if len({run.run_id for run in new_runs}) < len(new_runs):
        # The statement would not say which of those with one id it has created.
        return verbs.create_runs_of_each(db, calls)
    if not new_runs:
        return [[] for _ in calls]
    rows = map(new_run_values, new_runs)
    created = {run_id for (run_id,) in db.execute(_CREATE, columns(rows, NEW_RUN))}
    tag(db, [run for run in new_runs if run.run_id in created])
    answers = iter([(run.row(), True) if run.run_id in created else (known_run(db, run), False) for run in new_runs])
    return [[next(answers) for _ in runs] for runs in calls]


def save_progress(db: Database, progresses: Sequence[Progress]) -> list[bool]:
    """Clauses F. What only adds entries is appended without a lock; where that fails, all are tried again with locks.

    Of a run that is written in several ways at once, everything is done in order, under its lock.
    """
    if _was_tried(db):
        return verbs.save_progress(db, progresses)
    locked = {progress.lease.run_id for progress in progresses if not progress.is_plain}
    is_locked = [progress.lease.run_id in locked or not progress.entries for progress in progresses]
    plain = [progress for progress, is_one in zip(progresses, is_locked, strict=True) if not is_one]
    if len(plain) > _appended(db, plain):
        raise LookAgain
    rest = [progress for progress, is_one in zip(progresses, is_locked, strict=True) if is_one]
    saved = iter(verbs.save_progress(db, rest) if rest else ())
    return [not is_one or next(saved) for is_one in is_locked]


def _was_tried(db: Database) -> bool:
    return isinstance(db, ServerDatabase) and db.attempt > 0


def _appended(db: Database, progresses: Sequence[Progress]) -> int:
    """Append the entries of these; to how many runs that was done, because they had their leases, there is no gap, and
    nobody was in the way."""
    if not progresses:
        return 0
    rows = [
        (progress.lease.run_id, progress.lease.lease_id, progress.recorded, progress.recorded + n, *astuple(entry))
        for progress in progresses
        for n, entry in enumerate(progress.entries)
    ]
    [count] = db.execute(_APPEND, columns(rows, _ADDED)).fetchone()
    return int(count)
