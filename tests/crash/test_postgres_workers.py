"""Workers on Postgres that come and go in order: a rolling deploy, a drain; and some that were taken for dead."""

from __future__ import annotations

import faulthandler
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest
from anyio import to_thread

from reflow import Client, RunStatus
from tests.cli.jobs import resting
from tests.crash.fleet_worker import answered, killed
from tests.crash.ledger import fired, scaled
from tests.crash.postgres_fleet import SCHEMA, Beside, ServerFleet
from tests.crash.postgres_jobs import bought, told, told_again
from tests.support.commands import started

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

AT_ONCE = scaled(8, long=60)
FREEZES = scaled(2, long=25)
LIMIT_S = scaled(110, long=900)
UNTOUCHED = (RunStatus.PENDING, 0, 0, None)
STATE = "select status, executions, idle_claims, lease_id from run where run_id = %s"


@pytest.fixture
def anyio_backend() -> str:
    """Of this process; the workers take turns."""
    return "asyncio"


@pytest.fixture
async def client(fleet: ServerFleet, beside: Beside, anyio_backend: str) -> AsyncIterator[Client]:
    """One who enqueues runs for them."""
    async with Client(fleet.storage()) as client:
        yield client


async def until_none(beside: Beside, such: str, limit_s: float = 30) -> None:
    """Wait until there is no such run; other processes see to it."""
    with anyio.fail_after(limit_s):
        while await to_thread.run_sync(beside, f"select 1 from run where {such} limit 1"):  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def left(worker: subprocess.Popen[bytes]) -> int:
    """Its exit code, when it has ended."""
    return await to_thread.run_sync(worker.wait, 30)


# ---- deploys ---------------------------------------------------------------------------------------------------------


