"""Verbs on a disk that fails: `python -m tests.crash.disk.refusals FOLDER BACKEND FAULT LASTS FIRST STEP`.

The same verbs are put to a storage on a file and to one in memory, which is the specification. Operation number FIRST
of the disk fails, and in the next round, on a new file, number FIRST + STEP, until a round ends before that operation
comes. Each verb must answer StorageError and have done nothing, or answer as the specification does, and have done
that. Prints what was seen, as JSON; an `AssertionError` says where it was otherwise.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from anyio import create_task_group
from msgspec import json

from reflow import MemoryStorage, RunStatus, SQLiteStorage, StorageAdapter, StorageError
from reflow._core.journal import MessageKind
from reflow.storage.records import Ending, Lease, NewRun, RunFilter
from reflow.testing.conformance.words import NOW, claim, entry, new_run, progress, resume, schedule, timer
from tests.crash.disk import driver
from tests.crash.disk.faults import Fault, Seen, Trouble
from tests.crash.disk.limit import Limit
from tests.crash.disk.vfs import Disk
from tests.crash.disk.workload import PATH

Verb: TypeAlias = Callable[[StorageAdapter], Awaitable[Any]]

# While these last, everything can still be read.
_ONLY_WRITES = ("limit", "full", "write", "sync", "truncate")
_CHECKPOINT_EVERY = 20
_LARGE = bytes(range(256)) * 25
_ALL = tuple(RunStatus)


def save(run_id: str, lease_id: str, **what: Any) -> Verb:
    """A write under a lease."""
    return lambda storage: storage.save_progress(progress(Lease(run_id, lease_id), **what))


def verbs(a: str, b: str, c: str) -> list[Verb]:
    """The life of a few runs: every verb that writes, and some that read; journals that fill many pages."""
    parted = Ending(RunStatus.WAITING, awaits=((MessageKind.EVENT, "go"),))
    return [
        lambda storage: storage.create_runs([new_run(a, tags=("t", "u")), new_run(b), new_run(c, parent=a)]),
        lambda storage: storage.create_runs([new_run(a), new_run("keyed", idempotency_key="k", due_at=NOW + 99)]),
        lambda storage: claim(storage, "one"),
        lambda storage: storage.heartbeat([Lease(a, "one"), Lease(b, "lost")], lease_until=NOW + 50),
        save(a, "one", entries=[entry("0", payload=_LARGE), entry("1")], timers=[timer("2")]),
        save(a, "one", recorded=2, entries=[entry("2")], settled=["2"], children=[new_run(f"{a}:3", parent=a)]),
        save(b, "one", entries=[entry(str(number), payload=_LARGE) for number in range(9)]),
        save(b, "lost", recorded=9, entries=[entry("9")]),
        lambda storage: storage.get_journal(b),
        lambda storage: storage.send_message(a, "go", _LARGE, now=NOW, message_id="m"),
        lambda storage: storage.send_message(a, "go", b"", now=NOW, message_id="m"),
        save(a, "one", recorded=3, entries=[entry("4")], consumed=[1], ending=parted),
        lambda storage: storage.request_cancel(c, now=NOW),
        lambda storage: storage.check_runs([a, b, c]),
        save(b, "one", recorded=9, ending=Ending(RunStatus.FAILED, error=_LARGE)),
        save(c, "one", cancel_delivered=True, ending=Ending(RunStatus.CANCELLED)),
        lambda storage: resume(storage, b, keep=4),
        lambda storage: claim(storage, "two"),
        save(b, "two", recorded=4, entries=[entry("4")], ending=Ending(RunStatus.COMPLETED, output=_LARGE)),
        lambda storage: storage.put_schedule(schedule("s")),
        lambda storage: storage.due_schedules(["w"], limit=9, now=NOW),
        lambda storage: storage.fire_schedule(
            "s", expected_next_at=NOW, next_at=NOW + 9, runs=[new_run("fired")], now=NOW
        ),
        lambda storage: storage.pause_schedule("s", paused=True, now=NOW),
        lambda storage: storage.prune(before=NOW + 1, statuses=_ALL, limit=1),
        lambda storage: storage.delete_schedule("s"),
    ]


class Round:
    """A file on a disk that fails, and the storage in memory that it must agree with."""

    def __init__(self, folder: Path, disk: Disk | Limit, trouble: Trouble) -> None:
        self.refusals = 0
        self._disk = disk
        self._trouble = trouble
        self._path = folder / PATH
        self._file = SQLiteStorage(self._path)
        self._memory = MemoryStorage()

    async def play(self) -> None:
        """All verbs, then several at once; then close the file, and look at it again."""
        self._disk.begin(self._trouble)
        await self._memory.initialize()
        await self._insisting(self._file.initialize, is_open=False)
        for number, verb in enumerate(verbs("a", "b", "c")):
            answer = await self._insisting(partial(verb, self._file))
            assert await verb(self._memory) == answer, f"verb {number}"
            await self._insisting(self._agree)
        await self._at_once()
        await self._file.close()
        self._disk.heal()
        self._file = SQLiteStorage(self._path)
        await self._file.initialize()
        await self._agree()
        await self._file.close()

    async def _insisting(self, call: Callable[[], Awaitable[Any]], *, is_open: bool = True) -> Any:
        """What a call answers in the end: twice it may be refused, and changes nothing; then the disk is well."""
        for _ in range(2):
            try:
                return await call()
            except StorageError as error:
                refusal = error
            self.refusals += 1
            assert str(self._path) in str(refusal)
            if is_open and self._trouble.fault in _ONLY_WRITES:
                await self._agree()
        self._disk.heal()
        if is_open:
            await self._agree()
        return await call()

    async def _at_once(self) -> None:
        """Verbs that share a transaction: each is done, or refused and not done."""
        runs = [new_run(f"at once {number}", input=_LARGE) for number in range(4)]
        refused = list[NewRun]()

        async def create(run: NewRun) -> None:
            try:
                await self._file.create_runs([run])
                await self._memory.create_runs([run])
            except StorageError:
                self.refusals += 1
                refused.append(run)

        async with create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(create, run)
        if refused:
            self._disk.heal()
        await self._insisting(self._agree)
        for run in refused:
            await create(run)
        await self._insisting(self._agree)

    async def _agree(self) -> None:
        assert await _rows(self._memory, self._memory) == await _rows(self._file, self._memory)


async def _rows(storage: StorageAdapter, known: StorageAdapter) -> list[Any]:
    """All that a storage keeps, of the runs that are known."""
    page = await storage.list_runs(RunFilter(), limit=99)
    # Of what was created at once, any may have been the first.
    rows = sorted(page.rows, key=lambda row: row.run_id)
    found: list[Any] = [rows, await storage.count_runs(), await storage.get_schedules()]
    for row in sorted((await known.list_runs(RunFilter(), limit=99)).rows, key=lambda row: row.run_id):
        found += [await storage.get_journal(row.run_id), await storage.get_cut_entries(row.run_id)]
    return found


async def main(folder: Path, disk: Disk | Limit, fault: Fault, lasts: bool, first: int, step: int) -> Seen:
    """Rounds until the operation that is to fail does not come any more."""
    seen = Seen()
    for at in count(first, step):
        files = folder / str(at)
        files.mkdir()
        trouble = Trouble(fault, at, lasts)
        game = Round(files, disk, trouble)
        try:
            await game.play()
        except BaseException as error:
            error.add_note(f"{trouble}, {disk.struck} operations failed, {game.refusals} refusals")
            raise
        shutil.rmtree(files)
        if not disk.struck and not game.refusals:
            return seen
        seen = Seen(seen.rounds + 1, seen.operations + disk.struck, seen.refusals + game.refusals)
    raise AssertionError("never reached")


if __name__ == "__main__":
    folder, backend, fault, lasts, first, step = sys.argv[1:]
    disk: Disk | Limit = Limit()
    if fault != "limit":
        disk = Disk()
        driver.install(_CHECKPOINT_EVERY)
    arguments = (Path(folder), disk, fault, lasts == "lasts", int(first), int(step))
    print(json.encode(anyio.run(main, *arguments, backend=backend)).decode())
