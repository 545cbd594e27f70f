"""Schedules, when engines die: exactly one run for each occurrence."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from reflow import Client, Flow, SQLiteStorage, step, workflow
from reflow.testing.crash import Crash, MortalStorage
from tests.crash.fleet import Fleet
from tests.support.world import World

pytestmark = pytest.mark.anyio

SECONDS = 6


async def give(value: int) -> int:
    """Returns what it is given."""
    return value


@workflow
def counted(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@pytest.mark.parametrize("after", [False, True], ids=["before the verb", "after the verb"])
async def test_a_crash_at_every_verb(world: World, after: bool) -> None:
    """[154] Wherever an engine dies, each occurrence has one run in the end, and all complete."""
    client = Client(world.storage, clock=world.clock)
    expected: list[str] = []
    for dies_at in range(1, 9):
        key = f"{dies_at:02}"
        await client.schedule("counted", {"value": 7}, every="10m", key=key, missed="all")
        occurrences = [(await client.list_schedules())[-1].next_at]
        for _ in range(2):
            world.clock.advance("10m")
            mortal = MortalStorage(world.storage, dies_at, after=after)
            try:
                await world.engine(counted, storage=mortal).drain()  # type: ignore[arg-type]
            except* Crash:
                pass
            # Long enough for the lease that it may have left.
            world.clock.advance("1m")
            await world.engine(counted).drain()
        occurrences.append(occurrences[0] + timedelta(minutes=10) if occurrences[0] else None)
        expected += [f"{key}@{at:%Y-%m-%dT%H:%M:%S}Z" for at in occurrences if at]
        await client.unschedule(key)
    completed = (await client.list_runs(status="completed", limit=1_000)).runs

    assert expected == sorted(run.run_id for run in completed)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_processes(tmp_path: Path, anyio_backend: str) -> None:
    """[153][154] Three worker processes on one file, of which one after the other is killed, make one run for each
    second, and miss none."""
    fleet = Fleet(tmp_path, anyio_backend)
    async with Client(SQLiteStorage(fleet.database)) as client:
        await client.schedule("shared", {"number": 1}, every="1s", key="k", missed="all")
        with fleet.worker(lease="1s"), fleet.worker(lease="1s") as second, fleet.worker(lease="1s") as third:
            for victim, runs in ((second, 2), (third, 4), (None, SECONDS)):
                await wait_for_runs(client, runs)
                if victim is not None:
                    victim.kill()
        fired = sorted(run.run_id for run in (await client.list_runs()).runs)
        [schedule] = await client.list_schedules()

    first = schedule.created_at + timedelta(seconds=1)
    instants = [datetime.fromisoformat(run_id.split("@")[1]) for run_id in fired]
    assert [first + timedelta(seconds=number) for number in range(len(fired))] == instants
    assert fired[-1] == schedule.last_run_id
    assert "" == fleet.errors


async def wait_for_runs(client: Client, count: int, limit_s: float = 30) -> None:
    """Wait until a schedule has started so many runs; other processes give no signal."""
    deadline = time.monotonic() + limit_s
    while len((await client.list_runs()).runs) < count:
        assert time.monotonic() < deadline, "nothing happens any more"
        await anyio.sleep(0.05)
