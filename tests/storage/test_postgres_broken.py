"""Connections to Postgres that break where it is hard to see: amid many statements at once, or after a commit that was
done."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from anyio import create_task_group, fail_after, to_thread

from reflow import RunStatus, StorageError
from reflow.storage._postgres import session
from reflow.storage._sql import transactions
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending, Lease
from reflow.testing.conformance.words import (
    NOW,
    bound,
    claim,
    create,
    entry,
    hold,
    ids,
    new_run,
    opened,
    progress,
    together,
)
from tests.storage.test_costs import call_every_verb
from tests.support.postgres import Server
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

DONE = Ending(RunStatus.COMPLETED, output=b"out")


def break_amid_statements(connection: psycopg.Connection[Any]) -> None:
    """What the driver's `executemany` leaves behind, and raises, where the connection breaks at a bad moment: it says
    that it is open, and takes no statement any more."""
    connection.pgconn.enter_pipeline_mode()
    connection.pgconn.send_query_params(b"select 1", None)
    connection.pgconn.exit_pipeline_mode()


async def test_a_connection_stuck_amid_statements_is_given_up(adapter: PostgresStorage):
    """Where the driver does not notice that its connection broke amid many statements, the verb is redone on a new
    connection, with all that shares its transaction; so are those that come after it."""
    tries = 0

    def write(db: Any) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            break_amid_statements(db._connection)
        return tries

    answers = await together(bound(adapter._write, "write", write), bound(create, adapter, new_run("new")))

    assert (2, True) == (answers[0], answers[1][1])
    assert await adapter.send_message("new", "go", b"", now=NOW)


async def test_a_body_whose_connection_is_stuck(adapter: PostgresStorage):
    """Where that happens to the body of a transaction it is a StorageError, and no failure of the body; asked again,
    the body is called again."""
    lease = await hold(adapter)

    with pytest.raises(StorageError, match="the connection broke in 't'"):
        adapter.transact(lease, "0", "t", lambda connection: break_amid_statements(connection) or b"never")
    assert b"out" == adapter.transact(lease, "0", "t", lambda _: b"out")


async def test_who_is_frozen_in_a_transaction_holds_up_nobody_for_long(
    place: Place, beside: Outside, monkeypatch: pytest.MonkeyPatch
):
    """A process that is stopped amid a transaction keeps its locks for ten seconds only: others then go on. When it
    wakes, its transaction is redone, and finds what has happened meanwhile."""
    assert "10s" == session._FROZEN
    monkeypatch.setattr(session, "_FROZEN", "200ms")
    async with (
        opened(PostgresStorage(place.dsn, schema=place.schema)) as frozen,
        opened(PostgresStorage(place.dsn, schema=place.schema)) as other,
    ):
        await hold(frozen)
        has_looked, thaws = threading.Event(), threading.Event()
        seen: list[bool] = []

        def write(db: Any) -> int:
            seen.append(db.execute("select cancel_requested from reflow_run").fetchone() == (1,))
            has_looked.set()
            thaws.wait()
            return len(db.execute("select 1 from reflow_run").fetchall())

        async def freeze() -> None:
            assert 1 == await frozen._write("write", write, "r")

        async with create_task_group() as tasks:
            tasks.start_soon(freeze)
            assert await to_thread.run_sync(has_looked.wait, 20)
            try:
                with fail_after(20):
                    assert await other.request_cancel("r", now=NOW)
            finally:
                thaws.set()

    assert [False, True] == seen


async def test_no_verb_sends_statements_ahead(place: Place, monkeypatch: pytest.MonkeyPatch):
    """No verb uses the driver's pipeline, in which the server waits for a frozen process without a limit."""

    def refused(*_: object) -> None:
        raise AssertionError("a pipeline")

    for name in ("pipeline", "_pipeline_nolock"):
        monkeypatch.setattr(psycopg.Connection, name, refused)
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as storage:
        await storage.create_runs([new_run(run_id, tags=("a", "b")) for run_id in "xy"])
        leases = [Lease(run_id, "first") for run_id in ids(await claim(storage, "first"))]
        endings = [progress(lease, entries=[entry("0"), entry("1")], ending=DONE) for lease in leases]
        assert [True, True] == await together(*(bound(storage.save_progress, ending) for ending in endings))
        assert 2 == await storage.prune(before=NOW + 1, statuses=[RunStatus.COMPLETED], limit=10)
        await call_every_verb(storage)


async def test_who_is_frozen_when_a_body_has_ended_holds_up_nobody_for_long(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    """The same holds for the transaction of a body, from when it has ended and the run is locked; the body itself may
    take as long as it likes."""
    monkeypatch.setattr(session, "_FROZEN", "200ms")
    async with opened(PostgresStorage(place.dsn, schema=place.schema)) as frozen:
        lease = await hold(frozen)
        is_frozen, thaws = threading.Event(), threading.Event()
        put_outcome = transactions.put_outcome
        limits: list[str] = []

        def body(connection: Any) -> bytes:
            limits.append(connection.execute("show idle_in_transaction_session_timeout").fetchone()[0])
            return b"out"

        def put_late(*arguments: Any) -> bool:
            is_frozen.set()
            thaws.wait()
            return put_outcome(*arguments)

        monkeypatch.setattr(transactions, "put_outcome", put_late)

        async def freeze() -> None:
            with pytest.raises(StorageError):
                await to_thread.run_sync(frozen.transact, lease, "0", "t", body)

        async with create_task_group() as tasks:
            tasks.start_soon(freeze)
            assert await to_thread.run_sync(is_frozen.wait, 20)
            try:
                with fail_after(20):
                    assert await frozen.request_cancel("r", now=NOW)
            finally:
                thaws.set()

    assert ["0"] == limits


async def test_a_commit_that_was_done_is_not_redone(server: Server, own: Place):
    """Where the connection ends after the commit, and before its answer, each verb that shared the transaction is a
    StorageError, and was done once."""
    async with opened(PostgresStorage(own.dsn, schema=own.schema)) as storage:
        await hold(storage)
        errors: list[StorageError] = []

        async def attempt(verb: Awaitable[Any]) -> None:
            try:
                await verb
            except StorageError as error:
                errors.append(error)

        async with create_task_group() as tasks:
            with outside(own) as beside, unanswered_commits(server):
                for number in range(3):
                    tasks.start_soon(attempt, storage.send_message("r", "go", str(number).encode(), now=NOW))
                await beside.soon("select exists (select from pg_stat_activity where wait_event = 'SyncRep')")
                assert 1 == beside.terminate("commit")

        assert ["send_message"] * 3 == [error.verb for error in errors]
        assert [b"0", b"1", b"2"] == sorted(one.payload for one in await storage.get_messages("r", after=0))


@contextmanager
def unanswered_commits(server: Server) -> Iterator[None]:
    """Within it, commits are done, and then wait for a second server, which there is not."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = 'nobody'")
        connection.execute("select pg_reload_conf()")
        # Each of the server's processes reads it by itself, a moment later.
        while connection.execute("show synchronous_standby_names").fetchone() != ("nobody",):
            pass
        try:
            yield
        finally:
            connection.execute("alter system reset synchronous_standby_names")
            connection.execute("select pg_reload_conf()")
