"""Claiming due runs, and keeping what was claimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter

from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import RUN, padded, run_of
from reflow.storage.records import Claimed, Lease, RunRow

__all__ = ["claim_runs", "heartbeat"]

# No integer of 64 bits is greater.
_ABOVE_ALL = 1e19

_PRIORITY = """select max(priority) from reflow_run
    where workflow = ? and version = ? and priority < ? and due_at is not null"""
_SCAN = """select due_at, id from reflow_run where workflow = ? and version = ? and priority = ? and due_at is not null
    order by due_at limit ?"""
_TAKE = f"""update reflow_run set status = '{RunStatus.RUNNING}', lease_id = ?, due_at = ?, updated_at = ?,
    executions = executions + 1, idle_claims = idle_claims + 1 where id in"""
_HEARTBEAT = "update reflow_run set due_at = ? where run_id = ? and lease_id = ?"


def claim_runs(
    db: Database, workflows: Sequence[tuple[str, int]], limit: int, lease_id: str, now: int, lease_until: int
) -> Claimed:
    """Clauses D.

    One range scan of the partial index for each named pair and priority: the backlog of others, sleepers and ended
    runs cost nothing. One row more than is wanted is read, to know when the next is due; lower priorities are not
    looked at once that is past.
    """
    due: list[tuple[int, int, int]] = []
    later: list[int] = []
    places = merge(*(_places(db, pair) for pair in dict.fromkeys(workflows)))
    for rank, level in groupby(places, itemgetter(0)):
        wanted = limit + 1 - len(due)
        rows = [row for _, pair in level for row in db.execute(_SCAN, (*pair, -rank, wanted))]
        due += sorted((rank, due_at, id) for due_at, id in rows if due_at <= now)
        later += [due_at for due_at, _ in rows if due_at > now]
        if len(due) > limit:
            break
    left = [due_at for _, due_at, _ in due[limit:]] or later
    taken = _take(db, [id for _, _, id in due[:limit]], (lease_id, lease_until, now)) if due[:limit] else []
    return Claimed(taken, min(left, default=None))


def _take(db: Database, ids: Sequence[int], values: tuple[str, int, int]) -> list[RunRow]:
    marks, bound = padded(ids)
    rows = {id: run_of(row) for id, *row in db.execute(f"{_TAKE} ({marks}) returning id, {RUN}", (*values, *bound))}
    return [rows[id] for id in ids]


def _places(db: Database, pair: tuple[str, int]) -> Iterator[tuple[int, tuple[str, int]]]:
    """The priorities of the runs that are in the index, negative so that the highest comes first, by skipping from one
    to the next."""
    [priority] = db.execute(_PRIORITY, (*pair, _ABOVE_ALL)).fetchone()
    while priority is not None:
        yield -priority, pair
        [priority] = db.execute(_PRIORITY, (*pair, priority)).fetchone()


def heartbeat(db: Database, leases: Sequence[Lease], lease_until: int) -> list[Lease]:
    """Clauses E."""
    return [
        lease for lease in leases if not db.execute(_HEARTBEAT, (lease_until, lease.run_id, lease.lease_id)).rowcount
    ]
