"""Workers on Postgres through a pooler that lends them a connection for a transaction; one of them is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from reflow import Client, RunStatus
from reflow.storage.postgres import PostgresStorage
from tests.crash.fleet_worker import answered, killed
from tests.crash.ledger import fired, scaled
from tests.crash.postgres_fleet import SCHEMA, Beside, ServerFleet
from tests.crash.postgres_jobs import bought
from tests.crash.test_postgres_workers import until_none
from tests.support.postgres import Pooler, Server, or_skip

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

RUNS = scaled(300, long=3_000)


@pytest.fixture
def anyio_backend() -> str:
    """Of this process; the workers take turns."""
    return "asyncio"


@pytest.fixture
def pooler(server: Server) -> Iterator[Pooler]:
    """A pooler in front of the server, with fewer connections than the workers would like."""
    with or_skip(), Pooler(server.dsn, settings={"default_pool_size": "4"}) as pooler:
        yield pooler


@pytest.fixture
def fleet(tmp_path: Path, pooler: Pooler) -> ServerFleet:
    """Workers behind the pooler, none yet."""
    return ServerFleet(tmp_path, pooler)


async def test_two_workers_of_which_one_is_killed(fleet: ServerFleet, beside: Beside) -> None:
    """[115][121] Two workers, on asyncio and on trio, share hundreds of runs through the pooler; when one of them is
    killed amid them, the other completes what it held: every result is right, no entry is there twice, and what a
    transaction has written is there once."""
    storage = PostgresStorage(fleet.dsn, schema=SCHEMA, listen=False, prepare=False)
    async with Client(storage) as client:
        with ExitStack() as stack:
            victim, _ = (stack.enter_context(fleet.worker(lease="2s", pace_s=0.01)) for _ in range(2))
            for number in range(RUNS):
                await client.enqueue(_call(number), run_id=f"run-{number}")
                if number % 3 == 0:
                    for event in (1, 2):
                        await client.send_event(f"run-{number}", "answer", event, event_id=str(event))
            assert await to_thread.run_sync(fleet.wait_for_bodies, RUNS)
            victim.kill()
            fired("SIGKILL", "a worker behind a pooler")
            await until_none(beside, "ended_at is null", limit_s=90)
        outputs = [(await (await client.handle(f"run-{number}")).info()).output for number in range(RUNS)]

    assert [(RunStatus.COMPLETED,)] == beside("select distinct status from run")
    assert [] == beside("select run, position from entry group by 1, 2 having count(*) > 1")
    assert [_expected(number) for number in range(RUNS)] == outputs
    paid = beside("select run_id, cents from bought")
    assert sorted((f"run-{number}", number + 1) for number in range(1, RUNS, 3)) == sorted(paid)
    workers = {pid for *_, pid in fleet.began()}
    assert 2 == len(workers)
    assert "Traceback" not in fleet.errors


def _call(number: int) -> Any:
    """One of a few kinds."""
    return (answered, bought, killed)[number % 3](number)


def _expected(number: int) -> Any:
    first = number + 1
    return ([first + 5, first + 6, 2, 3], number + 3, (first + 1) ** 2 + (first + 2) ** 2 + 1)[number % 3]
