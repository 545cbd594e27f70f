"""The runs that are under way when the disk misbehaves, and what must become of them."""

from __future__ import annotations

from typing import Any

from anyio import create_task_group, sleep

from reflow import Engine, StorageAdapter, StorageError
from reflow.storage.records import RunFilter, RunRow
from tests.support.workflows import SCENARIOS
from tests.support.world import World

__all__ = ["PATH", "finished", "insisting", "opened_engine", "rows_of", "started", "unlike"]

PATH = "app.db"
# Steps in a row, a failure that is caught, branches side by side with sleeps, events, children with children.
_NAMES = ("chain", "saga", "fan_out", "collected", "family")
_WORKED = [scenario for scenario in SCENARIOS if scenario.name in _NAMES]
_MOST_ROUNDS = 30


def opened_engine(world: World) -> Engine:
    """An engine that knows all the workflows."""
    workflows = {workflow for each in _WORKED for workflow in (each.call.workflow, *each.others)}
    return world.engine(*workflows)


async def started(engine: Engine) -> None:
    """As a client does that may have died before: it asks for the same runs, and sends the same events."""
    async with create_task_group() as tasks:
        for scenario in _WORKED:
            tasks.start_soon(_started, engine, scenario)


async def _started(engine: Engine, scenario: Any) -> None:
    await insisting(engine.enqueue, scenario.call, run_id=scenario.name)
    for number, (name, payload) in enumerate(scenario.events):
        await insisting(engine.send_event, scenario.name, name, payload, event_id=str(number))


async def insisting(verb: Any, *args: Any, **kwargs: Any) -> Any:
    """What the verb answers, asked again while the storage says that it cannot."""
    for _ in range(_MOST_ROUNDS):
        try:
            return await verb(*args, **kwargs)
        except StorageError:
            continue
    return await verb(*args, **kwargs)


async def finished(world: World, engine: Engine, rounds: int = _MOST_ROUNDS) -> None:
    """Work until all runs have ended, or for so many hours of the clock."""
    for _ in range(rounds):
        async with create_task_group() as tasks:
            tasks.start_soon(_repeat_at_once, world)
            await insisting(engine.drain)
            tasks.cancel_scope.cancel()
        rows = await insisting(rows_of, world.storage)
        if all(row.status.is_terminal for row in rows):
            return
        world.clock.advance("1h")


async def _repeat_at_once(world: World) -> None:
    """Turn the clock on for who waits because the storage has failed."""
    while True:
        await world.clock.has_timer("200ms")
        world.clock.advance("200ms")
        # Real work is done meanwhile, by threads.
        await sleep(0.001)


async def rows_of(storage: StorageAdapter) -> list[RunRow]:
    """All runs."""
    return (await storage.list_runs(RunFilter(), limit=1_000)).rows


async def unlike(world: World) -> list[str]:
    """The runs that have not become what they must."""
    found: list[str] = []
    for scenario in _WORKED:
        info = await world.info(scenario.name)
        if (info.status, info.output) != (scenario.status, scenario.result):
            found.append(f"{info.run_id} is {info.status} with {info.output!r}")
    rows = await rows_of(world.storage)
    if len(rows) != sum(scenario.runs for scenario in _WORKED):
        found.append(f"there are {len(rows)} runs")
    return found
