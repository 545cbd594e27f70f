"""`PostgresStorage`: what it is made with, which databases it opens, and what it says of the others."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from reflow import ConfigError, StorageAccessError, StorageError, StorageSchemaError
from reflow.storage._postgres import connection as connection_module
from reflow.storage._postgres.connection import ServerDatabase
from reflow.storage._postgres.schema import _in_our_words
from reflow.storage._sql.session import Database
from reflow.storage._sql.tables import MIGRATIONS, VERSION
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Lease
from reflow.testing.conformance.words import claim, create, entry, hold, new_run, opened, progress, together
from tests.support.postgres import Server
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

COLUMNS = """select table_name, column_name, data_type, collation_name, is_nullable, is_identity
    from information_schema.columns where table_schema = current_schema()"""
INDEXES = (
    "select tablename, replace(indexdef, current_schema(), '') from pg_indexes where schemaname = current_schema()"
)
CONSTRAINTS = """select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace = current_schema()::regnamespace"""
OPTIONS = "select relname, reloptions from pg_class where relnamespace = current_schema()::regnamespace"
INSERT = """insert into reflow_run (run_id, workflow, version, rules, status, priority, due_at, executions,
    idle_claims, generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, input)
    values ('kept', 'w', 1, 1, 'pending', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\x'::bytea)"""


def adapter(place: Place, **options: Any) -> PostgresStorage:
    """An adapter that is not initialized yet."""
    return PostgresStorage(place.dsn, schema=place.schema, **options)


async def initialized(place: Place) -> None:
    """Bring a schema up to the present version."""
    async with opened(adapter(place)):
        pass


def definitions(place: Place) -> list[list[tuple[Any, ...]]]:
    """Everything that is defined in a schema."""
    with outside(place) as beside:
        return [sorted(beside(query), key=str) for query in (COLUMNS, INDEXES, CONSTRAINTS, OPTIONS)]


def make_older(place: Place, number: int) -> None:
    """A schema as Reflow left it at version `number`, with one run in it; none for 0."""
    if not number:
        return
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(SQL("create schema {}").format(Identifier(place.schema)))
        db = ServerDatabase(connection, place.schema)
        for statements in MIGRATIONS[:number]:
            for statement in statements:
                db.execute(_in_our_words(statement))
        db.execute("create table reflow_schema (version bigint not null)")
        db.execute("insert into reflow_schema values (?)", (number,))
        db.execute(
            "alter table reflow_run set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, "
            "autovacuum_vacuum_cost_delay = 0)"
        )
        db.execute(INSERT)


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new database; `parametrize` it with an encoding."""
    name = "other"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(
            f"create database {name} encoding '{getattr(request, 'param', 'UTF8')}' template template0 locale 'C'"
        )
        yield name
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def role(server: Server, database: str) -> Iterator[str]:
    """The name of a role that may create nothing in the new database."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create role guest login")
    yield "guest"
    with psycopg.connect(make_conninfo(server.dsn, dbname=database), autocommit=True) as connection:
        connection.execute("drop owned by guest; drop role guest")


async def refused(dsn: str, expected: str) -> None:
    """Initializing there raises StorageAccessError with this text, which names the place; and nothing of the password,
    whether it is the first attempt or the second."""
    storage = PostgresStorage(make_conninfo(dsn, password="pa55word"), schema="ours")
    for _ in range(2):
        with pytest.raises(StorageAccessError, match=expected) as caught:
            await storage.initialize()
        assert ("open", True) == (caught.value.verb, storage.server.name in str(caught.value))
        assert "pa55word" not in f"{caught.value!r} {caught.value.to_dict()} {storage!r}"


# ---- A2 --------------------------------------------------------------------------------------------------------------


async def test_a2_many_initialize_a_new_schema_at_once(untouched: Place):
    """[187] Several adapters that open one new schema at the same moment all succeed, and can all write."""

    async def use(number: int) -> bool:
        async with opened(adapter(untouched)) as storage:
            return (await create(storage, new_run(str(number))))[1]

    assert [True] * 8 == await together(*(partial(use, number) for number in range(8)))
    with outside(untouched) as beside:
        assert (8, [(VERSION,)]) == (beside.one("select count(*) from run"), beside("select version from schema"))


