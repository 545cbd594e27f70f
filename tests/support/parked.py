"""Runs left in any state, by the verbs of the storage: for what looks at runs and does not advance them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reflow import Failure, RunStatus
from reflow._core.journal import Entry, Timer
from reflow.storage.records import Ending, Lease, NewRun, Progress
from tests.support.world import World

LEASE_US = 30_000_000


async def claim(world: World, run_id: str) -> Lease:
    """Claim the run, which has to be due, as an engine does."""
    row = await world.storage.get_run(run_id)
    assert row is not None
    now = world.clock.now()
    claimed = await world.storage.claim_runs(
        [(row.workflow, row.version)], limit=1, lease_id=f"lease of {run_id}", now=now, lease_until=now + LEASE_US
    )
    assert [run_id] == [run.run_id for run in claimed.runs]
    return Lease(run_id, f"lease of {run_id}")


async def leave(
    world: World,
    run_id: str,
    status: RunStatus | None,
    *,
    entries: Sequence[Entry] = (),
    timers: Sequence[Timer] = (),
    children: Sequence[NewRun] = (),
    **ending: Any,
) -> None:
    """Claim the run and leave it so; where `status` is None, under its lease."""
    lease = await claim(world, run_id)
    progress = Progress(
        lease,
        world.clock.now(),
        0,
        list(entries),
        list(timers),
        [],
        None if status is None else Ending(status, **ending),
        children=list(children),
    )
    assert await world.storage.save_progress(progress)


async def fail(world: World, run_id: str, failure: Failure, *, entries: Sequence[Entry] = ()) -> None:
    """Claim the run and leave it failed."""
    await leave(world, run_id, RunStatus.FAILED, entries=entries, error=world.codec.encode(failure))


def child_of(world: World, parent: str, position: str, workflow: str, run_id: str | None = None) -> NewRun:
    """A child run, to be created."""
    now = world.clock.now()
    return NewRun(
        run_id or f"{parent}:{position}",
        workflow,
        1,
        1,
        world.codec.encode({}),
        now,
        now,
        parent=parent,
        parent_position=position,
    )
