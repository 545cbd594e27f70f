"""Files that were damaged, moved apart, or are not ours to open: an error with the path, or all that can be there.

What is said of a bad database is in tests/storage/test_sqlite.py; here are the files that SQLite keeps beside it, files
of other owners, and stores that must not be taken for new ones.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from reflow import SQLiteStorage, StorageAccessError, StorageError, StorageFormatError
from reflow._core.journal import Entry
from reflow.testing.conformance.words import entry, hold, opened, progress
from tests.crash.ledger import fired, scaled
from tests.support.owners import folder_for_all, own, unprivileged

pytestmark = pytest.mark.anyio

SEED = 20261128
DATABASE, LOG, SHARED_MEMORY = "app.db", "app.db-wal", "app.db-shm"
HEADER, FRAME = 32, 24 + 4096


def journal(payload: bytes) -> list[Entry]:
    """Entries whose payloads fill pages."""
    return [entry(str(number), payload=payload * 2_000) for number in range(12)]


ENTRIES = journal(b"r")


async def killed(folder: Path, entries: list[Entry] = ENTRIES) -> Path:
    """The files of a process that was killed: a run with these entries, all of it in the log."""
    alive = folder.with_suffix(".alive")
    async with opened(SQLiteStorage(alive)) as storage:
        lease = await hold(storage)
        for number, each in enumerate(entries):
            await storage.save_progress(progress(lease, recorded=number, entries=[each]))
        os.mkdir(folder)
        shutil.copy(alive, folder / DATABASE)
        shutil.copy(f"{alive}-wal", folder / LOG)
    return folder / DATABASE


async def closed(folder: Path, entries: list[Entry] = ENTRIES) -> Path:
    """The file of a process that has ended: all of it in the database."""
    file = await killed(folder, entries)
    async with opened(SQLiteStorage(file)):
        pass
    assert [DATABASE] == os.listdir(folder)
    return file


async def found(file: Path) -> list[Entry]:
    """The entries that are there, in a file that is whole."""
    async with opened(SQLiteStorage(file)) as storage:
        entries = (await storage.get_journal("r")).entries
    with closing(sqlite3.connect(file)) as db:
        assert [("ok",)] == db.execute("pragma integrity_check").fetchall()
    return entries


async def refused(file: Path) -> StorageError:
    """The error of opening a file, which names it."""
    with pytest.raises(StorageError) as caught:
        await SQLiteStorage(file).initialize()
    assert str(file) in caught.value.reason
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, but for shared memory, in which nothing is stored."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file() and each.name != SHARED_MEMORY}


# ---- the log ---------------------------------------------------------------------------------------------------------


def without_end(log: bytes, dice: Random) -> bytes:
    """Cut off anywhere, or between two frames."""
    frames = (len(log) - HEADER) // FRAME
    return log[: dice.choice((dice.randrange(len(log)), HEADER + dice.randrange(frames) * FRAME))]


def with_garbage(log: bytes, dice: Random) -> bytes:
    """Some bytes are others, from a single bit to several pages."""
    start, length = dice.randrange(len(log)), dice.choice((1, 8, 512, 20_000))
    end = min(start + length, len(log))
    garbage = bytes([log[start] ^ 1 << dice.randrange(8)]) if length == 1 else dice.randbytes(end - start)
    return log[:start] + garbage + log[end:]


@pytest.mark.parametrize("spoilt", [without_end, with_garbage])
async def test_a_spoilt_log_is_good_up_to_there(tmp_path: Path, spoilt: Callable[[bytes, Random], bytes]) -> None:
    """Of a log that was cut off, or has garbage in it, everything counts that was committed before that place: the
    journal is the beginning of what it was, and the file is whole."""
    whole = (await killed(tmp_path / "whole")).parent
    log = (whole / LOG).read_bytes()
    dice = Random(SEED)
    lengths: set[int] = set()
    for number in range(scaled(20, long=500)):
        file = Path(shutil.copytree(whole, tmp_path / str(number))) / DATABASE
        (file.parent / LOG).write_bytes(spoilt(log, dice))
        entries = await found(file)
        assert ENTRIES[: len(entries)] == entries
        lengths.add(len(entries))
        fired("bad file", "a log with a spoilt end")

    assert len(lengths) > 3


@pytest.mark.parametrize("garbage", [b"", b"\0" * 40_000, b"no log\n" * 5_000, bytes(range(256)) * 200])
async def test_a_log_that_is_none_is_of_no_account(tmp_path: Path, garbage: bytes) -> None:
    """Garbage in the place of the log of a store that was closed takes nothing away from it."""
    file = await closed(tmp_path / "app")
    (file.parent / LOG).write_bytes(garbage)

    entries = await found(file)

    fired("bad file", "garbage in the place of the log")
    assert ENTRIES == entries


async def test_a_log_of_another_store_is_not_told_apart(tmp_path: Path) -> None:
    """What is not promised: the log of another store is taken for the file's own, for SQLite cannot tell. Whoever moves
    a store moves both files, and neither alone."""
    file = await closed(tmp_path / "app")
    theirs = journal(b"t")
    shutil.copy((await killed(tmp_path / "other", theirs)).parent / LOG, file.parent)

    entries = await found(file)

    fired("bad file", "the log of another store")
    assert theirs == entries


@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
async def test_a_log_without_its_database_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Where the database is gone, or empty, and its log is there, there was a store: StorageFormatError, and nothing is
    touched. When the database is back, everything is there."""
    file = await killed(tmp_path / "app")
    database = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)

    before = contents(file.parent)
    error = await refused(file)

    fired("bad file", "a log without its database")
    assert before == contents(file.parent)
    file.write_bytes(database)
    assert (StorageFormatError, "open") == (type(error), error.verb)
    assert ENTRIES == await found(file)


