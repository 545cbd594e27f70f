"""`SQLiteStorage`: which files it opens, what it says of the others, and how it lives with other connections."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import create_task_group, from_thread
from anyio.lowlevel import current_token

from reflow import (
    ConfigError,
    RunStatus,
    SQLiteStorage,
    StorageAccessError,
    StorageError,
    StorageFormatError,
)
from reflow.storage._sql.lane import Lane
from reflow.storage._sqlite.connection import translated
from reflow.storage._sqlite.session import FileSession
from reflow.storage.records import Ending, Lease
from reflow.testing.conformance import Case, cases
from reflow.testing.conformance.words import (
    LEASE_UNTIL,
    NOW,
    claim,
    create,
    entry,
    get,
    hold,
    new_run,
    opened,
    progress,
    schedule,
    state,
    timer,
    together,
)
from tests.support.owners import folder_for_all, own, unprivileged

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "test.db"


@pytest.fixture
async def storage(file: Path, anyio_backend: str) -> AsyncIterator[SQLiteStorage]:
    """An open adapter with the default durability."""
    storage = SQLiteStorage(file)
    async with opened(storage):
        yield storage


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection, which waits for no lock."""
    db = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
    try:
        yield db
    finally:
        db.close()


def writer_of(storage: SQLiteStorage) -> sqlite3.Connection:
    """The connection that the adapter writes with."""
    assert storage._lanes is not None
    return connection_of(storage._lanes.writing)


def reader_of(storage: SQLiteStorage) -> sqlite3.Connection:
    """The connection that the adapter reads with."""
    assert storage._lanes is not None
    return connection_of(storage._lanes.reading)


def connection_of(lane: Lane) -> sqlite3.Connection:
    """The connection that a lane uses."""
    assert isinstance(lane._session, FileSession)
    return lane._session._db


async def initialized(path: Path) -> None:
    """Make a file of ours."""
    async with opened(SQLiteStorage(path)):
        pass


# ---- files that cannot be opened ------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may use."""
    with folder_for_all() as folder:
        yield folder


async def refused(path: Path) -> StorageError:
    """The error of opening a file."""
    with pytest.raises(StorageError) as caught:
        await SQLiteStorage(path).initialize()
    return caught.value


async def test_a3_a_missing_directory_is_named(tmp_path: Path):
    """A file in a directory that does not exist is StorageAccessError, which says so; nothing is created."""
    error = await refused(tmp_path / "missing" / "test.db")

    assert (StorageAccessError, "open") == (type(error), error.verb)
    assert f"the directory {tmp_path / 'missing'} does not exist; create it first" == error.reason
    assert [] == list(tmp_path.iterdir())


async def test_a3_a_directory_is_no_file(tmp_path: Path):
    """A path that is a directory is StorageAccessError, which says so."""
    error = await refused(tmp_path)

    assert (StorageAccessError, f"{tmp_path} is a directory; name a file in it") == (type(error), error.reason)


async def test_a3_a_path_through_a_file_is_refused(file: Path):
    """A path that leads through a file is StorageAccessError."""
    file.touch()

    assert StorageAccessError is type(await refused(file / "test.db"))


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"], ids=["too long", "with a zero"])
async def test_a3_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str):
    """A file name that the system refuses is a StorageError like the others."""
    error = await refused(tmp_path / name)

    assert ("open", []) == (error.verb, list(tmp_path.iterdir()))


async def test_a3_a_directory_out_of_reach_is_refused(open_folder: Path):
    """A file in a directory that may not be entered is StorageAccessError."""
    locked = open_folder / "locked"
    (locked / "inside").mkdir(parents=True)
    own(locked)
    locked.chmod(0)

    with unprivileged():
        errors = [await refused(locked / "test.db"), await refused(locked / "inside" / "test.db")]

    locked.chmod(0o700)
    assert [StorageAccessError] * 2 == [type(error) for error in errors]


async def test_a3_a_read_only_file_is_refused(open_folder: Path):
    """A file of ours that may be read and not written shows when it is opened, and stays as it is."""
    file = open_folder / "test.db"
    await initialized(file)
    own(file)
    file.chmod(0o444)
    before = file.read_bytes()

    with unprivileged():
        error = await refused(file)

    assert StorageAccessError is type(error)
    assert str(file) in error.reason
    assert "readonly database" in error.reason
    assert before == file.read_bytes()


