"""Stop the world before and after every storage verb of every scenario, restart, and go on."""

from __future__ import annotations

import pytest

from reflow import StorageAdapter
from reflow.testing.crash import Crash, MortalStorage
from tests.support.workflows import SCENARIOS, Scenario, effects
from tests.support.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_resumes_from_every_crash_point(world: World, scenario: Scenario, after: bool) -> None:
    """[28][30] Wherever the process dies, the run completes with the same result and no finished body runs again."""
    points = 0
    while await _survives_crash(world, scenario, points + 1, after):
        points += 1

    assert points >= 4


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_resumes_from_a_crash_during_recovery(world: World, scenario: Scenario) -> None:
    """[28] Dying again while recovering from the first crash changes nothing either."""
    points = 0
    while await _survives_crash(world, scenario, 4, True, again=points + 1):
        points += 1

    assert points >= 4


async def _survives_crash(world: World, scenario: Scenario, point: int, after: bool, again: int | None = None) -> bool:
    """Crash at `point` (and once more, `again` verbs into the recovery), then run to the end; False when the run ended
    before that point came."""
    effects.clear()
    run_id = f"{scenario.name}-{point}-{after}-{again}"
    mortal = MortalStorage(world.storage, point, after=after)
    await _work(world, mortal, scenario, run_id)
    if again is not None:
        second = MortalStorage(world.storage, again, after=after)
        await _work(world, second, scenario, run_id)
        if not second.is_dead:
            return False
    finished = await _finished_bodies(world.storage, run_id)
    begun_before = len(effects.began)

    await _work(world, world.storage, scenario, run_id)

    info = await world.info(run_id)
    assert scenario.result == info.output
    assert set() == finished & set(effects.began[begun_before:])
    assert len(info.entries) == len({entry.position for entry in info.entries})
    return mortal.is_dead


async def _work(world: World, storage: StorageAdapter | MortalStorage, scenario: Scenario, run_id: str) -> None:
    """One process: start or resume the run and work until it ends or the process dies; then leases run out."""
    engine = world.engine(scenario.call.workflow, storage=storage)  # type: ignore[arg-type]
    try:
        await engine.enqueue(scenario.call, run_id=run_id)
        while not (await world.info(run_id)).status.is_terminal:
            await engine.drain()
            world.clock.advance("1h")
    except (Crash, BaseExceptionGroup):
        if not (isinstance(storage, MortalStorage) and storage.is_dead):
            raise
    world.clock.advance("1h")


async def _finished_bodies(storage: StorageAdapter, run_id: str) -> set[tuple[str, str]]:
    journal = await storage.get_journal(run_id)
    return {(run_id, entry.position) for entry in journal.entries if entry.kind == "step"}
