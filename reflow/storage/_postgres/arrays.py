"""Many rows by one statement: arrays, one for each column.

A statement for each row would be a journey for each, and the driver's pipeline, which sends them all at once, has a
trap: between the statements of a pipeline the server waits for the next one without a limit, whatever locks are held.
A process that is frozen there would keep its runs from everybody else. Between the statements of a transaction it waits
only as long as it was told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import Any, NamedTuple

from reflow.storage._sql.verbs.endings import END
from reflow.storage._sql.verbs.progress import APPEND, DROP_TIMER, SET_TIMER
from reflow.storage._sql.verbs.pruning import DELETE_REST, UNTAG
from reflow.storage._sql.verbs.rows import ENTRY, TIMER, marks
from reflow.storage._sql.verbs.runs import TAG

__all__ = ["OVER_ARRAYS", "Many", "arrays", "columns"]

_TYPES = {
    **dict.fromkeys(("version", "rules", "priority", "due_at", "created_at", "updated_at", "ended_at"), "bigint"),
    **dict.fromkeys(("failed", "attempts", "started_at", "recorded_at", "first", "seq", "id", "run"), "bigint"),
    **dict.fromkeys(("input", "output", "error", "payload", "digest", "failure"), "bytea"),
}
_PYTHON_TYPES = {"bigint": int, "bytea": bytes, "text": str}


def arrays(names: str) -> str:
    """Marks for arrays of these columns, with their types."""
    return ", ".join(f"?::{kind}[]" for kind in _types(names))


def _types(names: str) -> list[str]:
    return [_TYPES.get(name.strip(), "text") for name in names.split(",")]


def columns(rows: Iterable[Sequence[Any]], names: str) -> list[list[Any]]:
    """One array a column. What is of another type is refused here: cast as a whole array, it would be let through."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    for column, kind in zip(columns, _types(names), strict=True):
        for found in set(map(type, column)) - {_PYTHON_TYPES[kind], NoneType}:
            if not issubclass(found, _PYTHON_TYPES[kind]):
                raise TypeError(f"{found.__name__} where {kind} belongs")
    return columns


class Many(NamedTuple):
    """A statement that does for arrays of `names` what another one does for one row."""

    statement: str
    names: str


_ENDED = "status, due_at, updated_at, ended_at, output, error, awaits, id"
_APPENDED = f"run, seq, {ENTRY}"
_TIMED = f"run, {TIMER}"
# Laterally, each with a limit, as in `writes`: a plan that joins may read all runs.
OVER_ARRAYS = {
    APPEND: Many(
        f"insert into reflow_entry ({_APPENDED}) select * from unnest({arrays(_APPENDED)})",
        _APPENDED,
    ),
    SET_TIMER: Many(
        SET_TIMER.replace(f"values (?, {marks(TIMER)})", f"select * from unnest({arrays(_TIMED)})"),
        _TIMED,
    ),
    DROP_TIMER: Many(
        """delete from reflow_timer as timer using unnest(?::bigint[], ?::text[]) as old (run, position)
        cross join lateral (
            select 1 from reflow_timer where run = old.run and position = old.position limit 1
        ) as one where timer.run = old.run and timer.position = old.position""",
        "run, position",
    ),
    END: Many(
        f"""update reflow_run as run set status = new.status, lease_id = null, due_at = new.due_at,
        updated_at = new.updated_at, ended_at = new.ended_at, output = new.output, error = new.error,
        awaits = new.awaits, idle_claims = 0 from unnest({arrays(_ENDED)}) as new ({_ENDED}) cross join lateral (
            select id from reflow_run where id = new.id limit 1
        ) as one where run.id = one.id""",
        _ENDED,
    ),
    TAG: Many(
        """insert into reflow_tag (tag, run) select tag, one.id from unnest(?::text[], ?::text[]) as new (tag, run_id)
        cross join lateral (select id from reflow_run where run_id = new.run_id limit 1) as one""",
        "tag, run_id",
    ),
    UNTAG: Many(
        """delete from reflow_tag as tag using unnest(?::text[], ?::bigint[]) as old (tag, run) cross join lateral (
            select 1 from reflow_tag where tag = old.tag and run = old.run limit 1
        ) as one where tag.tag = old.tag and tag.run = old.run""",
        "tag, run",
    ),
    **{each: Many(each.replace("run = ?", "run = any(?::bigint[])"), "run") for each in DELETE_REST},
}
"""For each statement that our verbs perform for many rows."""