class Deploy:
    """Three workers, of which one after the other is replaced by one that knows other workflows."""

    def __init__(self, fleet: ServerFleet, client: Client, stack: ExitStack) -> None:
        self.known: dict[int, list[str]] = {}
        self.count = 0
        self._fleet = fleet
        self._client = client
        self._stack = stack
        self._workers: list[subprocess.Popen[bytes]] = []

    async def begin(self, size: int, serves: str) -> None:
        """Start so many."""
        for _ in range(size):
            self._workers.append(await self._started(serves))

    async def replace(self, number: int, serves: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop a worker while runs come in, and start another in its place."""
        await self.enqueue()
        worker = self._workers[number]
        worker.send_signal(how)
        assert (0 if how == signal.SIGTERM else -how) == await left(worker)
        fired(how.name, "a worker, in a deploy")
        self._workers[number] = await self._started(serves)
        await self.enqueue()

    async def enqueue(self) -> None:
        """Runs for both releases."""
        for _ in range(AT_ONCE):
            for version, call in ((1, told("by")), (2, told_again("by"))):
                await self._client.enqueue(call, run_id=f"{version}-{self.count}")
            self.count += 1

    async def _started(self, serves: str) -> subprocess.Popen[bytes]:
        self._fleet.serves = serves.split()
        worker = self._stack.enter_context(self._fleet.worker(lease="1s"))
        self.known[worker.pid] = self._fleet.serves
        # As any deploy that waits until the new one is ready.
        with anyio.fail_after(30):
            while f"pid {worker.pid}\n" not in self._fleet.errors:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        return worker


async def test_a_rolling_deploy(fleet: ServerFleet, client: Client, beside: Beside) -> None:
    """[101][102][113] While workers of one release are replaced one by one by those of the next, runs of both are
    enqueued: each is advanced only by workers that know its version, and ends with the result of that version; what
    nobody knows is left alone until somebody does."""
    await client.enqueue("told", {"text": "by"}, version=3, run_id="of the future")
    with ExitStack() as stack:
        deploy = Deploy(fleet, client, stack)
        await deploy.begin(3, "FIRST")
        await deploy.enqueue()
        await until_none(beside, "version = 1 and ended_at is null")
        for number in range(deploy.count):
            assert [UNTOUCHED] == beside(STATE, f"2-{number}")
        for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
            await deploy.replace(number, "FIRST SECOND", how)
        for number in range(2):
            await deploy.replace(number, "SECOND")
        await deploy.replace(2, "FIRST")
        await until_none(beside, "version < 3 and ended_at is null")

    assert [UNTOUCHED] == beside(STATE, "of the future")
    ends = beside("select version, status, count(*) from run where version < 3 group by 1, 2 order by 1")
    assert [(version, RunStatus.COMPLETED, deploy.count) for version in (1, 2)] == ends
    for number in range(deploy.count):
        assert "by one one one" == (await (await client.handle(f"1-{number}")).info()).output
        assert "by two two two two" == (await (await client.handle(f"2-{number}")).info()).output
    strangers = [
        run_id
        for run_id, _, _, pid in fleet.began()
        if {"1": "FIRST", "2": "SECOND"}[run_id[0]] not in deploy.known[pid]
    ]
    assert [] == strangers
    assert "Traceback" not in fleet.errors


# ---- drains ----------------------------------------------------------------------------------------------------------


async def test_a_fleet_drains(fleet: ServerFleet, client: Client, beside: Beside) -> None:
    """[195][197] `reflow worker --processes 2` that is told to stop gives its leases back: the next worker goes on at
    once with what was in flight, though the lease was ten minutes, and no finished step runs again."""
    words = ("worker", "jobs:GOOD", "--storage", fleet.dsn, "--schema", SCHEMA, "--lease", "10m", "--grace", "0s")
    for number in range(4):
        await client.enqueue(resting(), run_id=f"run-{number}")

    with started(*words, "--processes", 2) as first:
        for _ in range(4):
            await to_thread.run_sync(first.until, "rest in")
        assert 4 == len(beside("select 1 from run where lease_id is not null"))
        first.send(signal.SIGTERM)
        code, said = await to_thread.run_sync(first.left)
    assert (0, 2) == (code, said.count("stopped: "))
    # What the first to stop hands back, the other may still claim, and hand back too.
    assert sum(map(int, _handed_back(said))) in (4, 5, 6, 7, 8)
    assert [(RunStatus.PENDING, None)] * 4 == beside("select status, lease_id from run")

    with started(*words) as second:
        with anyio.fail_after(20):
            for _ in range(4):
                await to_thread.run_sync(second.until, "rest in")
        second.send(signal.SIGTERM)
        code, said = await to_thread.run_sync(second.left)
    fired("SIGTERM", "workers with runs in flight", 2)
    assert (0, False) == (code, "give" in said)


def _handed_back(said: str) -> list[str]:
    return [line.split("stopped: ")[1].split()[0] for line in said.splitlines() if "stopped: " in line]


# ---- zombies ---------------------------------------------------------------------------------------------------------


async def test_zombies_land_nothing(fleet: ServerFleet, client: Client, beside: Beside) -> None:
    """[112][117] A worker that is stopped until its leases are over, and wakes when another has completed its runs,
    changes nothing: no run, no entry, no event, and no row that a transaction writes."""
    faulthandler.dump_traceback_later(LIMIT_S, exit=True)
    dice = random.Random(20261128)
    with ExitStack() as stack:
        worker = stack.enter_context(fleet.worker(lease="1s", pace_s=0.02))
        for freeze in range(FREEZES):
            numbers = range(24 * freeze, 24 * (freeze + 1))
            begun = fleet.began_count()
            for number in numbers:
                await _enqueue(client, number)
            await to_thread.run_sync(fleet.wait_for_bodies, begun + dice.randint(20, 60))
            worker.send_signal(signal.SIGSTOP)
            held = beside("select run_id from run where lease_id is not null")
            zombie, worker = worker, stack.enter_context(fleet.worker(lease="1s", pace_s=0.02))
            await until_none(beside, "ended_at is null", limit_s=60)
            before = _all_of(beside)
            zombie.send_signal(signal.SIGCONT)
            await anyio.sleep(dice.uniform(0, 0.5))
            # Whatever it had to write, it has written when it ends.
            zombie.send_signal(signal.SIGTERM)
            assert 0 == await left(zombie)
            assert held, "it was stopped too late"
            assert before == _all_of(beside)
            fired("SIGSTOP", "a worker, past its leases", 1)

    assert "Traceback" not in fleet.errors
    assert "dropped" in fleet.errors
    assert [(RunStatus.COMPLETED,)] == beside("select distinct status from run")
    numbers = range(1, 24 * FREEZES, 3)
    paid = beside("select run_id, cents from bought")
    assert sorted((f"run-{number}", number + 1) for number in numbers) == sorted(paid)


async def _enqueue(client: Client, number: int) -> None:
    """One of a few kinds; all that it waits for is there."""
    call: Any = (answered(number), bought(number), killed(number))[number % 3]
    await client.enqueue(call, run_id=f"run-{number}")
    if number % 3 == 0:
        for event in (1, 2):
            await client.send_event(f"run-{number}", "answer", event, event_id=str(event))


def _all_of(beside: Beside) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables."""
    tables = ("run", "entry", "timer", "message", "message_id", "outcome", "public.bought")
    return {table: beside(f"select * from {table} order by 1, 2") for table in tables}
