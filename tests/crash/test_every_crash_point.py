"""Stop the world before and after every storage verb of every scenario, restart, and go on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count

import pytest

from reflow import StorageAdapter
from reflow._core.journal import MessageKind
from reflow.storage.postgres import PostgresStorage
from reflow.testing.crash import Crash, MortalStorage
from tests.crash.ledger import fired, scaled
from tests.crash.life import runs_of, work
from tests.support.workflows import SCENARIOS, Body, Scenario, effects
from tests.support.world import World

pytestmark = pytest.mark.anyio

# A result, an error, or what a run can wait for.
_NAMED = re.compile(
    r" (completed at|failed at|was cancelled|sleeps until|waits (until|for|without)|is due since|starts at|goes on at)|"
    r" was left under a lease that was over at .* and (is|waits)"
)


def points_of(world: World, scenario: Scenario) -> Iterable[int]:
    """All points from the first on. On a server, where they take most of the time, the short form has every third; with
    which of the first three it begins differs."""
    step = scaled(3, long=1) if isinstance(world.storage, PostgresStorage) else 1
    return count(1 + len(scenario.name) % step, step)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_resumes_from_every_crash_point(world: World, scenario: Scenario, after: bool) -> None:
    """[28][30] Wherever the process dies, the run completes with the same result and no finished body runs again."""
    points: list[int] = []
    for point in points_of(world, scenario):
        if not await _survives_crash(world, scenario, point, after):
            break
        points.append(point)
    fired("world stopped", f"{'after' if after else 'before'} a storage verb", len(points))

    assert points[-1] >= 4


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_resumes_from_a_crash_during_recovery(world: World, scenario: Scenario) -> None:
    """[28] Dying again while recovering from a crash half way changes nothing either."""
    whole = MortalStorage(world.storage, 1_000, after=False)
    await _work(world, whole, scenario, f"{scenario.name}-whole")
    half = len(whole.verbs) // 2
    points: list[int] = []
    for point in points_of(world, scenario):
        if not await _survives_crash(world, scenario, half, True, again=point):
            break
        points.append(point)
    fired("world stopped", "again, in recovery", len(points))

    assert points[-1] >= 4


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
async def test_wherever_it_stands_a_run_has_a_reason(world: World, scenario: Scenario) -> None:
    """[181] Wherever the process dies, each run says how it ended, or what it waits for that will come."""
    silent: list[str] = []
    point = 0
    for point in points_of(world, scenario):
        run_id = f"{scenario.name}-{point}-reason"
        mortal = MortalStorage(world.storage, point, after=True)
        await _work(world, mortal, scenario, run_id)
        engine = world.engine(scenario.call.workflow, *scenario.others)
        reasons = [await engine.why(row.run_id) for row in await runs_of(world.storage, run_id)]
        silent += [reason for reason in reasons if not _NAMED.search(reason)]
        if not mortal.is_dead:
            break

    assert (True, []) == (point > 4, silent)


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
    finished = await _finished_bodies(world, run_id)
    begun_before = len(effects.began)

    await _work(world, world.storage, scenario, run_id)

    info = await world.info(run_id)
    names = tuple(entry.name for entry in info.entries)
    messages = (await world.storage.get_journal(run_id)).messages
    assert (scenario.status, scenario.result) == (info.status, info.output)
    assert set() == finished & set(effects.began[begun_before:])
    assert len(info.entries) == len({entry.position for entry in info.entries})
    assert names == (scenario.entries or names)
    assert [True] * scenario.runs == [row.status.is_terminal for row in await runs_of(world.storage, run_id)]
    assert [] == [message for message in messages if message.kind is MessageKind.EVENT]
    return mortal.is_dead


async def _work(world: World, storage: StorageAdapter | MortalStorage, scenario: Scenario, run_id: str) -> None:
    """One process: start or resume the run and work until it and its kin have ended or the process dies; then leases
    run out."""
    engine = world.engine(scenario.call.workflow, *scenario.others, storage=storage)  # type: ignore[arg-type]
    try:
        await work(engine, scenario, run_id, world.clock, world.storage)
    except (Crash, BaseExceptionGroup):
        if not (isinstance(storage, MortalStorage) and storage.is_dead):
            raise
    world.clock.advance("1h")


async def _finished_bodies(world: World, run_id: str) -> set[Body]:
    """Those with an entry, and those of the generations before."""
    finished: set[Body] = set()
    for row in await runs_of(world.storage, run_id):
        journal = await world.storage.get_journal(row.run_id)
        finished.update((row.run_id, row.generation, entry.position) for entry in journal.entries)
        finished.update(body for body in effects.ended if body[0] == row.run_id and body[1] < row.generation)
    return finished
