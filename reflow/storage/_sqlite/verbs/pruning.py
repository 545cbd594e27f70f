"""Deleting runs that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from msgspec import json

from reflow._core.status import RunStatus

__all__ = ["prune"]

_ENDED = """select id, tags from reflow_run as run where ended_at < ? and status in (select value from json_each(?))
    and not exists (select 1 from reflow_run where parent = run.run_id)
    and not exists (select 1 from reflow_run where run_id = run.parent and ended_at is null)
    order by ended_at, id limit ?"""
_UNTAG = "delete from reflow_tag where tag = ? and run = ?"
_DELETE = [
    *(
        f"delete from {table} where run = ?"
        for table in ("reflow_entry", "reflow_cut_entry", "reflow_timer", "reflow_message", "reflow_message_id")
    ),
    "delete from reflow_run where id = ?",
]


def prune(db: Connection, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
    """Clauses Q."""
    runs = db.execute(_ENDED, (before, json.encode(statuses).decode(), limit)).fetchall()
    db.executemany(_UNTAG, [(tag, run) for run, tags in runs if tags for tag in json.decode(tags)])
    for statement in _DELETE:
        db.executemany(statement, [(run,) for run, _ in runs])
    return len(runs)