@pytest.mark.parametrize("number", range(VERSION + 1))
async def test_a2_migrated_equals_fresh(untouched: Place, place: Place, number: int):
    """[187] A schema of any older version, once initialized, has the same tables as a new one, and loses no run."""
    make_older(untouched, number)
    await initialized(place)

    async with opened(adapter(untouched)) as storage:
        claimed = await claim(storage, now=0)

    assert definitions(place) == definitions(untouched)
    assert ["kept"][: min(number, 1)] == [row.run_id for row in claimed.runs]
    with outside(untouched) as beside:
        assert [(VERSION,)] == beside("select version from schema")


@pytest.mark.parametrize("newer", [VERSION + 1, VERSION + 100])
async def test_a2_newer_tables_are_left_alone(untouched: Place, newer: int):
    """A schema that a newer Reflow wrote raises an error that names both versions, and stays as it is."""
    await initialized(untouched)
    with outside(untouched) as beside:
        beside("update schema set version = %s", (newer,))
    before = definitions(untouched)

    with pytest.raises(StorageSchemaError, match=rf"schema {newer}; .*up to {VERSION}\)") as caught:
        await initialized(untouched)

    assert "initialize" == caught.value.verb
    assert before == definitions(untouched)
    with outside(untouched) as beside:
        assert [(newer,)] == beside("select version from schema")


async def test_a2_a_failed_migration_changes_nothing(untouched: Place):
    """Where a statement of a migration fails, nothing of it remains, and the next attempt finds what was there."""
    with psycopg.connect(untouched.dsn, autocommit=True) as connection:
        connection.execute(f"create schema {untouched.schema}; create table {untouched.schema}.timer (not_ours int)")
    before = definitions(untouched)

    for _ in range(2):
        with pytest.raises(StorageError, match='relation "timer" already exists'):
            await initialized(untouched)

    assert before == definitions(untouched)


# ---- A3 --------------------------------------------------------------------------------------------------------------


