"""Claiming due runs, and keeping what was claimed.

Differs from SQLite because many claim at once: each takes rows that nobody else has locked (`skip locked`), in one
statement, so that what is chosen and what is taken are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reflow._core.status import RunStatus
from reflow.storage._sql.session import Database
from reflow.storage._sql.verbs.rows import RUN, run_of
from reflow.storage.records import Claimed, Lease

__all__ = ["claim_runs", "heartbeat"]

_RUN = ", ".join(f"run.{column}" for column in RUN.split(", "))
_TAKEN = ", ".join(f"taken.{column}" for column in RUN.split(", "))
# `place` has the priorities that are in the index, for each workflow and version, by skipping from one to the next;
# in each, the index gives the oldest first. What is due and locked by others counts as left only where `limit` was
# reached.
_CLAIM = f"""with recursive place (workflow, version, priority) as (
    select named.workflow, named.version, (
        select max(priority) from reflow_run as run
        where run.workflow = named.workflow and run.version = named.version and due_at is not null
    ) from unnest(?::text[], ?::bigint[]) as named (workflow, version)
    union all
    select workflow, version, (
        select max(priority) from reflow_run as run where run.workflow = place.workflow
        and run.version = place.version and run.priority < place.priority and due_at is not null
    ) from place where priority is not null
), due as materialized (
    select found.* from place cross join lateral (
        select id, priority, due_at from reflow_run as run where run.workflow = place.workflow
        and run.version = place.version and run.priority = place.priority and due_at <= ?
        order by due_at limit ? for no key update skip locked
    ) as found
), chosen as materialized (
    select * from due order by priority desc, due_at, id limit ?
), taken as (
    update reflow_run as run set status = '{RunStatus.RUNNING}', lease_id = ?, due_at = ?, updated_at = ?,
        executions = executions + 1, idle_claims = idle_claims + 1
    from chosen where run.id = chosen.id
    returning chosen.priority as rank, chosen.due_at as was_due_at, run.id as number, {_RUN}
), rest as (
    select min(next.due_at) as due_at from place cross join lateral (
        select due_at from reflow_run as run where run.workflow = place.workflow and run.version = place.version
        and run.priority = place.priority and due_at is not null
        and (due_at > ? or (select count(*) from chosen) = ?)
        and id not in (select id from chosen) order by due_at limit 1
    ) as next
)
select rest.due_at, {_TAKEN} from rest left join taken on true order by rank desc, was_due_at, number"""
_HEARTBEAT = """update reflow_run as run set due_at = ? from unnest(?::text[], ?::text[]) as held (run_id, lease_id)
    where run.run_id = held.run_id and run.lease_id = held.lease_id returning run.run_id, run.lease_id"""


def claim_runs(
    db: Database, workflows: Sequence[tuple[str, int]], limit: int, lease_id: str, now: int, lease_until: int
) -> Claimed:
    """Clauses D."""
    pairs = list(dict.fromkeys(workflows))
    names, versions = [workflow for workflow, _ in pairs], [version for _, version in pairs]
    values = (names, versions, now, limit, limit, lease_id, lease_until, now, now, limit)
    rows: list[tuple[Any, ...]] = db.execute(_CLAIM, values).fetchall()
    # One row without a run says when the next is due, where none was taken.
    return Claimed([run_of(row) for _, *row in rows if row[0] is not None], rows[0][0])


def heartbeat(db: Database, leases: Sequence[Lease], lease_until: int) -> list[Lease]:
    """Clauses E. One statement for all leases of the process."""
    runs, ids = [lease.run_id for lease in leases], [lease.lease_id for lease in leases]
    kept = set(db.execute(_HEARTBEAT, (lease_until, runs, ids)).fetchall())
    return [lease for lease in leases if (lease.run_id, lease.lease_id) not in kept]
