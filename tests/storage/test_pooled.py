"""Postgres through a pooler: by transaction, as it is promised; by session; and by statement, which is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from functools import partial
from itertools import count
from typing import Any

import psycopg
import pytest
from anyio import fail_after, to_thread

from reflow import Client, Engine, Flow, RunStatus, StorageAccessError, step, wait_event, workflow
from reflow.storage._postgres.copying import reading, writing
from reflow.storage._postgres.pooler import process_of
from reflow.storage._sql.copying import copy
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending
from reflow.testing.conformance import Another, Case, cases
from reflow.testing.conformance.words import (
    NOW,
    bound,
    claim,
    create,
    entry,
    get,
    hold,
    ids,
    new_run,
    opened,
    progress,
    together,
)
from tests.support.postgres import Pooler, Schemas, or_skip
from tests.support.postgres.hearing import Heard, listening
from tests.support.postgres.outside import Outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

# What one adapter does is heard through another one: that is what there is no `listen` for.
NOT_HEARD = "y1_listeners_are_woken"
# What an application may leave behind on a connection that others are given afterwards.
LEFT_BEHIND = """set search_path = nowhere; set default_transaction_isolation = 'serializable';
    set enable_indexscan = off; set enable_seqscan = on; set synchronous_commit = off; set timezone = 'Asia/Tokyo';
    set extra_float_digits = 0; set bytea_output = 'escape'"""
SETTINGS = """select name, setting from pg_settings where name in
    ('enable_seqscan', 'enable_bitmapscan', 'enable_sort', 'jit', 'idle_in_transaction_session_timeout', 'search_path',
    'transaction_isolation', 'transaction_read_only', 'synchronous_commit')"""
LEFT_OVER = """select (select count(*) from pg_prepared_statements), (select count(*) from pg_listening_channels()),
    (select count(*) from pg_cursors),
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())"""


@pytest.fixture(scope="module")
def pooler(schemas: Schemas) -> Iterator[Pooler]:
    """A pooler in front of the server, which lends a connection for a transaction."""
    with or_skip(), Pooler(schemas.dsn) as pooler:
        yield pooler


@pytest.fixture
def pooled(place: Place, pooler: Pooler) -> Place:
    """A schema with empty tables, by way of the pooler."""
    return through(pooler, place)


@pytest.fixture
def another(pooled: Place) -> Another:
    """Makes adapters as they are made for such a pooler."""
    return partial(made, pooled)


def through(pooler: Pooler, place: Place) -> Place:
    """The same place, by way of a pooler."""
    return Place(pooler.through(place.dsn), place.schema)


def made(place: Place, *, listen: bool = False, prepare: bool = False) -> PostgresStorage:
    """An adapter that is not initialized yet."""
    return PostgresStorage(place.dsn, schema=place.schema, listen=listen, prepare=prepare)


def lanes(storage: PostgresStorage) -> Any:
    """The connections that an open adapter writes and reads by."""
    assert storage._lanes is not None
    return [lane._session.connection for lane in (storage._lanes.writing, storage._lanes.reading)]  # type: ignore[attr-defined]


@contextmanager
def by_one_connection(place: Place) -> Iterator[tuple[Place, psycopg.Connection[Any]]]:
    """The same place by way of a pooler that has one connection, and another client of that pooler."""
    with or_skip(), Pooler(place.dsn, settings={"default_pool_size": "1"}) as narrow:
        with psycopg.connect(narrow.dsn, autocommit=True, prepare_threshold=None) as client:
            yield through(narrow, place), client


# ---- by transaction --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in cases() if case.name != NOT_HEARD], ids=str)
async def test_clause(case: Case, another: Another):
    """[189] What the case says holds through the pooler too."""
    await case(another)


async def test_each_transaction_may_have_another_connection(pooled: Place, another: Another):
    """The pooler does what these tests are about: when others hold the connection that an adapter had, the adapter has
    another one, and reads and writes as before."""
    async with opened(another()) as storage:
        assert isinstance(storage, PostgresStorage)
        lease = await hold(storage)
        writer, _ = lanes(storage)
        processes: set[int] = set()
        with psycopg.connect(pooled.dsn) as one, psycopg.connect(pooled.dsn) as other:
            for number, holder in enumerate((one, other)):
                processes.add(process_of(writer))
                holder.execute("select 1")
                assert await storage.save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
                assert await storage.send_message("r", "go", b"", now=NOW)
                assert number + 1 == len((await storage.get_journal("r")).messages)
            processes.add(process_of(writer))

    assert len(processes) > 1


async def test_what_others_left_behind(place: Place):
    """On a connection that another application has left with settings of its own, everything works, and with the
    durability that was asked for."""
    with by_one_connection(place) as (narrow, client):
        async with opened(made(narrow)) as storage:
            client.execute(LEFT_BEHIND.encode())
            lease = await hold(storage)
            assert await storage.save_progress(progress(lease, entries=[entry("0", payload=b"\0\xff")]))
            assert await storage.send_message("r", "go", b"\\x00", now=NOW)
            assert [b"\0\xff"] == [found.payload for found in (await storage.get_journal("r")).entries]
            assert b"\\x00" == storage.transact(lease, "1", "t", lambda _: b"\\x00")
            assert await storage.save_progress(progress(lease, recorded=1, ending=Ending(RunStatus.COMPLETED)))
            assert RunStatus.COMPLETED is (await get(storage)).status


async def test_nothing_is_left_behind(place: Place):
    """The connection that others are given afterwards has its settings as before, and no prepared statement, cursor,
    advisory lock or `listen` of ours."""
    with by_one_connection(place) as (narrow, client):
        before = client.execute(SETTINGS).fetchall()
        for prepare in (False, True):
            async with opened(made(narrow, prepare=prepare)) as storage:
                for number in range(10):
                    lease = await hold(storage, f"{prepare} {number}")
                    assert await storage.save_progress(progress(lease, entries=[entry("0")]))
                    assert b"" == storage.transact(lease, "1", "t", lambda _: b"")
                    assert 1 == len((await storage.get_journal(lease.run_id)).entries)

        assert before == client.execute(SETTINGS).fetchall()
        assert (0, 0, 0, 0) == client.execute(LEFT_OVER).fetchone()


@pytest.mark.parametrize("prepare", [False, True])
async def test_statements_that_are_repeated(pooled: Place, prepare: bool):
    """However often a verb is called, and whoever else calls others, each does what it says: no statement is prepared,
    also where that was not asked for."""
    async with opened(made(pooled, prepare=prepare)) as one, opened(made(pooled, prepare=prepare)) as other:
        lease = await hold(one)

        async def write() -> None:
            for number in range(20):
                assert await one.save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
                assert await one.send_message("r", "go", b"", now=NOW)

        async def look() -> None:
            for number in range(20):
                assert (await create(other, new_run(str(number))))[1]
                assert "r" == (await get(other)).run_id
                assert [] == await other.get_cut_entries("r")

        await together(write, look, *(bound(one.count_runs) for _ in range(20)))

        assert (20, 20) == (len((await other.get_journal("r")).entries), (await get(other)).last_message)


async def test_many_make_the_tables_at_once(untouched: Place, pooler: Pooler, schemas: Schemas):
    """[187] Adapters that open one new schema at the same moment wait for each other, and nobody waits afterwards."""

    async def use(number: int) -> bool:
        async with opened(made(through(pooler, untouched))) as storage:
            return (await create(storage, new_run(str(number))))[1]

    assert [True] * 8 == await together(*(partial(use, number) for number in range(8)))
    with psycopg.connect(schemas.dsn) as connection:
        assert (0,) == connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone()


async def test_transactions_of_bodies(pooled: Place, another: Another):
    """Steps in transactions have theirs side by side, each to the end; what a body does on its connection is committed
    with its outcome."""
    async with opened(another()) as storage:
        assert isinstance(storage, PostgresStorage)
        leases, numbers = [await hold(storage, str(number)) for number in range(6)], count()

        def body(connection: psycopg.Connection[Any]) -> bytes:
            processes = {process_of(connection) for _ in range(10)}
            connection.execute(f"insert into {pooled.schema}.tag values ('by a body', {next(numbers)})")
            return str(len(processes)).encode()

        outcomes = await together(
            *(
                bound(to_thread.run_sync, partial(storage.transact, lease, str(number), "t", body))
                for lease in leases
                for number in range(3)
            )
        )
        with psycopg.connect(pooled.dsn) as connection:
            written = connection.execute(f"select count(*) from {pooled.schema}.tag where tag = 'by a body'").fetchone()
            connection.execute(f"delete from {pooled.schema}.tag")

    assert ([b"1"] * 18, (18,)) == (outcomes, written)


async def test_copying(pooled: Place, untouched: Place, pooler: Pooler, another: Another):
    """Runs are copied through the pooler, out of it and in, and compared."""
    async with opened(another()) as storage:
        await storage.create_runs([new_run(str(number), tags=("t",)) for number in range(50)])
        source, target = storage.server, made(through(pooler, untouched)).server  # type: ignore[attr-defined]
        with reading(source) as tables, writing(target) as others:
            counts = copy(tables, others)

    assert (50, 50) == (counts["reflow_run"], counts["reflow_tag"])
    async with opened(made(through(pooler, untouched))) as storage:
        assert 10 == len(ids(await claim(storage, limit=10)))


# ---- where nobody hears ----------------------------------------------------------------------------------------------


async def echo(word: str) -> str:
    """A body."""
    return word


@workflow
def conversation() -> Flow[str]:
    """Waits to be told something."""
    word = yield from wait_event("word", str)
    return (yield from step(echo, word))


@pytest.mark.parametrize("listen", [False, True])
async def test_runs_are_found_by_looking(pooled: Place, beside: Outside, listen: bool):
    """What one process enqueues and sends, an engine in another takes up, though nobody hears. Who asks to listen all
    the same is warned, with what to write instead, and has no connection that would wait for ever."""
    is_warned = pytest.warns(RuntimeWarning, match="listen=False, prepare=False") if listen else nullcontext()
    async with AsyncExitStack() as stack:
        with is_warned:
            engine = Engine(made(pooled, listen=listen, prepare=listen), [conversation])
            await stack.enter_async_context(engine)
        async with Client(made(pooled)) as client:
            run = await client.enqueue("conversation")
            assert await client.send_event(run.run_id, "word", "hello")
        with fail_after(30):
            result = await (await engine.handle(run.run_id)).result()
        counts = [len(beside.others(doing)) for doing in ("listen %", "select pg_notify%")]

    assert ("hello", [0, 0]) == (result, counts)


# ---- by session ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(place: Place, anyio_backend: str) -> AsyncIterator[tuple[PostgresStorage, PostgresStorage]]:
    """Two adapters behind a pooler that lends a connection for a session; they are told nothing about it."""
    with or_skip(), Pooler(place.dsn, "session") as pooler:
        one, other = (made(through(pooler, place), listen=True, prepare=True) for _ in range(2))
        async with opened(one), opened(other):
            yield one, other


@pytest.fixture
async def heard(pair: tuple[PostgresStorage, PostgresStorage]) -> AsyncIterator[Heard]:
    """Who listens to the second adapter."""
    async with listening(pair[1]) as heard:
        yield heard


async def test_by_session_everything_works(pair: Any, heard: Heard):
    """[200] A pooler that lends a connection for as long as ours lasts needs no options: adapters hear each other, and
    nobody is warned."""
    for number in range(10):
        await heard.by(bound(create, pair[0], new_run(str(number))))


async def test_an_own_notice_is_not_heard_by_way_of_the_server(pair: Any, beside: Outside):
    """Through a pooler too, an adapter knows its own notices: it is woken once by what it does, not twice."""
    one, other = pair
    async with listening(one) as own, listening(other) as others:
        await others.by(bound(create, one, new_run("first")))
        for number in range(10):
            before = own.count
            await others.by(bound(create, one, new_run(str(number))))
            assert before + 1 == own.count


# ---- by statement ----------------------------------------------------------------------------------------------------


async def test_by_statement_is_refused(place: Place):
    """A pooler that lends a connection for a single statement has no transactions: it cannot be opened, and the error
    says what to do, with tables or without."""
    with or_skip(), Pooler(place.dsn, "statement") as pooler:
        for _ in range(2):
            with pytest.raises(StorageAccessError, match=r"no transactions .*; have the pooler pool by transaction"):
                await made(through(pooler, place)).initialize()
            async with opened(made(place)):
                pass
