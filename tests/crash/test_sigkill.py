"""Real processes, real files, real kills."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import anyio
import pytest

from reflow import Engine, RunStatus, SQLiteStorage
from tests.crash.fleet import Fleet
from tests.crash.fleet_worker import killed, shared
from tests.crash.ledger import fired
from tests.crash.nursery import Nursery

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RUNS = 200
KILLS = 50


async def enqueue(path: Path, workflow: object, count: int, *, first: int = 0) -> None:
    """Store runs without a worker of our own; their numbers begin at `first`."""
    storage = SQLiteStorage(path)
    await storage.initialize()
    engine = Engine(storage, [workflow])  # type: ignore[list-item]
    async with anyio.create_task_group() as tasks:
        for number in range(first, first + count):
            tasks.start_soon(_enqueue_one, engine, workflow, number)
    await storage.close()


async def _enqueue_one(engine: Engine, workflow: object, number: int) -> None:
    await engine.enqueue(workflow(number), run_id=f"run-{number}")  # type: ignore[operator]


def finished(path: Path) -> set[tuple[str, str]]:
    """(run, position) of all stored outcomes."""
    db = sqlite3.connect(path, timeout=30)
    rows = db.execute("select run_id, position from reflow_entry join reflow_run on reflow_run.id = run").fetchall()
    db.close()
    return set(rows)


def statuses(path: Path) -> dict[str, int]:
    """How many runs are in which state."""
    db = sqlite3.connect(path, timeout=30)
    rows = db.execute("select status, count(*) from reflow_run group by status").fetchall()
    db.close()
    return dict(rows)


async def wait_until_all_completed(path: Path, count: int, limit_s: float) -> None:
    """Wait for other processes; there is no signal that would come from all of them."""
    deadline = time.monotonic() + limit_s
    # Other processes finish them: there is no signal to wait for.
    while statuses(path) != {RunStatus.COMPLETED: count} and time.monotonic() < deadline:  # noqa: ASYNC110
        await anyio.sleep(0.05)


async def outputs(path: Path, workflow: object, count: int) -> list[object]:
    """The results of all runs, in order of their numbers."""
    storage = SQLiteStorage(path)
    await storage.initialize()
    engine = Engine(storage, [workflow])  # type: ignore[list-item]
    infos = [await engine.get_run(f"run-{number}") for number in range(count)]
    await storage.close()
    return [info and info.output for info in infos]


async def test_runs_survive_fifty_kills(tmp_path: Path, nursery: Nursery, anyio_backend: str) -> None:
    """[28] A worker killed 50 times at random moments loses nothing: all runs complete, and no finished body runs
    again."""
    fleet = Fleet(tmp_path, anyio_backend, nursery)
    await enqueue(fleet.database, killed, RUNS)
    dice = random.Random(20261121)
    repeated: set[tuple[str, str]] = set()
    kills = 0

    while kills < KILLS:
        before = finished(fleet.database)
        seen = fleet.began_count()
        with fleet.worker(lease="500ms", pace_s=0.005) as worker:
            fleet.wait_for_bodies(seen + dice.randint(1, 40))
            await anyio.sleep(dice.random() * 0.01)
            worker.kill()
            kills += 1
            fired("SIGKILL", "a worker alone on its file")
        repeated |= before & {(run, position) for run, position, _, _ in fleet.began()[seen:]}
    left_over = RUNS - statuses(fleet.database).get(RunStatus.COMPLETED, 0)
    with fleet.worker(lease="500ms"):
        await wait_until_all_completed(fleet.database, RUNS, limit_s=60)

    assert statuses(fleet.database) == {RunStatus.COMPLETED: RUNS}
    assert left_over > 0, "the kills came too late to hit anything"
    assert repeated == set()
    assert [(n + 2) ** 2 + (n + 3) ** 2 + 1 for n in range(RUNS)] == await outputs(fleet.database, killed, RUNS)
    db = sqlite3.connect(fleet.database)
    assert [("ok",)] == db.execute("pragma quick_check").fetchall()
    db.close()


async def test_two_processes_share_a_file(tmp_path: Path, anyio_backend: str) -> None:
    """[121] Two engines on one file finish 1,000 runs of 5 steps: none failed, none stuck, no body ran twice, and no
    "database is locked" reached anybody."""
    fleet = Fleet(tmp_path, anyio_backend)
    await enqueue(fleet.database, shared, 1_000)

    with fleet.worker(lease="30s"), fleet.worker(lease="30s"):
        await wait_until_all_completed(fleet.database, 1_000, limit_s=90)

    assert statuses(fleet.database) == {RunStatus.COMPLETED: 1_000}
    assert [] == fleet.more_than_once()
    assert len({pid for _, _, _, pid in fleet.began()}) == 2
    assert "" == fleet.errors
    assert list(range(5, 1_005)) == await outputs(fleet.database, shared, 1_000)
