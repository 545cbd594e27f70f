"""`transaction`: what a body writes and the result of its step are committed together, once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from anyio import create_task_group, fail_after, to_thread
from psycopg.rows import dict_row

from reflow import (
    ConfigError,
    Engine,
    Flow,
    MemoryStorage,
    Retry,
    RunStatus,
    StepFailedError,
    StorageError,
    continue_as_new,
    transaction,
    workflow,
)
from reflow._core.command import Command
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Lease
from reflow.testing import run_workflow
from reflow.testing.conformance.words import NOW, claim, hold
from reflow.testing.crash import Crash, MortalStorage
from tests.support.postgres.outside import outside
from tests.support.postgres.schemas import Place
from tests.support.world import World

pytestmark = pytest.mark.anyio

durable = pytest.mark.parametrize("another", ["sqlite", "postgres"], indirect=True)
on_postgres = pytest.mark.parametrize("another", ["postgres"], indirect=True)
THRICE = Retry(max_attempts=3, initial_delay=0)


class Account:
    """A table of the user's, in the database of the storage."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._on_postgres = isinstance(storage, PostgresStorage)
        self.table = f"{storage.schema}.account" if self._on_postgres else "account"
        self.bodies: list[str] = []
        self.on("create table {} (note text)")

    def on(self, statement: str) -> list[Any]:
        """Carry out a statement on the table, through another connection."""
        connect = (
            psycopg.connect(self._storage.server._dsn) if self._on_postgres else sqlite3.connect(self._storage.path)
        )
        with closing(connect) as connection:
            cursor = connection.execute(statement.format(self.table))
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
            return rows

    @property
    def notes(self) -> list[str]:
        """What is committed, in order."""
        return [note for (note,) in self.on("select note from {} order by note")]

    def add(self, connection: Any, note: str) -> str:
        """A body: adds a note."""
        self.bodies.append(note)
        mark = "%s" if self._on_postgres else "?"
        connection.execute(f"insert into {self.table} values ({mark})", (note,))
        return f"added {note}"


@pytest.fixture
def account(world: World) -> Iterator[Account]:
    """An empty table."""
    account = Account(world.storage)
    yield account
    account.on("drop table {}")


# ---- together --------------------------------------------------------------------------------------------------------


@durable
async def test_committed_together(world: World, account: Account):
    """[201] What the body writes is committed with the result of its step: nobody sees it before, and the entry is
    that of a step."""
    seen: list[list[str]] = []

    def look(connection: Any) -> str:
        answer = account.add(connection, "a")
        seen.append(account.notes)
        return answer

    @workflow
    def flow() -> Flow[str]:
        return (yield from transaction(look))

    info = await world.settle(flow())

    assert ([[]], ["a"], "added a") == (seen, account.notes, info.output)
    assert [("step", "look", "added a", 1)] == [
        (entry.kind, entry.name, entry.value, entry.attempts) for entry in info.entries
    ]


@durable
async def test_an_exception_undoes_it(world: World, account: Account):
    """[201] An exception of the body undoes what it wrote, and is retried as the policy says; without one the step has
    failed, as any other."""

    def stumble(connection: Any, until: int) -> int:
        account.add(connection, f"{until}")
        if len(account.bodies) < until:
            raise LookupError("not yet")
        return len(account.bodies)

    @workflow
    def flow() -> Flow[Any]:
        third = yield from transaction(stumble, 3).options(retry=THRICE)
        try:
            yield transaction(stumble, 9)
        except StepFailedError as error:
            return [third, error.error_type]

    info = await world.settle(flow())

    assert [3, "LookupError"] == info.output
    assert (["3"], [3, 1]) == (account.notes, [entry.attempts for entry in info.entries])


@durable
async def test_a_result_that_is_no_data_undoes_it(world: World, account: Account):
    """[16][201] A result that cannot be stored fails the step, and nothing that the body wrote is there."""

    def odd(connection: Any) -> Any:
        account.add(connection, "a")
        return object()

    @workflow
    def flow() -> Flow[Any]:
        yield transaction(odd)

    info = await world.settle(flow())

    assert (RunStatus.FAILED, []) == (info.status, account.notes)


@durable
async def test_a_crash_repeats_nothing(world: World, account: Account):
    """[201] Wherever the process dies, between the commit of a body and its entry too, each effect is there once in the
    end, and the result is the same."""

    @workflow
    def flow(name: str) -> Flow[list[str]]:
        one = yield from transaction(account.add, f"{name} 1")
        two = yield from transaction(account.add, f"{name} 2")
        return [one, two]

    expected: list[str] = []
    for after in (False, True):
        dies_at = 1
        while True:
            name = f"{after} {dies_at:02}"
            await world.engine(flow).enqueue(flow(name), run_id=name)
            mortal = MortalStorage(world.storage, dies_at, after=after)
            try:
                await world.engine(flow, storage=mortal).drain()
            except* Crash:
                pass
            expected += [f"{name} 1", f"{name} 2"]
            info = await world.continued(flow, after="1h", run_id=name)
            assert [f"added {name} 1", f"added {name} 2"] == info.output
            if not mortal.is_dead:
                break
            dies_at += 1

    assert expected == account.notes
    assert expected == account.bodies


