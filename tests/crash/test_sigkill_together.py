"""Real processes that are really killed, on one file with events, children and cancellations from another process."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from reflow import Client, RunStatus, SQLiteStorage
from tests.crash.fleet import Fleet
from tests.crash.fleet_worker import answered, resting, shared
from tests.crash.ledger import fired
from tests.crash.test_sigkill import enqueue, finished, outputs, statuses

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RUNS = 60
WORKERS = 3
KILLS = 15


async def send(client: Client, number: int, count: int) -> None:
    """Send an answer, twice, as one does who got no receipt."""
    for _ in range(2):
        await client.send_event(f"run-{number}", "answer", 100 * number + count, event_id=str(count))


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    """What the file says."""
    db = sqlite3.connect(path, timeout=30)
    found = db.execute(sql).fetchall()
    db.close()
    return found


async def wait_until(path: Path, is_so: Callable[[dict[str, int]], bool], limit_s: float) -> float:
    """Wait until the statuses of all runs are so, and say how many seconds that took."""
    began = time.monotonic()
    # Other processes do it: there is no signal to wait for.
    while not is_so(statuses(path)) and time.monotonic() < began + limit_s:  # noqa: ASYNC110
        await anyio.sleep(0.01)
    return time.monotonic() - began


def _have_all_ended(counts: dict[str, int]) -> bool:
    return set(counts) <= {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}


async def test_events_children_and_cancellations(tmp_path: Path, anyio_backend: str) -> None:
    """[28][81][132][148] Three workers of which one after the other is killed lose no event and take none twice, have
    each child once, and clean up each run that another process cancels; no finished body runs again."""
    fleet = Fleet(tmp_path, anyio_backend)
    await enqueue(fleet.database, answered, RUNS)
    dice = random.Random(20261122)
    sent = [0] * RUNS
    cancelled = set(range(0, RUNS, 3))
    repeated: set[tuple[str, str]] = set()

    async with Client(SQLiteStorage(fleet.database)) as client, AsyncExitStack() as stack:
        workers = [stack.enter_context(fleet.worker(lease="500ms", pace_s=0.005)) for _ in range(WORKERS)]
        for kill in range(KILLS):
            before = finished(fleet.database)
            seen = fleet.began_count()
            for number in dice.sample(range(RUNS), RUNS // 4):
                if number in cancelled:
                    if kill > 3:
                        await client.cancel(f"run-{number}")
                elif sent[number] < 2:
                    sent[number] += 1
                    await send(client, number, sent[number])
            fleet.wait_for_bodies(seen + dice.randint(1, 20), limit_s=0.5)
            workers[kill % WORKERS].kill()
            fired("SIGKILL", "one of three workers on a file")
            workers[kill % WORKERS] = stack.enter_context(fleet.worker(lease="500ms", pace_s=0.005))
            repeated |= before & {(run, position) for run, position, _, _ in fleet.began()[seen:]}
        left_over = not _have_all_ended(statuses(fleet.database))
        for number in range(RUNS):
            if number in cancelled:
                await client.cancel(f"run-{number}")
            for more in range(sent[number], 0 if number in cancelled else 2):
                await send(client, number, more + 1)
        await wait_until(fleet.database, _have_all_ended, limit_s=10)

    assert left_over, "the kills came too late to hit anything"
    _check_ends(fleet.database, cancelled)
    assert repeated == set()
    expected = [
        None if number in cancelled else [number + 6, number + 7, 100 * number + 2, 100 * number + 3]
        for number in range(RUNS)
    ]
    assert expected == await outputs(fleet.database, answered, RUNS)
    assert [("ok",)] == rows(fleet.database, "pragma quick_check")


def _check_ends(path: Path, cancelled: set[int]) -> None:
    ends = rows(path, "select run_id, status from reflow_run where workflow = 'answered'")
    expected = {f"run-{n}": "cancelled" if n in cancelled else "completed" for n in range(RUNS)}
    assert expected == dict(ends)
    # Two children each, but for runs that were cancelled before they had any.
    children = rows(
        path, "select parent, parent_position, count(*) from reflow_run where parent is not null group by 1, 2"
    )
    assert {1} == {count for _, _, count in children}
    assert {"0", "1"} == {str(position)[2:] for _, position, _ in children}
    assert 2 * (RUNS - len(cancelled)) <= len(children) <= 2 * RUNS
    # Every cancelled run has cleaned up, once, but for those that were cancelled between their claim and their start.
    undone = rows(
        path,
        """select run_id, group_concat(name, ' ') from (select * from reflow_entry order by run, seq)
        join reflow_run on reflow_run.id = run
        where workflow = 'answered' and name in ('cancel', 'undo', 'report') group by run_id""",
    )
    assert {"cancel undo report", "cancel"} >= {names for _, names in undone}
    assert "cancel undo report" in dict(undone).values()
    assert {f"run-{number}" for number in cancelled} >= {run_id for run_id, _ in undone}
    left = """select count(*) from reflow_message join reflow_run on reflow_run.id = run
        where reflow_run.status = 'completed' and kind = 'event'"""
    assert [(0,)] == rows(path, left)


async def test_cancelled_from_another_process(tmp_path: Path, anyio_backend: str) -> None:
    """[132] Cancelled from another process, runs in the middle of a step and runs that rest end within a second."""
    fleet = Fleet(tmp_path, anyio_backend)
    await enqueue(fleet.database, resting, 3)

    async with Client(SQLiteStorage(fleet.database)) as client, AsyncExitStack() as stack:
        stack.enter_context(fleet.worker(lease="30s", pace_s=60))
        await wait_until(fleet.database, lambda counts: counts == {RunStatus.WAITING: 3}, limit_s=10)
        await enqueue(fleet.database, shared, 3, first=3)
        fleet.wait_for_bodies(3)
        asked = [await client.cancel(f"run-{number}") for number in range(6)]
        took_s = await wait_until(fleet.database, lambda counts: counts == {RunStatus.CANCELLED: 6}, limit_s=10)

    assert [True] * 6 == asked
    assert {RunStatus.CANCELLED: 6} == statuses(fleet.database)
    assert took_s < 1