async def test_a3_a_read_only_directory_is_refused(open_folder: Path):
    """In a directory that may not be written no file can be made, nor one of ours used: WAL needs files beside it."""
    file = open_folder / "test.db"
    await initialized(file)
    own(file)
    before = file.read_bytes()
    open_folder.chmod(0o555)

    with unprivileged():
        errors = [await refused(file), await refused(open_folder / "new.db")]

    assert [StorageAccessError] * 2 == [type(error) for error in errors]
    assert (before, [file]) == (file.read_bytes(), list(open_folder.iterdir()))


@pytest.mark.parametrize(
    "content", [b"hello", b"# notes\n" * 2_000, bytes(range(256)) * 64], ids=["few", "text", "any"]
)
async def test_a3_what_is_no_database_is_left_alone(file: Path, content: bytes):
    """A file that is no database is StorageFormatError, and stays as it is byte for byte, with nothing beside it."""
    file.write_bytes(content)

    error = await refused(file)

    assert (StorageFormatError, "open") == (type(error), error.verb)
    assert "file is not a database. The file was left as it is" in error.reason
    assert (content, [file]) == (file.read_bytes(), list(file.parent.iterdir()))


async def test_a3_a_truncated_database_is_left_alone(file: Path):
    """A database that has lost its end is StorageFormatError, and stays as it is."""
    await initialized(file)
    content = file.read_bytes()[:-4096]
    file.write_bytes(content)

    error = await refused(file)

    assert StorageFormatError is type(error)
    assert "malformed" in error.reason
    assert content == file.read_bytes()


async def test_a_damaged_page_is_told_by_the_verb_that_meets_it(file: Path):
    """Damage within a file is StorageFormatError of the verb that meets it; other verbs go on."""
    async with opened(SQLiteStorage(file)) as storage:
        await hold(storage)
    with connected(file) as db:
        [(root,)] = db.execute("select rootpage from sqlite_master where name = 'reflow_timer'").fetchall()
    with file.open("r+b") as raw:
        raw.seek((root - 1) * 4096)
        raw.write(b"\xff" * 4096)

    async with opened(SQLiteStorage(file)) as storage:
        for verb in ("get_journal", "save_progress"):
            with pytest.raises(StorageFormatError) as caught:
                await meet_timers(storage, verb)
            assert (verb, sqlite3.DatabaseError) == (caught.value.verb, type(caught.value.__cause__))

        assert RunStatus.RUNNING is (await get(storage)).status


async def meet_timers(storage: SQLiteStorage, verb: str) -> None:
    """Call a verb that needs the table of timers."""
    if verb == "get_journal":
        await storage.get_journal("r")
    else:
        await storage.save_progress(progress(Lease("r", "first"), timers=[timer("0")]))


async def test_a_failed_initialize_can_be_repeated(file: Path):
    """An adapter whose file could not be opened opens it once the reason is gone."""
    storage = SQLiteStorage(file / "later" / "test.db")
    with pytest.raises(StorageAccessError):
        await storage.initialize()
    storage.path.parent.mkdir(parents=True)

    async with opened(storage):
        assert (await create(storage, new_run()))[1]
    with pytest.raises(StorageError, match="is not open"):
        await storage.get_run("r")


# ---- what it is made with -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [":memory:", Path(":memory:"), "", None, 5, b"test.db"])
def test_a_path_must_name_a_file(path: Any):
    """A path that names no file, or is no path, is a ConfigError that quotes it and says what to write."""
    with pytest.raises(ConfigError, match=re.escape(f"path is {path!r}; name a file, or use MemoryStorage()")):
        SQLiteStorage(path)


@pytest.mark.parametrize("durability", ["FULL", "normal", "off", None, 2])
def test_durability_is_one_of_two_words(durability: Any):
    """Any other durability is a ConfigError that quotes it and names both words."""
    with pytest.raises(ConfigError, match=f"durability is {durability!r}; write 'full' or 'process'"):
        SQLiteStorage("test.db", durability=durability)


