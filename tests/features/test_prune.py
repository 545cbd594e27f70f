"""prune, and an engine that keeps pruning."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import wait_all_tasks_blocked

from reflow import ConfigError, Flow, RunStatus, sleep, step, workflow
from tests.support.bodies import give
from tests.support.parked import child_of, leave
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(give, 1)
    raise LookupError("no")


@workflow
def sleeper() -> Flow[None]:
    """Sleeps."""
    yield sleep("365d")


async def various(world: World) -> None:
    """Runs in every kind of state: two that have ended, one that was cancelled, one asleep, one not yet started."""
    engine = world.engine(quick, failing, sleeper)
    await engine.enqueue(quick(1), run_id="completed")
    await engine.enqueue(failing(), run_id="failed")
    await engine.enqueue(quick(1), run_id="cancelled")
    await engine.cancel("cancelled")
    await engine.enqueue(sleeper(), run_id="asleep")
    await engine.drain()
    await engine.enqueue(quick(1), run_id="delayed", delay="365d")


async def left(world: World) -> set[str]:
    """The ids of the runs that are there."""
    return {run.run_id for run in (await world.engine().list_runs()).runs}


async def test_only_what_has_ended(world: World) -> None:
    """[146] `prune` deletes ended runs with their entries, never one that is alive."""
    await various(world)
    world.clock.advance("2h")
    pruned = await world.engine().prune(older_than="1h")
    journal = await world.storage.get_journal("completed")

    assert 3 == pruned
    assert {"asleep", "delayed"} == await left(world)
    assert [] == journal.entries


@pytest.mark.parametrize(
    ("statuses", "gone"),
    [
        (["completed"], {"completed"}),
        ([RunStatus.FAILED, "cancelled"], {"failed", "cancelled"}),
        ([], set()),
    ],
    ids=str,
)
async def test_only_some_statuses(world: World, statuses: Any, gone: set[str]) -> None:
    """[146] Only runs with one of the statuses go."""
    await various(world)
    before = await left(world)
    world.clock.advance("2h")
    pruned = await world.engine().prune(older_than="1h", statuses=statuses)

    assert len(gone) == pruned
    assert before - gone == await left(world)


async def test_only_what_is_old(world: World) -> None:
    """[146] What ended less long ago stays."""
    await various(world)
    world.clock.advance("1h")
    engine = world.engine(quick)
    await engine.enqueue(quick(2), run_id="new")
    await engine.drain()
    world.clock.advance("1s")
    await engine.prune(older_than="1h")

    assert {"asleep", "delayed", "new"} == await left(world)


async def test_a_child_of_a_run_that_goes_on(world: World) -> None:
    """[146] A child stays as long as its parent has not ended."""
    await world.engine(sleeper).enqueue(sleeper(), run_id="r")
    await leave(world, "r", RunStatus.WAITING, children=[child_of(world, "r", "0", "quick", "child")])
    await world.engine().cancel("child")
    world.clock.advance("2h")

    assert 0 == await world.engine().prune(older_than="1h")
    assert {"r", "child"} == await left(world)


async def test_in_batches(world: World) -> None:
    """[146] Many runs are deleted in bounded transactions."""
    engine = world.engine(quick)
    await engine.enqueue_many([quick(number) for number in range(1_100)], run_ids=[str(n) for n in range(1_100)])
    for number in range(1_100):
        await engine.cancel(str(number))
    world.clock.advance("2h")
    tapped = TappedStorage(world.storage)
    pruned = await world.engine(storage=tapped).prune(older_than="1h")

    assert 1_100 == pruned
    assert ["prune"] * 4 == tapped.log
    assert {500} == {options["limit"] for _, _, options in tapped.calls}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"older_than": "soon"}, "older_than is 'soon'; write seconds"),
        ({"older_than": -1}, "older_than is -1"),
        ({"older_than": 1, "statuses": ["done"]}, "statuses is .*'done' is not a valid RunStatus"),
        ({"older_than": 1, "statuses": ["failed", "sleeping"]}, "statuses has 'sleeping'; only runs that have ended"),
        ({"older_than": 1, "statuses": 7}, "'7' is not a valid RunStatus"),
    ],
    ids=str,
)
async def test_wrong_limits(world: World, options: Any, message: str) -> None:
    """An age or status that is none, or that of a run that is alive, is a `ConfigError`; nothing is deleted."""
    await various(world)
    before = await left(world)
    world.clock.advance("2h")
    with pytest.raises(ConfigError, match=message):
        await world.engine().prune(**options)

    assert before == await left(world)


async def test_retention(world: World) -> None:
    """[146] An engine with a `retention` prunes when it starts, and from then on again and again."""
    await various(world)
    world.clock.advance("3h")
    tapped = TappedStorage(world.storage)
    async with world.engine(quick, retention="2h", storage=tapped) as engine:
        while tapped.log.count("prune") < 2:
            await tapped.done("prune").wait()
        at_first = await left(world)
        await engine.execute(quick(1), run_id="new")
        # It looks every 12 minutes, a tenth of the retention.
        while tapped.log.count("prune") < 2 + 12:
            world.clock.advance("13m")
            await wait_all_tasks_blocked()
        later = await left(world)

    assert {"asleep", "delayed"} == at_first == later


async def test_pruning_goes_on_after_a_failure(world: World) -> None:
    """A storage that fails while an engine prunes is asked again later; the engine goes on."""
    await various(world)
    world.clock.advance("3h")
    tapped = TappedStorage(world.storage)
    tapped.fail("prune", 1)
    failed = tapped.done("prune")
    async with world.engine(quick, retention="2h", storage=tapped) as engine:
        await failed.wait()
        result = await engine.execute(quick(7))
        while "prune" not in tapped.log:
            world.clock.advance("13m")
            await wait_all_tasks_blocked()

    assert 7 == result


@pytest.mark.parametrize("retention", [0, "soon", -1])
async def test_a_wrong_retention(world: World, retention: Any) -> None:
    """A retention that is none, or nothing, is a `ConfigError` when the engine is made."""
    with pytest.raises(ConfigError, match="retention is"):
        world.engine(quick, retention=retention)