@durable
async def test_under_a_lost_lease_nothing_lands(world: World, account: Account):
    """[117][201] Under a lease that is not held the body is not called, and nothing has changed."""
    storage: Any = world.storage
    lease = await hold(storage)
    for lost in (Lease("r", "another"), Lease("unknown", "first")):
        with pytest.raises(StorageError, match="taken over by another engine") as caught:
            await to_thread.run_sync(storage.transact, lost, "0", "t", lambda db: account.add(db, "lost").encode())
        assert "transact" == caught.value.verb
    assert b"added a" == await to_thread.run_sync(
        storage.transact, lease, "0", "t", lambda db: account.add(db, "a").encode()
    )

    assert (["a"], ["a"]) == (account.bodies, account.notes)


@on_postgres
@pytest.mark.parametrize("second", ["has ended", "has only claimed"])
async def test_two_holders_make_one_effect(world: World, account: Account, second: str):
    """[201] While one engine is in a body, another takes over: the effect of the one that ends first is there, and that
    of the other is undone; it is given the same outcome, or told that its lease is lost."""
    storage: Any = world.storage
    lease = await hold(storage)
    entered, go_on = threading.Event(), threading.Event()
    answers: dict[str, Any] = {}

    def slow(connection: Any) -> bytes:
        account.add(connection, "slow")
        entered.set()
        assert go_on.wait(20)
        return b"slow"

    async def first() -> None:
        try:
            answers["first"] = await to_thread.run_sync(storage.transact, lease, "0", "t", slow)
        except StorageError as error:
            answers["first"] = error.verb

    async with create_task_group() as tasks:
        tasks.start_soon(first)
        await to_thread.run_sync(entered.wait, 20)
        assert ["r"] == [row.run_id for row in (await claim(storage, "second", now=NOW * 2)).runs]
        if second == "has ended":
            answers["second"] = await to_thread.run_sync(
                storage.transact, Lease("r", "second"), "0", "t", lambda db: account.add(db, "quick").encode()
            )
        go_on.set()

    if second == "has ended":
        assert ({"first": b"added quick", "second": b"added quick"}, ["quick"]) == (answers, account.notes)
    else:
        assert ({"first": "transact"}, []) == (answers, account.notes)


# ---- the life of an outcome ------------------------------------------------------------------------------------------


@durable
@pytest.mark.parametrize(("at", "again"), [(None, ["c"]), ("1", ["b", "c"]), ("0", ["a", "b", "c"])])
async def test_resuming_repeats_what_is_cut(world: World, account: Account, at: str | None, again: list[str]):
    """[137][201] After `resume`, transactions that were cut run again, and those that stay do not."""
    broken = [True]

    def fail(connection: Any) -> str:
        answer = account.add(connection, "c")
        if broken:
            raise LookupError("broken")
        return answer

    @workflow
    def flow() -> Flow[Any]:
        for note in "ab":
            yield transaction(account.add, note)
        return (yield from transaction(fail))

    assert RunStatus.FAILED is (await world.settle(flow())).status
    assert ["a", "b"] == account.notes
    broken.clear()
    account.bodies.clear()
    assert await world.resume("r", at=at)
    info = await world.continued(flow)

    assert ("added c", again) == (info.output, account.bodies)
    assert sorted(["a", "b", *again]) == account.notes


@durable
async def test_each_generation_has_its_own(world: World, account: Account):
    """[201] A run that continues as new performs the transactions of its new code, at the same positions too; when it
    is pruned, nothing of them is left."""

    @workflow
    def flow(left: int) -> Flow[int]:
        yield transaction(account.add, f"{left}")
        if left:
            yield continue_as_new(flow(left - 1))
        return left

    info = await world.settle(flow(2))
    kept = account.on(outcomes(world, account))
    world.clock.advance("1h")
    assert 1 == await world.client().prune(older_than="1m")

    assert (RunStatus.COMPLETED, ["0", "1", "2"]) == (info.status, account.notes)
    assert ([(1,)], [(0,)]) == (kept, account.on(outcomes(world, account)))


def outcomes(world: World, account: Account) -> str:
    """How many outcomes are stored."""
    table = account.table.replace("account", "outcome") if "." in account.table else "reflow_outcome"
    return f"select count(*) from {table}"


# ---- what is told ----------------------------------------------------------------------------------------------------


async def failure_of(world: World, command: Command[Any]) -> tuple[str, str]:
    """Type and message of what fails a run of this one command."""

    @workflow
    def flow() -> Flow[Any]:
        try:
            return (yield from command)
        except StepFailedError as error:
            return [error.error_type, error.failure.message]

    kind, message = (await world.settle(flow())).output
    return kind, message


@durable
@pytest.mark.parametrize("word", ["commit", "rollback"])
async def test_a_body_that_ends_the_transaction_is_told(world: World, account: Account, word: str):
    """[201] A body that commits, or rolls back, is told that this is not its business."""

    def meddle(connection: Any) -> None:
        account.add(connection, "a")
        getattr(connection, word)()

    kind, message = await failure_of(world, transaction(meddle))

    assert ("ConfigError", True) == (kind, "'meddle' has ended the transaction" in message)