def test_it_says_what_it_was_made_with():
    """Its repr is the line that makes it."""
    storage = SQLiteStorage(Path("some") / "test.db", durability="process")

    assert "SQLiteStorage('some/test.db', durability='process')" == repr(storage)


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("process", 1)])
async def test_the_pragmas_are_in_force(file: Path, durability: Any, synchronous: int):
    """Full durability syncs every commit (FULL), process durability leaves that to checkpoints (NORMAL); both use
    WAL, and the reader cannot write."""
    storage = SQLiteStorage(file, durability=durability)
    async with opened(storage):
        pragmas = [
            writer_of(storage).execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
        [reader] = reader_of(storage).execute("pragma query_only").fetchone()

    assert (["wal", synchronous], 1) == (pragmas, reader)


@pytest.mark.parametrize("case", [case for case in cases() if case.clause[0] in "CDGX"], ids=str)
async def test_full_durability_keeps_the_contract(case: Case, file: Path):
    """The clauses that write hold with the default durability too."""
    await case(lambda: SQLiteStorage(file))


# ---- closing --------------------------------------------------------------------------------------------------------


async def test_a_closed_adapter_says_so(file: Path):
    """Every verb of an adapter that is not open is a StorageError that names the verb and says what to do."""
    storage = SQLiteStorage(file)
    lease = Lease("r", "first")
    calls = {
        "create_runs": lambda: create(storage, new_run()),
        "claim_runs": lambda: claim(storage),
        "heartbeat": lambda: storage.heartbeat([lease], lease_until=1),
        "save_progress": lambda: storage.save_progress(progress(lease)),
        "get_run": lambda: storage.get_run("r"),
        "get_journal": lambda: storage.get_journal("r"),
    }
    for is_closed in (False, True):
        if is_closed:
            await storage.initialize()
            await storage.close()
        for verb, call in calls.items():
            with pytest.raises(StorageError) as caught:
                await call()
            assert (verb, f"{file} is not open; enter the engine or the client, or await storage.initialize()") == (
                caught.value.verb,
                caught.value.reason,
            )


async def test_the_last_close_lets_go_of_the_file(file: Path):
    """The files that WAL keeps beside the database go with the last `close`, and not before."""
    beside = [file.with_name(f"test.db-{name}") for name in ("shm", "wal")]
    storage = SQLiteStorage(file)
    await storage.initialize()
    await storage.initialize()
    await create(storage, new_run())

    await storage.close()
    after_first = sorted(file.parent.iterdir())
    await storage.close()

    assert ([file, *beside], [file]) == (after_first, list(file.parent.iterdir()))


async def test_opened_and_closed_at_once(file: Path):
    """An adapter may be opened and closed by many at once; whoever holds it open can use it."""
    storage = SQLiteStorage(file)

    async def use(number: int) -> bool:
        async with opened(storage):
            return (await create(storage, new_run(str(number))))[1]

    answers = await together(*(lambda number=number: use(number) for number in range(20)))

    assert ([True] * 20, [file]) == (answers, list(file.parent.iterdir()))


async def test_closing_waits_for_what_is_under_way(file: Path):
    """Verbs that were called before `close` are carried out, or raise StorageError; none is lost in between."""
    storage = SQLiteStorage(file)
    await storage.initialize()
    created: list[str] = []

    async def try_to_create(run_id: str) -> None:
        try:
            await create(storage, new_run(run_id))
            created.append(run_id)
        except StorageError:
            assert await_closed == [True]

    await_closed: list[bool] = []
    async with create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(try_to_create, str(number))
        await anyio.lowlevel.checkpoint()
        await_closed.append(True)
        await storage.close()

    async with opened(storage):
        assert sorted(created) == sorted(row.run_id for row in (await claim(storage)).runs)


def test_an_error_of_close_is_a_storage_error(file: Path):
    """[175] What the driver says when it closes, or at any other time, becomes a StorageError with verb, text and
    cause."""
    driver_error = sqlite3.OperationalError("disk I/O error")

    with pytest.raises(StorageError) as caught, translated("close", file):
        raise driver_error

    assert ("close", f"{file}: disk I/O error", driver_error) == (
        caught.value.verb,
        caught.value.reason,
        caught.value.__cause__,
    )
    assert f"storage could not close: {file}: disk I/O error" == str(caught.value)


# ---- beside others --------------------------------------------------------------------------------------------------


async def test_a_file_with_other_tables_is_shared(file: Path):
    """A database with tables of its own, in another journal mode, is used beside them; they stay as they are."""
    with connected(file) as db:
        db.execute("create table customer (name text)")
        db.execute("insert into customer values ('a')")
        await initialized(file)

        async with opened(SQLiteStorage(file)) as storage:
            await create(storage, new_run())
            db.execute("insert into customer values ('b')")

        assert [("a",), ("b",)] == db.execute("select name from customer").fetchall()
        assert [("r",)] == db.execute("select run_id from reflow_run").fetchall()


async def test_a_locked_file_is_waited_for(storage: SQLiteStorage, file: Path):
    """While another connection holds the lock, verbs wait; none fails, and all are carried out once it is gone."""
    tried, count, loop = anyio.Event(), 0, current_token()

    def trying(said: str) -> None:
        nonlocal count
        count += said == "begin immediate"
        if count == 3:
            from_thread.run_sync(tried.set, token=loop)

    writer_of(storage).set_trace_callback(trying)
    with connected(file) as other:
        other.execute("begin exclusive")
        async with create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(create, storage, new_run(str(number)))
            await tried.wait()
            before = await storage.get_run("0")
            other.execute("commit")

    assert None is before
    assert 5 == len((await claim(storage)).runs)


async def test_a_locked_file_is_waited_for_when_opening(file: Path):
    """A file that is locked while it is opened is opened once the lock is gone."""
    await initialized(file)
    with connected(file) as other:
        other.execute("begin exclusive")
        storage = SQLiteStorage(file)
        async with create_task_group() as tasks:
            tasks.start_soon(storage.initialize)
            await anyio.wait_all_tasks_blocked()
            is_open = storage._lanes is not None
            other.execute("commit")
        await storage.close()

    assert not is_open


@pytest.mark.parametrize("verb", ["claim_runs", "save_progress", "fire_schedule"])
async def test_a_verb_that_writes_has_the_file_to_itself(storage: SQLiteStorage, file: Path, verb: str):
    """From the first thing that a verb reads to its commit, nobody else can write: what it decides on stays true,
    and what belongs together is there together."""
    lease = await hold(storage)
    await storage.send_message("r", "a", b"", now=NOW)
    await storage.put_schedule(schedule())
    attempts: list[str] = []

    def write_beside(said: str) -> None:
        with connected(file) as other:
            try:
                other.execute("begin immediate")
                attempts.append(f"written before {said}")
            except sqlite3.OperationalError as error:
                attempts.append(str(error))

    writer_of(storage).set_trace_callback(write_beside)
    match verb:
        case "claim_runs":
            await claim(storage, "second", now=LEASE_UNTIL)
        case "save_progress":
            await storage.save_progress(progress(lease, entries=[entry("0")], consumed=[1], children=[new_run("c")]))
        case _:
            await storage.fire_schedule("s", expected_next_at=NOW, next_at=NOW + 1, runs=[new_run("c")], now=NOW)

    # Each begins as the lock is taken.
    assert "written before begin immediate" == attempts[0]
    assert ["database is locked"] * (len(attempts) - 1) == attempts[1:]
    assert len(attempts) > 4


async def test_a_long_read_holds_up_no_write(storage: SQLiteStorage):
    """While the reader is in the middle of a journal, verbs that write are carried out; the read sees one state."""
    lease = await hold(storage)
    await storage.save_progress(progress(lease, entries=[entry("0")], timers=[timer("1")]))
    reading, go_on, loop = anyio.Event(), threading.Event(), current_token()
    journals = []

    def stop_between(said: str) -> None:
        if "from reflow_entry" in said:
            from_thread.run_sync(reading.set, token=loop)
            assert go_on.wait(20)

    reader_of(storage).set_trace_callback(stop_between)

    async def read() -> None:
        journals.append(await storage.get_journal("r"))

    async with create_task_group() as tasks:
        tasks.start_soon(read)
        await reading.wait()
        saved = await storage.save_progress(progress(lease, recorded=1, entries=[entry("1")], settled=["1"]))
        go_on.set()
    reader_of(storage).set_trace_callback(None)
    journals.append(await storage.get_journal("r"))

    assert saved
    assert [(["0"], ["1"]), (["0", "1"], [])] == [
        ([entry.position for entry in journal.entries], [timer.position for timer in journal.timers])
        for journal in journals
    ]


def test_processes_may_initialize_one_file_at_once(file: Path):
    """[187] Several processes that open one new file at the same moment all succeed, and can all write."""
    script = """if True:
        import os, sys, anyio
        from reflow import SQLiteStorage
        from reflow.testing.conformance.words import create, new_run
        async def main():
            storage = SQLiteStorage(sys.argv[1])
            await storage.initialize()
            assert (await create(storage, new_run(str(os.getpid()))))[1]
            await storage.close()
        print("ready", flush=True)
        sys.stdin.readline()
        anyio.run(main)
    """
    command = [sys.executable, "-c", script, str(file)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    assert [b"ready\n"] * 6 == [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()

    outcomes = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]

    assert [(b"", 0)] * 6 == outcomes
    with connected(file) as db:
        assert sorted(str(process.pid) for process in processes) == sorted(
            run_id for (run_id,) in db.execute("select run_id from reflow_run")
        )


# ---- what goes wrong ------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_a_storage_error_until_there_is_space(storage: SQLiteStorage):
    """Without space a write raises StorageError with the driver's text and changes nothing; smaller ones beside it
    are carried out, and it succeeds once there is space."""
    lease = await hold(storage)
    before = await state(storage, "r")
    writer = writer_of(storage)
    [pages] = writer.execute("pragma page_count").fetchone()
    writer.execute(f"pragma max_page_count = {pages + 3}")
    write = progress(lease, entries=[entry("0", payload=bytes(100_000))], ending=Ending(RunStatus.COMPLETED))
    errors: list[StorageError] = []

    async def save() -> None:
        try:
            await storage.save_progress(write)
        except StorageError as error:
            errors.append(error)

    async with create_task_group() as tasks:
        tasks.start_soon(create, storage, new_run("small"))
        tasks.start_soon(save)
    assert before == await state(storage, "r")
    writer.execute("pragma max_page_count = 1000000")

    assert [("save_progress", "database or disk is full", sqlite3.OperationalError)] == [
        (error.verb, error.reason.split(": ", 1)[1], type(error.__cause__)) for error in errors
    ]
    assert RunStatus.PENDING is (await get(storage, "small")).status
    assert await storage.save_progress(write)


@pytest.mark.parametrize(("column", "verb"), [("tags", "get_run"), ("awaits", "send_message")])
async def test_a_damaged_column_is_a_storage_error(storage: SQLiteStorage, file: Path, column: str, verb: str):
    """[175] Text in a column that is not what Reflow has written there surfaces as StorageError of the verb that meets
    it."""
    await storage.create_runs([new_run("r")])
    with connected(file) as other:
        other.execute(f"update reflow_run set {column} = '[[['")
    with pytest.raises(StorageError) as caught:
        await (storage.get_run("r") if verb == "get_run" else storage.send_message("r", "a", b"", now=1))

    assert (verb, True) == (caught.value.verb, str(file) in caught.value.reason)


async def test_driver_errors_carry_verb_text_and_cause(storage: SQLiteStorage, file: Path):
    """[175] What the driver says surfaces as StorageError: which verb, which file, the driver's words, and the
    cause."""
    with connected(file) as other:
        other.execute("drop table reflow_timer")
    await hold(storage)

    for verb in ("save_progress", "get_journal"):
        with pytest.raises(StorageError) as caught:
            await meet_timers(storage, verb)
        assert (verb, f"{file}: no such table: reflow_timer", sqlite3.OperationalError) == (
            caught.value.verb,
            caught.value.reason,
            type(caught.value.__cause__),
        )
