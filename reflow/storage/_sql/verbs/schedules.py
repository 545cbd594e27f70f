"""Schedules: storing them, and firing each occurrence once."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import astuple

from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import SCHEDULE, marks, schedule_of
from reflow.storage._sql.verbs.runs import create_runs
from reflow.storage.records import DueSchedules, NewRun, ScheduleRow

__all__ = ["delete_schedule", "due_schedules", "fire_schedule", "get_schedules", "pause_schedule", "put_schedule"]

_REPLACED = ("workflow", "version", "input", "recurrence", "missed", "overlap", "updated_at")
_RESET = ("anchor_at", "next_at")
_KEPT_UNLESS_CHANGED = """{0} = case when reflow_schedule.recurrence = excluded.recurrence
    then reflow_schedule.{0} else excluded.{0} end"""
_PUT = f"""insert into reflow_schedule ({SCHEDULE}) values ({marks(SCHEDULE)}) on conflict (key) do update set
    {", ".join(f"{column} = excluded.{column}" for column in _REPLACED)},
    {", ".join(_KEPT_UNLESS_CHANGED.format(column) for column in _RESET)}
    returning {SCHEDULE}"""
_DELETE = "delete from reflow_schedule where key = ?"
_PAUSE = "update reflow_schedule set paused = ?, updated_at = ? where key = ? and paused <> ?"
_EXISTS = "select 1 from reflow_schedule where key = ?"
_ALL = f"select {SCHEDULE} from reflow_schedule order by key"
_DUE = f"""select {SCHEDULE} from reflow_schedule where workflow = ? and paused = 0 order by next_at, key limit ?"""
_FIRE = """update reflow_schedule set next_at = ?, updated_at = ?
    where key = ? and next_at = ? and paused = 0"""
_STARTED = "update reflow_schedule set last_run_id = ? where key = ?"


def put_schedule(db: Database, schedule: ScheduleRow) -> ScheduleRow:
    """Clauses R."""
    return schedule_of(db.execute(_PUT, astuple(schedule)).fetchone())


def delete_schedule(db: Database, key: str) -> bool:
    """Clauses S."""
    return db.execute(_DELETE, (key,)).rowcount > 0


def pause_schedule(db: Database, key: str, paused: bool, now: int) -> bool:
    """Clauses T."""
    db.execute(_PAUSE, (paused, now, key, paused))
    return db.execute(_EXISTS, (key,)).fetchone() is not None


def get_schedules(db: Database) -> list[ScheduleRow]:
    """Clauses U."""
    return [schedule_of(row) for row in db.execute(_ALL)]


def due_schedules(db: Database, workflows: Sequence[str], limit: int, now: int) -> DueSchedules:
    """Clauses V. As with runs: one range scan for each workflow, and one row more than `limit`."""
    rows = [
        schedule_of(row) for workflow in dict.fromkeys(workflows) for row in db.execute(_DUE, (workflow, limit + 1))
    ]
    rows.sort(key=lambda schedule: (schedule.next_at, schedule.key))
    due = [schedule for schedule in rows[:limit] if schedule.next_at <= now]
    left = rows[len(due) :]
    return DueSchedules(due, left[0].next_at if left else None)


def fire_schedule(
    db: Database, key: str, expected_next_at: int, next_at: int, runs: Sequence[NewRun], now: int
) -> bool:
    """Clauses W."""
    if not db.execute(_FIRE, (next_at, now, key, expected_next_at)).rowcount:
        return False
    if rows := create_runs(db, runs):
        db.execute(_STARTED, (rows[-1][0].run_id, key))
    return True