async def test_a3_nobody_listens_there(server: Server):
    """A wrong port, or a socket that is not there, is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    await refused(f"host=127.0.0.1 port={port} user=postgres", f"postgresql://127.0.0.1:{port}/ .*refused")
    await refused("host=/no/such/folder dbname=d", r"postgresql:///no/such/folder/d \(schema ours\)")


async def test_a3_an_unknown_host_is_named():
    """A host that no name service knows is named."""
    await refused("host=no-such-host.invalid dbname=d", "postgresql://no-such-host.invalid/d")


async def test_a3_an_unknown_database_or_role_is_named(server: Server):
    """A database or a role that the server does not know is named."""
    await refused(make_conninfo(server.dsn, dbname="nowhere"), 'database "nowhere" does not exist')
    await refused(make_conninfo(server.dsn, user="nobody_known"), 'role "nobody_known" does not exist')


async def test_a3_a_wrong_password_is_not_told(server: Server):
    """A password that the server does not take is refused, and stands in no message."""
    rules = server.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create role keyed login password 'another'")
        rules.write_text(f"host all keyed all scram-sha-256\n{before}")
        try:
            connection.execute("select pg_reload_conf()")
            await refused(make_conninfo(server.dsn, user="keyed"), "password authentication failed")
        finally:
            rules.write_text(before)
            connection.execute("select pg_reload_conf()")
            connection.execute("drop role keyed")


async def test_a3_no_right_to_create_the_schema(server: Server, database: str, role: str):
    """A role that may not create a schema is told so; nothing is there afterwards."""
    await refused(make_conninfo(server.dsn, dbname=database, user=role), "permission denied for database other")

    with psycopg.connect(make_conninfo(server.dsn, dbname=database)) as connection:
        assert [] == connection.execute("select 1 from pg_namespace where nspname = 'ours'").fetchall()


async def test_a_schema_that_is_up_to_date_needs_no_rights_to_create(server: Server, database: str, role: str):
    """Where the tables are there, a role that may only use them can open and use them."""
    place = Place(make_conninfo(server.dsn, dbname=database), "ours")
    await initialized(place)
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        connection.execute(f"grant usage on schema ours to {role}; grant all on all tables in schema ours to {role}")

    async with opened(PostgresStorage(make_conninfo(place.dsn, user=role), schema="ours")) as storage:
        lease = await hold(storage)
        assert await storage.save_progress(progress(lease, entries=[entry("0")]))


@pytest.mark.parametrize("database", ["LATIN1", "SQL_ASCII"], indirect=True)
async def test_a3_another_encoding_is_refused(server: Server, database: str, request: pytest.FixtureRequest):
    """A database whose encoding is not UTF8 is refused, before anything is created in it."""
    encoding = request.node.callspec.params["database"]

    await refused(make_conninfo(server.dsn, dbname=database), f"has the encoding {encoding}; create one with UTF8")

    with psycopg.connect(make_conninfo(server.dsn, dbname=database)) as connection:
        assert [] == connection.execute("select 1 from pg_namespace where nspname = 'ours'").fetchall()


async def test_a_failed_initialize_can_be_repeated(server: Server):
    """An adapter whose database could not be opened opens it once it is there."""
    storage = PostgresStorage(make_conninfo(server.dsn, dbname="later"))
    with pytest.raises(StorageAccessError):
        await storage.initialize()

    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("create database later encoding 'UTF8' template template0 locale 'C'")
        async with opened(storage):
            assert (await create(storage, new_run()))[1]
        connection.execute("drop database later with (force)")


# ---- what it is made with --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dsn", ["postgresql://u:pa55word@h:1?x", "user=u password=pa55word d", "u:pa55word@h", None, 5]
)
def test_a_dsn_is_one(dsn: Any):
    """What is no connection string is a ConfigError that says what to write, and keeps the password to itself."""
    with pytest.raises(ConfigError, match="write a text like 'postgresql://user@host/database' or") as caught:
        PostgresStorage(dsn)

    assert "pa55word" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("durability", ["FULL", "normal", "off", None, 2])
def test_durability_is_one_of_two_words(durability: Any):
    """Any other durability is a ConfigError that quotes it and names both words."""
    with pytest.raises(ConfigError, match=f"durability is {durability!r}; write 'full' or 'process'"):
        PostgresStorage("host=h", durability=durability)


@pytest.mark.parametrize("schema", ["", "a\0b", "x" * 57, "é" * 29])
def test_a_schema_has_a_name_that_postgres_takes(schema: str):
    """A schema without a name, or with one that Postgres would cut, is a ConfigError that quotes it."""
    with pytest.raises(ConfigError, match=re.escape(f"schema is {schema!r}; Postgres takes names of up to 56 bytes")):
        PostgresStorage("host=h", schema=schema)


def test_it_says_what_it_was_made_with():
    """Its repr names the place, the schema and the durability, and not the password."""
    storage = PostgresStorage("postgresql://u:pa55word@h:5433/d", schema="s", durability="process")

    assert "PostgresStorage('postgresql://h:5433/d (schema s)', durability='process')" == repr(storage)


@pytest.mark.parametrize("schema", ["Some Schema", 'a"b', "select", "é" * 28, "x" * 56, "a%b?c"])
async def test_a_schema_may_have_any_name(place: Place, schema: str):
    """Names that need quotes, or look like marks of a statement, are names; two schemas share nothing."""
    await initialized(place)
    with psycopg.connect(place.dsn, autocommit=True) as connection:
        try:
            async with opened(PostgresStorage(place.dsn, schema=schema)) as storage:
                lease = await hold(storage)
                assert await storage.save_progress(progress(lease, entries=[entry("0")]))
        finally:
            connection.execute(SQL("drop schema if exists {} cascade").format(Identifier(schema)))

    async with opened(adapter(place)) as storage:
        assert None is await storage.get_run("r")


# ---- settings --------------------------------------------------------------------------------------------------------


def setting(name: str) -> Any:
    """What a job sees of a setting of its connection."""
    return lambda db: db.execute("select current_setting(?::text)", (name,)).fetchone()[0]


@pytest.mark.parametrize(("durability", "expected"), [("full", "local"), ("process", "off")])
async def test_durability_is_for_the_transactions_that_write(place: Place, durability: Any, expected: str):
    """`process` turns `synchronous_commit` off inside transactions that write, and nowhere else; `full` leaves it as
    the server, or the dsn, has it."""
    dsn = make_conninfo(place.dsn, options="-c synchronous_commit=local")
    async with opened(PostgresStorage(dsn, schema=place.schema, durability=durability)) as storage:
        assert isinstance(storage, PostgresStorage)
        inside = await storage._write("look", setting("synchronous_commit"))
        reading = await storage._read("look", setting("synchronous_commit"))
        lease = await hold(storage)
        assert await storage.save_progress(progress(lease, entries=[entry("0")]))
        between = setting("synchronous_commit")(writer_of(storage))
        seen: list[str] = []
        storage.transact(lease, "1", "t", lambda connection: seen.append(shown(connection)) or b"")

    assert (expected, "local", "local", [expected]) == (inside, reading, between, seen)


def shown(connection: Any) -> str:
    """What a body's connection says of the setting."""
    return str(connection.execute("show synchronous_commit").fetchone()[0])