async def test_a_log_is_found_behind_a_link(tmp_path: Path) -> None:
    """The same holds where the path is a symbolic link: the log is beside the file that it leads to."""
    file = await killed(tmp_path / "app")
    file.unlink()
    link = tmp_path / "link.db"
    link.symlink_to(file)

    with pytest.raises(StorageFormatError, match=r"link\.db"):
        await SQLiteStorage(link).initialize()

    fired("bad file", "a log without its database")
    assert [LOG] == list(contents(file.parent))


# ---- what is in the way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [LOG, SHARED_MEMORY])
async def test_a_folder_in_the_way_is_refused(tmp_path: Path, name: str) -> None:
    """A folder in the place of the log or of shared memory is StorageAccessError; without it, everything is there."""
    file = await closed(tmp_path / "app")
    (file.parent / name).mkdir()

    error = await refused(file)
    (file.parent / name).rmdir()

    fired("bad file", "a folder in the place of a file")
    assert StorageAccessError is type(error)
    assert ENTRIES == await found(file)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("create table reflow_run (theirs)", "reflow_run already exists"),
        ("create view reflow_entry as select 'theirs' as theirs", "reflow_entry already exists"),
        ("create table reflow_schema (theirs)", "no such column: version"),
        ("create table reflow_schema as select 'theirs' as version", "reflow_schema that is not Reflow's"),
        ("create table reflow_schema as select -1 as version", "reflow_schema that is not Reflow's"),
        ("create table reflow_schema (version)", "reflow_schema that is not Reflow's"),
    ],
)
async def test_tables_of_others_with_our_names_are_left_alone(tmp_path: Path, made: str, said: str) -> None:
    """Where somebody else's tables have the names of ours, the file is refused, naming what is in the way, and all that
    is in it stays as it is."""
    file = tmp_path / DATABASE
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("create table customer as select 'a' as name")
        db.execute(made)
        before = list(db.iterdump())

    error = await refused(file)

    fired("bad file", "tables of others with our names")
    assert said in error.reason
    with closing(sqlite3.connect(file)) as db:
        assert before == list(db.iterdump())


# ---- whose file it is ------------------------------------------------------------------------------------------------

UNREADABLE, UNWRITABLE, OURS = 0o600, 0o644, None


@pytest.mark.parametrize(
    "modes",
    [
        {DATABASE: UNREADABLE, LOG: UNREADABLE},
        {DATABASE: UNWRITABLE, LOG: UNWRITABLE},
        {DATABASE: UNWRITABLE, LOG: OURS},
        {DATABASE: OURS, LOG: UNREADABLE},
        {DATABASE: OURS, LOG: UNWRITABLE},
        {DATABASE: OURS, LOG: OURS, SHARED_MEMORY: UNREADABLE},
        {DATABASE: OURS, LOG: OURS, SHARED_MEMORY: UNWRITABLE},
    ],
)
async def test_files_of_another_owner_are_refused(tmp_path: Path, modes: dict[str, int | None]) -> None:
    """Where one of the files belongs to another user, such as one that worked here before, opening is
    StorageAccessError, and nothing is lost: their owner finds everything."""
    left = await killed(tmp_path / "app")
    with folder_for_all() as folder:
        file = folder / DATABASE
        for name, mode in modes.items():
            path = folder / name
            path.write_bytes(b"" if name == SHARED_MEMORY else (left.parent / name).read_bytes())
            if mode is OURS:
                own(path)
            else:
                # Who is not root has no files of others: the same permissions are taken from its own.
                path.chmod(mode if os.geteuid() == 0 else {UNREADABLE: 0, UNWRITABLE: 0o444}[mode])
        with unprivileged():
            error = await refused(file)
        for path in folder.iterdir():
            path.chmod(0o600)

        fired("bad file", "files of another owner")
        assert StorageAccessError is type(error)
        assert contents(left.parent) == contents(folder)
        assert ENTRIES == await found(file)
