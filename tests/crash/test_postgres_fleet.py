"""Three workers on a Postgres server: everything that can break breaks, and nothing is lost or done twice."""

from __future__ import annotations

import faulthandler
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import psycopg
import pytest
from anyio import to_thread

from reflow import Client, RunStatus, StorageError
from tests.crash.fleet_worker import answered, killed
from tests.crash.ledger import scaled
from tests.crash.postgres_fleet import Beside, ServerFleet
from tests.crash.postgres_jobs import bought
from tests.crash.storm import Storm
from tests.support.postgres import Server

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RUNS = scaled(150, long=2_400)
# How long it takes until all runs are there: so long the storm lasts, and a little longer.
ARRIVAL_S = scaled(20, long=360)
LIMIT_S = scaled(110, long=900)
WORKERS = 3

T = TypeVar("T")

JOURNALS = """select run_id, count(*), min(seq), max(seq), count(distinct position) from entry
    join run on run.id = run group by run_id"""
CHILDREN = "select parent, parent_position, count(*) from run where parent is not null group by 1, 2"
FINISHED = "select run_id, position, recorded_at from entry join run on run.id = run where recorded_at > %s"


@pytest.fixture
def anyio_backend() -> str:
    """Of this process; the workers take turns."""
    return "asyncio"


class Watch:
    """Knows which outcomes were stored when, by how many bodies had begun at all by then."""

    def __init__(self, fleet: ServerFleet, beside: Beside) -> None:
        self._fleet = fleet
        self._beside = beside
        self._stored: dict[tuple[str, str], int] = {}
        self._last_at = 0

    async def keep(self) -> None:
        """Look, several times a second, until cancelled."""
        while True:
            await to_thread.run_sync(self.look)
            await anyio.sleep(0.1)

    def look(self) -> None:
        """Look: what is found was stored before whatever begins from now on."""
        try:
            # Outcomes are stored some seconds after they came to be, at the latest.
            rows = self._beside(FINISHED, self._last_at - 30_000_000)
        except psycopg.OperationalError:
            return
        begun = self._fleet.began_count()
        for run_id, position, recorded_at in rows:
            self._stored.setdefault((run_id, position), begun)
            self._last_at = max(self._last_at, recorded_at)

    @property
    def stored(self) -> int:
        """How many outcomes it knows of."""
        return len(self._stored)

    def began_again(self) -> list[tuple[str, str]]:
        """Bodies that began although their outcomes were stored."""
        return [
            (run_id, position)
            for number, (run_id, position, _, _) in enumerate(self._fleet.began())
            if number >= self._stored.get((run_id, position), number + 1)
        ]


class Users:
    """Those who enqueue, send events and cancel; while the server is down they try until it answers."""

    def __init__(self, client: Client) -> None:
        self.refused = 0
        self._client = client

    async def insist(self, do: Callable[[], Awaitable[T]]) -> T:
        """Do it again until there is an answer."""
        while True:
            try:
                return await do()
            except StorageError:
                self.refused += 1
                await anyio.sleep(0.05)

    async def all_come(self, pause_s: float) -> None:
        """Runs of all kinds, one after the other; their events and cancellations some runs later."""
        for number in range(RUNS + 20):
            if number < RUNS:
                await self._enqueue(number)
            for event, due in ((1, number - 10), (2, number - 20)):
                if 0 <= due < RUNS and due % 3 == 0:
                    await self._write_to(due, event)
            await anyio.sleep(pause_s)

    async def _enqueue(self, number: int) -> None:
        call: Any = (answered(number), bought(number), killed(number))[number % 3]
        await self.insist(lambda: self._client.enqueue(call, run_id=f"run-{number}"))

    async def _write_to(self, number: int, event: int) -> None:
        run_id = f"run-{number}"
        if is_cancelled(number) and event == 2:
            await self.insist(lambda: self._client.cancel(run_id))
            return
        for _ in range(2):
            await self.insist(
                lambda: self._client.send_event(run_id, "answer", 100 * number + event, event_id=str(event))
            )


def is_cancelled(number: int) -> bool:
    """Whether this run is to be cancelled: every third of those that wait for events."""
    return number % 9 == 0


def expected(number: int) -> Any:
    """What becomes of a run."""
    if is_cancelled(number):
        return None
    if number % 3 == 0:
        return [number + 6, number + 7, 100 * number + 2, 100 * number + 3]
    return number + 3 if number % 3 == 1 else (number + 2) ** 2 + (number + 3) ** 2 + 1


async def test_the_server_stops_connections_end_and_workers_die(
    fleet: ServerFleet, server: Server, beside: Beside
) -> None:
    """[28][81][119][120][148] While the server is stopped every few seconds, connections are terminated many times a
    second and workers are killed, runs of all kinds end with the right results: no finished body runs again, what a
    transaction wrote is there once, each child too, no event is lost or taken twice, and no journal has a gap."""
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    watch = Watch(fleet, beside)
    async with Client(fleet.storage()) as client:
        users = Users(client)
        async with anyio.create_task_group() as watching:
            watching.start_soon(watch.keep)
            with Storm(fleet, server, WORKERS, lease="2s", seed=20261128) as storm:
                async with anyio.create_task_group() as raging:
                    raging.start_soon(storm.rage)
                    await users.all_come(ARRIVAL_S / (RUNS + 20))
                    raging.cancel_scope.cancel()
                await all_have_ended(beside)
            watching.cancel_scope.cancel()
        outputs = [(await (await client.handle(f"run-{number}")).info()).output for number in range(RUNS)]

    assert storm.stops > 2
    assert storm.kills > 2
    assert storm.ended_connections > 50
    assert list(map(expected, range(RUNS))) == outputs
    assert watch.stored > RUNS
    assert [] == watch.began_again()
    assert "Traceback" not in fleet.errors
    check_tables(beside)


def unfinished(beside: Beside) -> int:
    """How many runs have not ended."""
    [[count]] = beside("select count(*) from run where ended_at is null")
    return count


async def all_have_ended(beside: Beside) -> None:
    """Wait for other processes."""
    with anyio.move_on_after(60):
        while await to_thread.run_sync(unfinished, beside):  # noqa: ASYNC110
            await anyio.sleep(0.1)


def check_tables(beside: Beside) -> None:
    """What is in the tables when all runs have ended."""
    statuses = dict(beside("select run_id, status from run where parent is null"))
    assert {
        f"run-{number}": RunStatus.CANCELLED if is_cancelled(number) else RunStatus.COMPLETED for number in range(RUNS)
    } == statuses
    assert [] == [row for row in beside(JOURNALS) if row[1:] != (row[4], 0, row[1] - 1, row[1])]
    # Two children each, but for runs that were cancelled before they had any.
    children = beside(CHILDREN)
    assert {1} == {count for _, _, count in children}
    waiting = len(range(0, RUNS, 3))
    assert 2 * (waiting - len(range(0, RUNS, 9))) <= len(children) <= 2 * waiting
    assert [(f"run-{number}", number + 1) for number in range(1, RUNS, 3)] == sorted(
        beside("select run_id, cents from bought"), key=lambda row: row[1]
    )
    assert [] == beside(
        "select run_id from message join run on run.id = run where kind = 'event' and run.status = 'completed'"
    )
