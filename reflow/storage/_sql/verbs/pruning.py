"""Deleting runs that have ended."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import json

from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.tables import OF_RUNS
from reflow.storage._sql.verbs.rows import padded

__all__ = ["DELETE_REST", "UNTAG", "prune"]

_ENDED = """select id, tags from reflow_run as ended where ended_at < ? and status in ({})
    and not exists (select 1 from reflow_run where parent = ended.run_id)
    and not exists (select 1 from reflow_run where run_id = ended.parent and ended_at is null)
    order by ended_at, id limit ?"""
# Somebody may have resumed it meanwhile, where nobody keeps others from writing.
_DELETE = "delete from reflow_run where id = ? and ended_at is not null"
UNTAG = "delete from reflow_tag where tag = ? and run = ?"
DELETE_REST = [f"delete from {table} where run = ?" for table in OF_RUNS]


def prune(db: Database, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
    """Clauses Q."""
    marks, bound = padded(statuses)
    ended = db.execute(_ENDED.format(marks), (before, *bound, limit)).fetchall()
    runs = [(run, tags) for run, tags in ended if db.execute(_DELETE, (run,)).rowcount]
    db.executemany(UNTAG, [(tag, run) for run, tags in runs if tags for tag in json.decode(tags)])
    for statement in DELETE_REST:
        db.executemany(statement, [(run,) for run, _ in runs])
    return len(runs)
