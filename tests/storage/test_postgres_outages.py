"""Postgres goes away, wholly or a connection at a time: what was under way is redone or told, and nothing is lost."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Literal

import psycopg
import pytest
from anyio import Event, create_task_group, current_time, fail_after, to_thread
from anyio.lowlevel import checkpoint
from psycopg.conninfo import make_conninfo

from reflow import Engine, Flow, RunStatus, StorageAccessError, StorageError, gather, step, workflow
from reflow.storage.postgres import PostgresStorage
from reflow.testing import VirtualClock
from reflow.testing.conformance.words import (
    NOW,
    claim,
    create,
    entry,
    get,
    hold,
    ids,
    new_run,
    opened,
    progress,
    state,
)
from tests.support.postgres import Server
from tests.support.postgres.outside import OTHERS, Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio


# ---- one connection --------------------------------------------------------------------------------------------------


async def test_idle_connections_may_end(adapter: PostgresStorage, beside: Outside):
    """After all connections of an adapter were ended while they were idle, the next verbs work as if nothing had
    happened: those that write, those that read, and transactions."""
    lease = await hold(adapter)
    assert b"first" == adapter.transact(lease, "0", "t", lambda _: b"first")
    for number in range(3):
        # Those that write and read, and the listener's, which comes back by itself.
        await beside.soon(f"select count(*) >= 3 {OTHERS}")
        assert beside.terminate() >= 3
        assert await adapter.save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
        assert number + 1 == len((await adapter.get_journal("r")).entries)
        assert b"more" == adapter.transact(lease, f"more {number}", "t", lambda _: b"more")
        assert beside.terminate() >= 3
        assert await adapter.send_message("r", "go", b"", now=NOW)
        assert number + 1 == (await get(adapter)).last_message


async def test_a_connection_may_end_within_a_transaction(adapter: PostgresStorage, beside: Outside):
    """A verb whose connection ends while it waits for a lock is redone once, on a new connection, and done once; with
    it all that shares its transaction."""
    lease = await hold(adapter)
    answers: list[Any] = []

    async def call(verb: Any) -> None:
        answers.append(await verb)

    beside("begin")
    beside("select 1 from run for update")
    async with create_task_group() as tasks:
        tasks.start_soon(call, adapter.send_message("r", "go", b"", now=NOW))
        tasks.start_soon(call, create(adapter, new_run("new")))
        tasks.start_soon(call, adapter.save_progress(progress(lease, entries=[entry("0")])))
        await beside.somebody_waits()
        assert 1 == beside.terminate("%for no key update%")
        await beside.somebody_waits()
        beside("commit")

    row, journal = await state(adapter, "r")
    assert ([True, True, True], 1, 1) == (
        [answer if isinstance(answer, bool) else answer[1] for answer in answers],
        row.last_message,
        len(journal.entries),
    )


async def test_it_is_redone_once_only(adapter: PostgresStorage, beside: Outside):
    """Where the connection ends again, the verb is a StorageError that says so; the next one works."""
    await hold(adapter)
    errors: list[StorageError] = []

    async def send() -> None:
        try:
            await adapter.send_message("r", "go", b"", now=NOW)
        except StorageError as error:
            errors.append(error)

    beside("begin")
    beside("select 1 from run for update")
    async with create_task_group() as tasks:
        tasks.start_soon(send)
        for _ in range(2):
            await beside.somebody_waits()
            assert 1 == beside.terminate("%for no key update%")
        beside("commit")

    assert [("send_message", True)] == [(error.verb, adapter.server.name in error.reason) for error in errors]
    assert await adapter.send_message("r", "go", b"", now=NOW)
    assert 1 == (await get(adapter)).last_message


async def test_an_append_by_itself_is_redone(adapter: PostgresStorage, beside: Outside):
    """An append is one statement without a transaction; where its connection ends it is redone all the same."""
    lease = await hold(adapter)
    assert await adapter.save_progress(progress(lease, entries=[entry("0")]))
    answers: list[bool] = []

    async def append() -> None:
        answers.append(await adapter.save_progress(progress(lease, recorded=1, entries=[entry("1")])))

    beside("begin")
    beside(
        "insert into entry select run, 1, '1', kind, name, failed, payload, attempts, started_at, recorded_at, digest "
        "from entry"
    )
    async with create_task_group() as tasks:
        tasks.start_soon(append)
        await beside.somebody_waits()
        assert 1 == beside.terminate("with held%")
        await beside.somebody_waits()
        beside("rollback")

    assert ([True], ["0", "1"]) == (answers, [one.position for one in (await adapter.get_journal("r")).entries])


async def test_nobody_knows_what_became_of_a_commit(untouched: Place):
    """Where the connection ends during the commit the verb is a StorageError and not redone: it may have been done.
    Asked for again, it is done once."""
    storage = PostgresStorage(untouched.dsn, schema=untouched.schema)
    async with opened(storage):
        lease = await hold(storage)
        with outside(untouched) as beside:
            beside("""create function wait() returns trigger language plpgsql as $$ begin
                perform pg_advisory_xact_lock(7); return null; end $$""")
            beside("""create constraint trigger wait after insert on message deferrable initially deferred
                for each row execute function wait()""")
            beside("begin")
            beside("select pg_advisory_xact_lock(7)")
            errors: list[StorageError] = []

            async def send() -> None:
                try:
                    await storage.send_message("r", "go", b"", now=NOW, message_id="once")
                except StorageError as error:
                    errors.append(error)

            async with create_task_group() as tasks:
                tasks.start_soon(send)
                await beside.somebody_waits()
                assert 1 == beside.terminate("commit")
                beside("commit")
        assert ["send_message"] == [error.verb for error in errors]
        assert await storage.send_message("r", "go", b"", now=NOW, message_id="once")
        assert 1 == (await get(storage)).last_message
        assert await storage.save_progress(progress(lease, entries=[entry("0")]))


# ---- engines ---------------------------------------------------------------------------------------------------------


async def double(number: int) -> int:
    """A body."""
    return 2 * number


@workflow
def doubling(number: int) -> Flow[int]:
    """Steps in a row, and some side by side."""
    for _ in range(5):
        number = yield from step(double, number)
    return sum((yield from gather(*(step(double, number) for _ in range(3)))))


async def test_an_engine_whose_connections_end_all_the_time(place: Place, beside: Outside):
    """[120] Runs complete as if nothing had happened while the connections of their engine are ended again and again,
    and each journal has each position once."""
    async with Engine(PostgresStorage(place.dsn, schema=place.schema), [doubling]) as engine:
        runs = [await engine.enqueue(doubling(number)) for number in range(30)]
        with fail_after(60):
            while beside.one("select count(*) from run where ended_at is null"):
                await to_thread.run_sync(beside.terminate)
                await checkpoint()
            results = [await run.result() for run in runs]

    assert [number * 2**6 * 3 for number in range(30)] == results
    assert [(8,)] == beside("select distinct count(*) from entry group by run")


@pytest.mark.parametrize("busy", ["idle", "telling", "connecting"])
async def test_leaving_does_not_wait_for_a_frozen_server(server: Server, own: Place, busy: str):
    """[195] An engine without runs is left within seconds while the server does not answer: also where a notice was
    being sent, and where the connection that listens was being made again."""
    storage = PostgresStorage(own.dsn, schema=own.schema)
    with outside(own) as beside, ExitStack() as frozen:
        # Its time stands still, so that it does not look by itself.
        async with Engine(storage, [doubling], clock=VirtualClock()) as engine:
            assert 30 * 2**6 * 3 == await engine.execute(doubling(30))
            frozen.enter_context(server.frozen(connections=busy != "connecting"))
            if busy == "telling":
                storage._tell()
            elif busy == "connecting":
                # Without waiting for its end, which only the server sees.
                assert [(True,)] == beside(f"select pg_terminate_backend(pid) {OTHERS} and query like 'listen %'")
            began = current_time()
        took_s = current_time() - began
        frozen.close()
        await beside.soon(f"select count(*) = 0 {OTHERS}")

    assert took_s < 5


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_server_that_stops_fails_no_run(
    server: Server, own: Place, mode: Literal["fast", "immediate"], caplog: pytest.LogCaptureFixture
):
    """[120] While the server is stopped, verbs are StorageErrors and engines wait; when it runs again, everything goes
    on, what was acknowledged is there, and no body that was recorded runs again."""
    reached, go_on = Event(), Event()
    bodies: list[str] = []

    async def first() -> str:
        bodies.append("first")
        return "first"

    async def second() -> str:
        bodies.append("second")
        reached.set()
        await go_on.wait()
        return "second"

    @workflow
    def outlasting() -> Flow[list[str]]:
        one = yield from step(first)
        two = yield from step(second)
        three = yield from step(first)
        return [one, two, three]

    storage = PostgresStorage(own.dsn, schema=own.schema)
    async with Engine(storage, [outlasting]) as engine:
        run = await engine.enqueue(outlasting())
        await reached.wait()
        await to_thread.run_sync(server.stop, mode)
        try:
            for verb in (storage.get_run("x"), create(storage, new_run("x"))):
                with pytest.raises(StorageError, match="own"):
                    await verb
            go_on.set()
            with fail_after(20):
                while not any(f"run {run.run_id}: storage could not save" in line for line in caplog.messages):
                    await checkpoint()
        finally:
            await to_thread.run_sync(server.start)
        with fail_after(20):
            result = await run.result()
        row = await get(storage, run.run_id)

    assert (["first", "second", "first"], ["first", "second", "first"]) == (result, bodies)
    assert (RunStatus.COMPLETED, 1) == (row.status, row.executions)


async def test_a_new_engine_after_a_crash_of_the_server(server: Server, own: Place):
    """[188] What was acknowledged before a server was killed is there when it has recovered."""
    async with opened(PostgresStorage(own.dsn, schema=own.schema)) as storage:
        lease = await hold(storage)
        for number in range(20):
            assert await storage.save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
        await to_thread.run_sync(server.restart, "immediate")
        assert 20 == len((await storage.get_journal("r")).entries)
        assert await storage.save_progress(progress(lease, recorded=20, entries=[entry("20")]))


async def test_too_many_connections(server: Server, own: Place):
    """Where the server takes no more connections, opening is a StorageAccessError and a verb a StorageError with the
    server's words; when it does, both work."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create role narrow login connection limit 2; grant create on database postgres to narrow")
        narrow = make_conninfo(own.dsn, user="narrow")
        storage = PostgresStorage(narrow, schema="narrow", listen=False)
        try:
            with psycopg.connect(narrow):
                with pytest.raises(StorageAccessError, match='too many connections for role "narrow"'):
                    await storage.initialize()
            with outside(own) as beside:
                await beside.soon("select count(*) = 0 from pg_stat_activity where usename = 'narrow'")
                async with opened(storage):
                    await create(storage, new_run())
                    beside("select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename = 'narrow'")
                    with psycopg.connect(narrow), psycopg.connect(narrow):
                        for verb in (storage.get_run("r"), create(storage, new_run("other"))):
                            with pytest.raises(StorageError, match='too many connections for role "narrow"'):
                                await verb
                    await beside.soon("select count(*) = 0 from pg_stat_activity where usename = 'narrow'")
                    assert ["r"] == ids(await claim(storage))
                    assert (await get(storage)).lease_id
        finally:
            connection.execute("drop owned by narrow; drop role narrow")
