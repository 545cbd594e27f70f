"""`PostgresStorage` beside other connections: nothing that it decides on changes before its commit."""

from __future__ import annotations

import psycopg
import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint
from psycopg.sql import SQL, Identifier

from reflow import RunStatus
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending
from reflow.testing.conformance.words import entry, hold, opened, progress
from tests.support.postgres import Schemas

pytestmark = pytest.mark.anyio

_WAITING = "select exists (select from pg_locks where not granted)"


async def test_a_write_that_had_to_wait_looks_at_the_lease_afterwards(schemas: Schemas):
    """[112][117] A write that waits for a transaction in which the run is claimed finds its lease lost."""
    answers: list[bool] = []
    with schemas.lend() as place, psycopg.connect(place.dsn) as claiming:
        storage = PostgresStorage(place.dsn, schema=place.schema)
        async with opened(storage):
            lease = await hold(storage)
            ending = Ending(RunStatus.COMPLETED, output=b"")

            async def write() -> None:
                answers.append(await storage.save_progress(progress(lease, entries=[entry("0")], ending=ending)))

            claiming.execute(SQL("update {} set lease_id = 'second'").format(Identifier(place.schema, "run")))
            async with create_task_group() as tasks:
                tasks.start_soon(write)
                while not claiming.execute(_WAITING).fetchall()[0][0]:
                    await checkpoint()
                claiming.commit()
            journal = await storage.get_journal("r")

    assert ([False], []) == (answers, journal.entries)
