"""Spawn: a run that goes its own way, of which there is one."""

from __future__ import annotations

from typing import Any

import pytest

from reflow import Flow, RunStatus, gather, sleep, spawn, step, workflow
from reflow.storage.records import RunFilter
from reflow.testing.crash import Crash, MortalStorage
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

begun: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    begun.clear()


async def note(value: Any) -> Any:
    """Notes that it ran."""
    begun.append(value)
    return value


@workflow
def mail(to: str) -> Flow[str]:
    """A sleep and a step."""
    yield sleep("1h")
    return (yield from step(note, to))


@workflow
def host() -> Flow[str]:
    """Starts one, and goes on."""
    run_id = yield from spawn(mail("a"))
    yield step(note, run_id)
    yield sleep("2h")
    return run_id


async def ids(world: World) -> list[str]:
    """The ids of all runs, oldest first."""
    return [row.run_id for row in (await world.storage.list_runs(RunFilter(), limit=100)).rows][::-1]


async def test_it_gives_the_id_at_once(world: World) -> None:
    """[150] Spawn gives the id of the run and does not wait for it; the run has no parent."""
    engine = world.engine(host, mail)
    await engine.enqueue(host(), run_id="r")
    await engine.drain()
    asleep = await world.info()
    spawned = await world.storage.get_run("r:0")

    assert spawned is not None
    assert (RunStatus.SLEEPING, RunStatus.SLEEPING, None) == (asleep.status, spawned.status, spawned.parent)
    assert ["r:0"] == begun
    assert ("spawn", "mail", "completed", "r:0") == (
        asleep.entries[0].kind,
        asleep.entries[0].name,
        asleep.entries[0].status,
        asleep.entries[0].value,
    )


@pytest.mark.parametrize("fate", ["completed", "failed", "cancelled"])
async def test_it_outlives_who_spawned_it(world: World, fate: str) -> None:
    """[134][150] A spawned run goes on whether the run that spawned it completes, fails or is cancelled."""

    @workflow
    def flow() -> Flow[None]:
        yield spawn(mail("a"))
        if fate == "failed":
            raise ValueError
        if fate == "cancelled":
            yield sleep("1d")

    engine = world.engine(flow, mail)
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    await world.cancel()
    await engine.drain()
    before = await world.info()
    world.clock.advance("1h")
    await engine.drain()

    assert (fate, "a") == (before.status, (await world.info("r:0")).output)


async def test_it_is_written_with_its_entry(world: World) -> None:
    """[150] The run is created in the write of the entry that has its id."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(host, mail, storage=tapped)  # type: ignore[arg-type]
    await engine.enqueue(host(), run_id="r")
    await engine.tick()
    first = tapped.named("save_progress")[0]

    assert (["0"], ["r:0"]) == ([entry.position for entry in first.entries], [new.run_id for new in first.children])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_one_run_over_any_crash(world: World, after: bool) -> None:
    """[150] Wherever the process dies, there is one spawned run, and its id is the recorded one."""
    point = 1
    while await survives(world, f"run-{point}-{after}", point, after):
        point += 1

    assert point > 8


async def survives(world: World, run_id: str, point: int, after: bool) -> bool:
    """Crash at the verb of this number, then go on to the end; whether the crash came."""
    mortal = MortalStorage(world.storage, point, after=after)
    for storage in (mortal, world.storage):
        engine = world.engine(host, mail, storage=storage)  # type: ignore[arg-type]
        try:
            await engine.enqueue(host(), run_id=run_id)
            for _ in range(4):
                await engine.drain()
                world.clock.advance("1h")
        except (Crash, BaseExceptionGroup):
            assert storage is mortal
            assert mortal.is_dead
            world.clock.advance("1h")
    family = [other for other in await ids(world) if other.startswith(f"{run_id}:") or other == run_id]

    assert [run_id, f"{run_id}:0"] == family
    assert (f"{run_id}:0", "a") == ((await world.info(run_id)).output, (await world.info(f"{run_id}:0")).output)
    return mortal.is_dead


async def test_side_by_side(world: World) -> None:
    """[150] Spawns are members of a gather like any command, and ids of their own are kept."""

    @workflow
    def flow() -> Flow[list[str]]:
        first, second = yield from gather(spawn(mail("a")), spawn(mail("b").options(run_id="mine")))
        return [first, second]

    engine = world.engine(flow, mail)
    run = await engine.enqueue(flow(), run_id="r")
    await engine.drain()

    assert (["r:0.0", "mine"], ["r", "r:0.0", "mine"]) == (await run.result(), await ids(world))


async def test_an_id_that_is_there(world: World) -> None:
    """[150] Where a run with the id is there already, that one is left as it is and its id is given."""

    @workflow
    def flow(to: str) -> Flow[str]:
        return (yield from spawn(mail(to).options(run_id="mine")))

    engine = world.engine(flow, mail)
    for run_id, to in (("r", "a"), ("r2", "b")):
        await engine.enqueue(flow(to), run_id=run_id)
        await engine.drain()
    world.clock.advance("1h")
    await engine.drain()

    assert ("mine", "mine") == ((await world.info("r")).output, (await world.info("r2")).output)
    assert ["a"] == begun


async def test_an_id_of_something_else(world: World) -> None:
    """[150] Also where that run is of another workflow; a child with such an id is refused."""

    @workflow
    def spawner() -> Flow[str]:
        return (yield from spawn(mail("a").options(run_id="mine")))

    @workflow
    def parent() -> Flow[str]:
        return (yield from mail("a").options(run_id="mine"))

    engine = world.engine(spawner, parent, mail, host)
    await engine.enqueue(host(), run_id="mine", delay="1h")
    await engine.enqueue(spawner(), run_id="spawner")
    await engine.enqueue(parent(), run_id="parent")
    await engine.drain()
    refused = (await world.info("parent")).error

    assert ("mine", "host") == ((await world.info("spawner")).output, (await world.info("mine")).workflow)
    assert refused is not None
    assert "RunConflictError" == refused.type


async def test_an_input_that_is_none(world: World) -> None:
    """[150] An input that does not fit is raised at the yield, and no run is made."""

    @workflow
    def flow() -> Flow[str]:
        try:
            return (yield from spawn(mail(7)))  # type: ignore[arg-type]
        except Exception as error:
            return type(error).__name__

    engine = world.engine(flow, mail)
    run = await engine.enqueue(flow(), run_id="r")
    await engine.drain()

    assert ("ValidationError", ["r"]) == (await run.result(), await ids(world))