def writer_of(storage: PostgresStorage) -> Database:
    """The connection that writes; only while nothing is under way."""
    assert storage._lanes is not None
    session: Any = storage._lanes.writing._session
    database: Database = session._database
    return database


async def test_every_step_of_process_durability_is_in_a_transaction(place: Place, beside: Outside):
    """With `process` an append, which could be a statement by itself, is not written with the server's durability."""
    async with opened(adapter(place, durability="process")) as storage:
        lease = await hold(storage)
        beside("""create function note() returns trigger language plpgsql as $$ begin
            new.name = current_setting('synchronous_commit'); return new; end $$""")
        beside("create trigger note before insert on entry for each row execute function note()")
        try:
            assert await storage.save_progress(progress(lease, entries=[entry("0")]))
            [stored] = (await storage.get_journal("r")).entries
        finally:
            beside("drop trigger note on entry; drop function note")

    assert "off" == stored.name


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_the_isolation_is_ours(place: Place, level: str):
    """Transactions that write see what was committed before each statement, whatever the server's default is."""
    dsn = make_conninfo(place.dsn, options=f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}")
    async with opened(PostgresStorage(dsn, schema=place.schema)) as storage:
        assert isinstance(storage, PostgresStorage)
        levels = [await use("look", setting("transaction_isolation")) for use in (storage._write, storage._read)]

    assert ["read committed", "repeatable read"] == levels


@pytest.mark.parametrize("prepare", [True, False])
async def test_without_preparing_nothing_is_prepared(place: Place, prepare: bool):
    """With `prepare=False` no statement is prepared, on any connection; by default those that repeat are."""
    async with opened(adapter(place, prepare=prepare)) as storage:
        assert isinstance(storage, PostgresStorage)
        for number in range(8):
            lease = await hold(storage, str(number))
            assert await storage.save_progress(progress(lease, entries=[entry("0")]))
            await storage.get_journal(str(number))
            storage.transact(lease, "1", "t", lambda _: b"")
        assert storage._lanes is not None
        sessions: list[Any] = [storage._lanes.writing._session, storage._lanes.reading._session]
        sessions += storage._lanes.transactions._idle
        counts = [
            session.connection.execute("select count(*) from pg_prepared_statements", prepare=False).fetchone()[0]
            for session in sessions
        ]

    assert ([prepare] * 3, 3) == ([count > 0 for count in counts], len(counts))


async def test_each_transaction_may_have_another_connection(place: Place, beside: Outside):
    """As behind a pooler: with `listen=False` and `prepare=False` nothing is kept in a connection from one transaction
    to the next, so another one may come after each."""
    async with opened(adapter(place, listen=False, prepare=False)) as storage:
        lease = await hold(storage)
        for number in range(3):
            assert await storage.save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
            for pid in beside.others():
                beside("select pg_terminate_backend(%s, 10000)", (pid,))
            journal = await storage.get_journal("r")
            assert number + 1 == len(journal.entries)


async def test_a_driver_error_carries_verb_text_and_cause(untouched: Place):
    """[175] What the driver says surfaces as StorageError: which verb, which place, the driver's words, and the
    cause."""
    async with opened(adapter(untouched)) as storage:
        assert isinstance(storage, PostgresStorage)
        with outside(untouched) as beside:
            beside("drop table entry")
        with pytest.raises(StorageError) as caught:
            await storage.get_journal("r")

    assert "get_journal" == caught.value.verb
    assert caught.value.reason.startswith(f'{storage.server.name}: relation "{untouched.schema}.entry" does not exist')
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedTable)


async def test_a_closed_adapter_says_so(place: Place, beside: Outside):
    """Every verb of an adapter that is not open is a StorageError that says what to do; after the last `close` no
    connection is left."""
    storage = adapter(place)
    for _ in range(2):
        with pytest.raises(StorageError, match="is not open; enter the engine, or await"):
            await storage.get_run("r")
        with pytest.raises(StorageError, match="is not open"):
            storage.transact(Lease("r", "l"), "0", "t", lambda _: b"")
        await storage.initialize()
        await storage.initialize()
        await storage.close()
        assert None is await storage.get_run("r")
        await storage.close()

    await beside.soon("select count(*) = 0 from pg_stat_activity where application_name = %s", (place.schema,))


async def test_what_it_needs_is_said_without_the_driver(monkeypatch: pytest.MonkeyPatch, place: Place):
    """A server that is too old is refused by its number, and closed again."""
    monkeypatch.setattr(connection_module, "_OLDEST", 990_000)

    with pytest.raises(StorageAccessError, match=r"runs Postgres \d+; 15 is needed"):
        await initialized(place)