@on_postgres
async def test_a_body_that_goes_on_after_an_error_is_told(world: World, account: Account):
    """A body that swallows an error of the database cannot have its result stored, and is told so; with a savepoint of
    its own it may go on."""

    def swallow(connection: Any) -> None:
        try:
            connection.execute("select 1 / 0")
        except psycopg.Error:
            return

    def save(connection: Any) -> str:
        try:
            with connection.transaction():
                connection.execute("select 1 / 0")
        except psycopg.Error:
            return account.add(connection, "b")
        return ""

    @workflow
    def flow() -> Flow[Any]:
        try:
            yield transaction(swallow)
        except StepFailedError as error:
            return [error.error_type, (yield from transaction(save))]

    assert ["ConfigError", "added b"] == (await world.settle(flow())).output
    assert ["b"] == account.notes


async def test_an_async_body_is_refused(anyio_backend: str):
    """An `async def` is no body of a transaction, and the error says what to write."""

    async def body(connection: Any) -> None: ...

    with pytest.raises(ConfigError, match="'body' is async; the body of a transaction is a plain `def`"):
        transaction(body)


async def test_a_storage_without_transactions_says_so(anyio_backend: str):
    """On `MemoryStorage` the step fails, and says which storages have transactions, and what tests do instead."""
    storage = MemoryStorage()
    await storage.initialize()
    kind, message = await failure_of(World(storage), transaction(lambda_like))

    assert "ConfigError" == kind
    assert "needs a storage with transactions: PostgresStorage or SQLiteStorage" in message
    assert "give the step a stub" in message


def lambda_like(connection: Any, note: str = "") -> str:
    """A body."""
    return note


@pytest.mark.parametrize("key", [lambda_like, "lambda_like"])
def test_a_stub_stands_in(key: Any):
    """[193] In `run_workflow`, which has no database, a stub is called with the arguments and without a connection."""

    @workflow
    def flow() -> Flow[str]:
        return (yield from transaction(lambda_like, "a"))

    result = run_workflow(flow(), stubs={key: lambda note: f"stub {note}"})

    assert "stub a" == result.output


# ---- the connection --------------------------------------------------------------------------------------------------


@on_postgres
async def test_the_connection_is_psycopgs_own(world: World, account: Account):
    """Values travel through the body's connection as psycopg does it, whatever Reflow does with its own; and what a
    body sets on it disturbs neither Reflow nor the next body."""

    def look(connection: psycopg.Connection[Any]) -> list[str]:
        values = (True, 1, 2**40, b"bytes", 1.5)
        types = connection.execute(f"select {', '.join(['pg_typeof(%s)::text'] * len(values))}", values).fetchone()
        with pytest.raises(psycopg.ProgrammingError, match="cannot adapt type 'dict'"):
            connection.execute("select %s", ({},))
        with pytest.raises(psycopg.DataError, match="NUL"):
            connection.execute("select %s", ("a\0b",))
        marked = connection.execute("select 'a' || chr(1) || chr(2)").fetchone()
        assert ("a\1\2",) == marked
        connection.row_factory = dict_row
        return [*types]

    @workflow
    def flow() -> Flow[Any]:
        one = yield from transaction(look)
        two = yield from transaction(look)
        return [one, two]

    info = await world.settle(flow())

    assert None is info.error
    expected = ["boolean", "smallint", "bigint", "bytea", "double precision"]
    assert [expected, expected] == info.output


@durable
async def test_many_transactions_at_once(world: World, account: Account):
    """Transactions of many runs at once are all committed, each once."""

    @workflow
    def flow(name: str) -> Flow[str]:
        return (yield from transaction(account.add, name))

    engine = world.engine(flow)
    names = [f"{number:02}" for number in range(30)]
    runs = [await engine.enqueue(flow(name)) for name in names]
    await engine.drain()

    assert [f"added {name}" for name in names] == [(await run.info()).output for run in runs]
    assert names == account.notes


@on_postgres
async def test_trouble_with_the_storage_fails_no_transaction(world: World, account: Account):
    """[120][201] Where the connection is lost in the middle of a body the body is called again, on another one, and no
    attempt is counted; so it is where none is to be had."""
    storage: Any = world.storage
    place = Place(storage.server._dsn, storage.schema)

    def lose(connection: Any) -> str:
        answer = account.add(connection, "a")
        if len(account.bodies) == 1:
            with outside(place) as beside:
                beside("select pg_terminate_backend(%s, 10000)", (connection.info.backend_pid,))
        connection.execute("select 1")
        return answer

    @workflow
    def flow() -> Flow[str]:
        return (yield from transaction(lose))

    async with Engine(storage, [flow]) as engine:
        with fail_after(20):
            run = await engine.enqueue(flow())
            assert "added a" == await run.result()
        [entry] = (await run.info()).entries

    assert (["a", "a"], ["a"], 1) == (account.bodies, account.notes, entry.attempts)
