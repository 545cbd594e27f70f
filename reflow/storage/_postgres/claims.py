"""Claiming due runs, and keeping what was claimed.

Differs from SQLite because many claim at once: each takes rows that nobody else has locked (`skip locked`), in one
statement, so that what is chosen and what is taken are the same.

And because a server keeps what somebody may still see. Each claim leaves a dead row behind, where the run was due, and
while another transaction stays open, for a dump perhaps, nobody may clean them up: a claim would walk over all of them,
25 ms for 100,000. So a claim says from where on runs are due, in the priorities that it has looked at, and the next one
begins there, less a little, for what is stored with some delay. What comes later than that is found by a look at
everything: once a second, and after a claim that found nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import RUN, run_of
from reflow.storage.records import Claimed, Lease

__all__ = ["Claims", "heartbeat"]

_RUN = ", ".join(f"run.{column}" for column in RUN.split(", "))
_TAKEN = ", ".join(f"taken.{column}" for column in RUN.split(", "))
_LOOK_EVERY_US = 1_000_000
# More than clocks differ, and longer than it takes to store a run.
_SLACK_US = 250_000
_LEAST = -(2**63)
# `level` has the priorities that are in the index, highest first, by skipping from one to the next; in each, the index
# gives the oldest of every workflow and version first. A limit over a join that goes level by level ends it there, so
# that lower ones are not looked at; neither are they for `rest`, once one that is due and left was found. What is due
# and locked by others counts as left only where `limit` was reached.
_CLAIM = f"""with recursive named as materialized (
    select * from unnest(?::text[], ?::bigint[]) as named (workflow, version)
), level (priority) as (
    select max(first.priority) from named cross join lateral (
        select max(priority) as priority from reflow_run as run
        where run.workflow = named.workflow and run.version = named.version and due_at is not null
    ) as first
    union all
    select (
        select max(next.priority) from named cross join lateral (
            select max(priority) as priority from reflow_run as run where run.workflow = named.workflow
            and run.version = named.version and run.priority < level.priority and due_at is not null
        ) as next
    ) from level where priority is not null
), due as materialized (
    select found.* from level cross join lateral (
        select one.* from named cross join lateral (
            select id, priority, due_at from reflow_run as run where run.workflow = named.workflow
            and run.version = named.version and run.priority = level.priority
            and due_at between case when level.priority < ? then '{_LEAST}'::bigint else ? end and ?
            order by due_at limit ? for no key update skip locked
        ) as one order by due_at, id
    ) as found limit ?
), chosen as materialized (
    select * from due order by priority desc, due_at, id limit ?
), taken as (
    update reflow_run as run set status = '{RunStatus.RUNNING}', lease_id = ?, due_at = ?, updated_at = ?,
        executions = executions + 1, idle_claims = idle_claims + 1
    from chosen where run.id = chosen.id
    returning chosen.priority as rank, chosen.due_at as was_due_at, run.id as number, {_RUN}
), rest as (
    select coalesce((
        select left_due.due_at from level cross join lateral (
            select one.due_at from named cross join lateral (
                select due_at from reflow_run as run where run.workflow = named.workflow
                and run.version = named.version and run.priority = level.priority
            and due_at between case when level.priority < ? then '{_LEAST}'::bigint else ? end and ?
                and id not in (select id from chosen) order by due_at limit 1
            ) as one
        ) as left_due where (select count(*) from chosen) = ? limit 1
    ), (
        select min(next.due_at) from level cross join named cross join lateral (
            select due_at from reflow_run as run where run.workflow = named.workflow and run.version = named.version
            and run.priority = level.priority and due_at > ? order by due_at limit 1
        ) as next
    )) as due_at
)
select rest.due_at, (select min(due_at) from due), (select min(priority) from due), {_TAKEN}
from rest left join taken on true order by rank desc, was_due_at, number"""
_HEARTBEAT = """update reflow_run as run set due_at = ? from unnest(?::text[], ?::text[]) as held (run_id, lease_id)
    where run.run_id = held.run_id and run.lease_id = held.lease_id returning run.run_id, run.lease_id"""


class Claims:
    """Claims of one adapter, in its lane: what was seen a moment ago spares the next one the walk."""

    def __init__(self) -> None:
        self._pairs: list[tuple[str, int]] = []
        self._looked_at = 0
        self._floor = _LEAST
        # The least priority of which that is known.
        self._seen = 0

    def claim_runs(
        self, db: Database, workflows: Sequence[tuple[str, int]], limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        pairs = list(dict.fromkeys(workflows))
        names, versions = [workflow for workflow, _ in pairs], [version for _, version in pairs]
        if pairs != self._pairs or not self._looked_at <= now < self._looked_at + _LOOK_EVERY_US:
            self._pairs, self._looked_at, self._floor = pairs, now, _LEAST
        since = (self._seen, self._floor, now)
        values = (
            *(names, versions, *since, limit, limit, limit),
            *(lease_id, lease_until, now, *since, limit, now),
        )
        rows: list[tuple[Any, ...]] = db.execute(_CLAIM, values).fetchall()
        next_due_at, oldest, seen, *_ = rows[0]
        self._floor, self._seen = (_LEAST, 0) if oldest is None else (max(_LEAST, oldest - _SLACK_US), seen)
        # One row without a run says when the next is due, where none was taken.
        return Claimed([run_of(row) for _, _, _, *row in rows if row[0] is not None], next_due_at)


def heartbeat(db: Database, leases: Sequence[Lease], lease_until: int) -> list[Lease]:
    """Clauses E. One statement for all leases of the process."""
    runs, ids = [lease.run_id for lease in leases], [lease.lease_id for lease in leases]
    kept = set(db.execute(_HEARTBEAT, (lease_until, runs, ids)).fetchall())
    return [lease for lease in leases if (lease.run_id, lease.lease_id) not in kept]
