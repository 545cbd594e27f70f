"""Looking at a file that may not be written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from reflow import Client, Engine, SQLiteStorage
from reflow.cli import main
from reflow.errors import StorageError
from reflow.storage._sqlite.looking import open_looking
from tests.cli.jobs import giving
from tests.support.owners import folder_for_all, unprivileged

FILE, FOLDER = 0o444, 0o555


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that anybody may enter, and in the end its owner may empty."""
    with folder_for_all() as folder:
        yield folder
        folder.chmod(0o755)


async def fill(file: Path, *numbers: int) -> None:
    """Let runs complete whose ids are these numbers."""
    async with Engine(SQLiteStorage(file), [giving]) as engine:
        for number in numbers:
            await engine.enqueue(giving(number), run_id=str(number))
        await engine.drain()


def lock(folder: Path) -> dict[str, bytes]:
    """Take away the permission to write; gives the contents of all files but the shared memory."""
    for path in folder.iterdir():
        path.chmod(FILE)
    folder.chmod(FOLDER)
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


def look(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """What a command says to somebody who is not the owner."""
    capsys.readouterr()
    with unprivileged():
        code = main([*map(str, words)])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_that_may_not_be_written(folder: Path, capsys: pytest.CaptureFixture[str], is_killed: bool) -> None:
    """`runs`, `why` and `show` look at a file that may not be written, in a directory that may not be either; also at
    what a killed worker has left in its log. Nothing is changed, and nothing comes to lie beside it."""
    file = folder / "app.db"
    anyio.run(fill, file, 1)
    if is_killed:
        _leave_a_log(file)
    before = lock(folder)

    said = [look(capsys, *words, "--storage", file) for words in (["runs"], ["why", "1"], ["show", "1"])]

    assert [(0, "")] * 3 == [(code, err) for code, _, err in said]
    name = "in the log" if is_killed else "giving"
    assert [True] * 3 == [name in out for _, out, _ in said]
    assert [f"run '1' of '{name}' completed at"] * 2 == [out.partition(" 20")[0] for _, out, _ in said[1:]]
    assert before == lock(folder)


def test_a_file_at_which_a_worker_works(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who may not write sees what a worker has written while it is at work."""
    file = folder / "app.db"

    async def main() -> tuple[int, str, str]:
        async with Client(SQLiteStorage(file)) as client:
            await client.enqueue("giving", run_id="new")
            lock(folder)
            return await anyio.to_thread.run_sync(look, capsys, "runs", "--storage", file)

    code, said, complaint = anyio.run(main)

    assert (0, True, "") == (code, "new" in said, complaint)


def test_a_log_that_cannot_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a log is there that cannot be read, nothing is said without it: one line says what to do."""
    file = folder / "app.db"
    anyio.run(fill, file, 1)
    _leave_a_log(file)
    os.unlink(f"{file}-shm")
    before = lock(folder)

    code, said, complaint = look(capsys, "runs", "--storage", file)

    assert (1, "", 1) == (code, said, complaint.count("\n"))
    assert f"{file} may not be written, and without that its log app.db-wal cannot be read" in complaint
    assert before == lock(folder)


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    """What was read of a file that nobody seemed to use is not given out when somebody has written meanwhile."""
    file = tmp_path / "app.db"
    anyio.run(fill, file, 1)
    session = open_looking(file)
    session.begin([], 0)
    session.commit()
    anyio.run(fill, file, 2)
    session.begin([], 0)

    with pytest.raises(StorageError, match="was written to while it was read; try again"):
        session.commit()
    session.close()


def test_verbs_that_change_something(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verbs that change runs are refused on such a file, as before."""
    file = folder / "app.db"
    anyio.run(fill, file, 1)
    lock(folder)

    code, _, complaint = look(capsys, "cancel", "1", "--storage", file)

    assert (1, True) == (code, "check the permissions of file and directory" in complaint)


def _leave_a_log(file: Path) -> None:
    """The files of a process that was killed after it had written a run."""
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("pragma wal_autocheckpoint = 0")
    db.execute("update reflow_run set workflow = 'in the log'")
    copies = {path: path.read_bytes() for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm"))}
    db.close()
    for path, content in copies.items():
        path.write_bytes(content)
