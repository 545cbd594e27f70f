"""Looking at many runs: lists and counts.

Runs are listed by their numbers, which every index ends with: each list is the newest end of some range scans.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import RUN, run_of
from reflow.storage.records import Page, RunCount, RunCounts, RunFilter

__all__ = ["count_runs", "list_runs"]

# No number of a run is greater, no priority and no version less.
_ABOVE_ALL = 2**63 - 1
_BELOW_ALL = -(2**63)

_COUNT = "select workflow, status, count(*) from reflow_run group by workflow, status order by workflow, status"
_NEXT_WORKFLOW = "select min(workflow) from reflow_run where workflow > ?"
_NEXT_DUE = """select workflow, version, priority, due_at from reflow_run
    where (workflow, version, priority) > (?, ?, ?) and due_at is not null
    order by workflow, version, priority, due_at limit 1"""


def list_runs(db: Database, filter: RunFilter, limit: int, cursor: str | None) -> Page:
    """Clauses O."""
    try:
        before = _ABOVE_ALL if cursor is None else int(cursor)
    except ValueError:
        raise StorageError("list_runs", f"{cursor!r} is no cursor of a page") from None
    where, wanted = _conditions(filter)
    found = [
        row
        for source, number, values in _ranges(db, filter)
        for row in db.execute(
            f"select id, {RUN} from {source} and {number} < ?{where} order by {number} desc limit ?",
            (*values, before, *wanted, limit + 1),
        )
    ]
    found.sort(reverse=True, key=lambda row: row[0])
    rows = [run_of(row[1:]) for row in found[:limit]]
    return Page(rows, str(found[limit - 1][0]) if limit < len(found) else None)


def _ranges(db: Database, filter: RunFilter) -> Iterator[tuple[str, str, list[str]]]:
    """Ranges of an index that hold all runs of a filter: from where, the column with the number, values."""
    if filter.parent is not None:
        yield "reflow_run where parent = ?", "id", [filter.parent]
    elif filter.tags:
        yield "reflow_tag join reflow_run on id = run where tag = ?", "run", [filter.tags[0]]
    elif filter.workflow is not None or filter.statuses:
        for workflow in _workflows(db) if filter.workflow is None else [filter.workflow]:
            for status in dict.fromkeys(filter.statuses or RunStatus):
                yield "reflow_run where workflow = ? and status = ?", "id", [workflow, status]
    else:
        yield "reflow_run where true", "id", []


def _conditions(filter: RunFilter) -> tuple[str, list[Any]]:
    """The whole filter once more, as expressions: columns might lead to the choice of another range, to be sorted."""
    conditions, values = "", list[Any]()
    if filter.workflow is not None:
        conditions, values = " and workflow || '' = ?", [filter.workflow]
    if filter.statuses:
        conditions += f" and status || '' in ({', '.join('?' * len(filter.statuses))})"
        values += filter.statuses
    for tag in filter.tags:
        conditions += " and exists (select 1 from reflow_tag as other where other.tag = ? and other.run = id)"
        values.append(tag)
    return conditions, values


def _workflows(db: Database) -> Iterator[str]:
    """The workflows that there are runs of, by skipping from one to the next."""
    [workflow] = db.execute("select min(workflow) from reflow_run").fetchone()
    while workflow is not None:
        yield workflow
        [workflow] = db.execute(_NEXT_WORKFLOW, (workflow,)).fetchone()


def count_runs(db: Database) -> RunCounts:
    """Clauses P."""
    counts = [RunCount(workflow, RunStatus(status), count) for workflow, status, count in db.execute(_COUNT)]
    return RunCounts(counts, min(_first_due(db), default=None))


def _first_due(db: Database) -> Iterator[int]:
    """The least `due_at` of each workflow, version and priority, by skipping from one to the next."""
    place: list[Any] = ["", _BELOW_ALL, _BELOW_ALL]
    while row := db.execute(_NEXT_DUE, place).fetchone():
        *place, due_at = row
        yield due_at
