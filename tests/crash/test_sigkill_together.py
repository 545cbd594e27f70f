"""Real processes that are really killed, on one file with sleeps, attempts, events, children, a schedule, and
cancellations from another process."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from reflow import Client, RunStatus, SQLiteStorage
from tests.crash.fleet import Fleet
from tests.crash.fleet_worker import answered, dozing, killed, resting, shared
from tests.crash.ledger import fired, scaled
from tests.crash.nursery import Nursery
from tests.crash.test_sigkill import enqueue, finished, statuses

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RUNS = 60
KINDS: tuple[Callable[[int], Any], ...] = (answered, answered, killed, dozing)
WORKERS = 3
KILLS = scaled(30, long=500)


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


def have_all_ended(counts: dict[str, int]) -> bool:
    """Whether no run is in any other state."""
    return set(counts) <= {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}


class Workload:
    """Runs of four kinds, by their numbers: of the answered ones every other is cancelled."""

    def __init__(self, fleet: Fleet, client: Client, dice: random.Random) -> None:
        self.count = 0
        self._fleet = fleet
        self._client = client
        self._dice = dice
        self._sent: dict[int, int] = {}

    async def grow(self) -> None:
        """So many more, if there is not enough to do: a kill has to hit somebody who is at work."""
        counts = statuses(self._fleet.database)
        if sum(counts.get(status, 0) for status in (RunStatus.PENDING, RunStatus.RUNNING)) < RUNS // 4:
            first, self.count = self.count, self.count + RUNS
            for number in range(first, self.count):
                call = KINDS[number % len(KINDS)](number)
                await self._client.enqueue(call, run_id=f"run-{number}")
                if number % len(KINDS) < 2:
                    self._sent[number] = 0

    async def disturb(self) -> None:
        """Send a few runs an event, and cancel others."""
        for number in self._dice.sample(sorted(self._sent), min(RUNS // 8, len(self._sent))):
            await self._tell(number)

    async def finish(self) -> None:
        """Send and cancel what is missing."""
        while self._sent:
            await self._tell(next(iter(self._sent)))

    async def _tell(self, number: int) -> None:
        if number % len(KINDS) == 0:
            await self._client.cancel(f"run-{number}")
            del self._sent[number]
            return
        self._sent[number] += 1
        await send(self._client, number, self._sent[number])
        if self._sent[number] == 2:
            del self._sent[number]

    def expected(self, number: int) -> tuple[str, object]:
        """How a run has to end."""
        match number % len(KINDS):
            case 0:
                return RunStatus.CANCELLED, None
            case 1:
                return RunStatus.COMPLETED, [number + 6, number + 7, 100 * number + 2, 100 * number + 3]
            case 2:
                return RunStatus.COMPLETED, (number + 2) ** 2 + (number + 3) ** 2 + 1
            case _:
                return RunStatus.COMPLETED, number + 2


@pytest.mark.usefixtures("patience")
async def test_a_fleet_under_fire(tmp_path: Path, nursery: Nursery, anyio_backend: str) -> None:
    """[28][81][132][148][154] Three workers of which one after the other is killed lose no event and take none twice,
    have each child once and each occurrence of a schedule, and clean up each run that another process cancels; no
    finished body runs again."""
    fleet = Fleet(tmp_path, anyio_backend, nursery)
    dice = random.Random(20261122)
    stored: set[tuple[str, str]] = set()
    repeated: set[tuple[str, str]] = set()
    at_work = 0

    async with Client(SQLiteStorage(fleet.database)) as client, AsyncExitStack() as stack:
        await client.schedule("shared", {"number": 1}, every="1s", key="k", missed="all")
        workload = Workload(fleet, client, dice)
        workers = [stack.enter_context(fleet.worker(lease="500ms", pace_s=0.005)) for _ in range(WORKERS)]
        for _ in range(KILLS):
            await workload.disturb()
            await workload.grow()
            before = finished(fleet.database)
            seen = fleet.began_count()
            fleet.wait_for_bodies(seen + dice.randint(1, 40), limit_s=0.5)
            at_work += RunStatus.RUNNING in statuses(fleet.database)
            victim = dice.randrange(WORKERS)
            workers[victim].kill()
            workers[victim].wait()
            fired("SIGKILL", "one of three workers on a file")
            workers[victim] = stack.enter_context(fleet.worker(lease="500ms", pace_s=0.005))
            stored |= before
            repeated |= before & {(run, position) for run, position, _, _ in fleet.began(seen)}
        await workload.finish()
        await client.unschedule("k")
        await wait_until(fleet.database, have_all_ended, limit_s=30)
        ends = [await client.get_run(f"run-{number}") for number in range(workload.count)]

    assert at_work > 0.9 * KILLS, "the kills came too late to hit anything"
    assert [workload.expected(number) for number in range(workload.count)] == [
        (info.status, info.output) for info in ends if info
    ]
    assert (set(), set()) == (repeated, stored - finished(fleet.database))
    check_ends(fleet.database, workload.count)
    _check_occurrences(fleet.database)
    assert [("ok",)] == rows(fleet.database, "pragma quick_check")


def check_ends(path: Path, count: int) -> None:
    """What runs of a workload, so many, must have left: entries, children and messages."""
    assert [] == rows(path, "select run, position from reflow_entry group by 1, 2 having count(*) > 1")
    # Two children each, but for runs that were cancelled before they had any.
    children = rows(
        path, "select parent, parent_position, count(*) from reflow_run where parent is not null group by 1, 2"
    )
    assert {1} == {number for _, _, number in children}
    assert {"0", "1"} == {str(position)[2:] for _, position, _ in children}
    answered = len([number for number in range(count) if number % len(KINDS) == 1])
    assert 2 * answered <= len(children) <= 4 * answered
    # Every cancelled run has cleaned up, once, but for those that were cancelled between their claim and their start.
    undone = rows(
        path,
        """select run_id, group_concat(name, ' ') from (select * from reflow_entry order by run, seq)
        join reflow_run on reflow_run.id = run
        where workflow = 'answered' and name in ('cancel', 'undo', 'report') group by run_id""",
    )
    assert {"cancel undo report", "cancel"} >= {names for _, names in undone}
    assert "cancel undo report" in dict(undone).values()
    assert {f"run-{number}" for number in range(0, count, len(KINDS))} >= {run_id for run_id, _ in undone}
    left = """select count(*) from reflow_message join reflow_run on reflow_run.id = run
        where reflow_run.status = 'completed' and kind = 'event'"""
    assert [(0,)] == rows(path, left)


def _check_occurrences(path: Path) -> None:
    """One run a second, none missing."""
    runs = rows(path, "select run_id, status from reflow_run where run_id like 'k@%' order by run_id")
    instants = [datetime.fromisoformat(str(run_id).split("@")[1]) for run_id, _ in runs]
    assert [instants[0] + timedelta(seconds=number) for number in range(len(instants))] == instants
    assert {"completed"} == {status for _, status in runs}


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
