"""`SQLiteStorage`: one file, no server. Several engines and processes of one machine may share it.

Everything is written through one lane (group commit), and read through another, so that loading a long journal holds
up no commit. WAL lets the two go on side by side. `begin immediate` takes the write lock before anything is read, so no
write is ever refused half way; what is read in one transaction belongs together, though others go on writing meanwhile.

With `durability="full"`, the default, a commit is on the disk before the step that needs it starts
(`synchronous=FULL`). With `"process"` (`NORMAL`) a kill of the process loses nothing, but a power cut may take back the
last acknowledged steps.

Keep the file on a local disk: SQLite's locks do not hold on network file systems (https://sqlite.org/useovernet.html).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import NamedTuple, TypeVar, get_args

from anyio import CancelScope, CapacityLimiter, to_thread

from reflow._core.journal import Entry, Journal, Message
from reflow._core.status import RunStatus
from reflow.errors import ConfigError, StorageError
from reflow.storage._sqlite import verbs
from reflow.storage._sqlite.connection import Durability, open_reader, open_writer, translated
from reflow.storage._sqlite.lane import Lane, LaneStatistics, one_by_one
from reflow.storage.listeners import Listeners, Wake
from reflow.storage.loop import call_soon_here
from reflow.storage.records import (
    Claimed,
    DueSchedules,
    Lease,
    NewRun,
    Page,
    Progress,
    RunCounts,
    RunFilter,
    RunRow,
    RunSignal,
    ScheduleRow,
)

__all__ = ["SQLiteStorage"]

T = TypeVar("T")


class SQLiteStorage:
    """Runs kept in a SQLite file, created where it does not exist.

    `path` names the file; its directory must exist. `durability` is `"full"` or `"process"` (see the module).
    Raises `ConfigError` for other values, and for `":memory:"`; what cannot be opened shows on `initialize`, which
    entering an `Engine` does for you.
    """

    def __init__(self, path: str | os.PathLike[str], *, durability: Durability = "full") -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is {durability!r}; write 'full' or 'process'")
        if not isinstance(path, (str, os.PathLike)) or str(path) in ("", ":memory:"):
            raise ConfigError(f"path is {path!r}; name a file, or use MemoryStorage() to keep runs in memory")
        self.path = Path(path)
        self.durability: Durability = durability
        self._open: _Open | None = None
        self._users = 0
        self._listeners = Listeners()
        self._changing = Lock()

    def __repr__(self) -> str:
        return f"SQLiteStorage({str(self.path)!r}, durability={self.durability!r})"

    async def initialize(self) -> None:
        """Open the file and bring its tables up to date (clauses A)."""
        self._users += 1
        try:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._ensure_open, limiter=CapacityLimiter(1))
        except BaseException:
            self._users -= 1
            raise

    async def close(self) -> None:
        """Close the file, once nobody who initialized it uses it any more (clauses B)."""
        self._users = max(0, self._users - 1)
        if self._users == 0 and self._open is not None:
            with CancelScope(shield=True), translated("close", self.path):
                await to_thread.run_sync(self._close_unused)

    async def create_runs(self, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
        """Clauses C."""
        self._listeners.wake()
        return await self._write("create_runs", partial(verbs.create_runs, runs=runs))

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        claim = partial(
            verbs.claim_runs, workflows=workflows, limit=limit, lease_id=lease_id, now=now, lease_until=lease_until
        )
        return await self._write("claim_runs", claim)

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Clauses E."""
        return await self._write("heartbeat", partial(verbs.heartbeat, leases=leases, lease_until=lease_until))

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        for run_id in progress.cancelled:
            self._listeners.wake(run_id)
        if progress.is_news:
            self._listeners.wake()
        return await self._opened("save_progress").writing.submit("save_progress", verbs.save_progress, progress)

    async def get_run(self, run_id: str) -> RunRow | None:
        """Clauses G."""
        return await self._read("get_run", partial(verbs.get_run, run_id=run_id))

    async def get_journal(self, run_id: str) -> Journal:
        """Clauses H."""
        return await self._read("get_journal", partial(verbs.get_journal, run_id=run_id))

    async def get_messages(self, run_id: str, *, after: int) -> list[Message]:
        """Clauses I."""
        return await self._read("get_messages", partial(verbs.get_messages, run_id=run_id, after=after))

    async def send_message(
        self, run_id: str, name: str, payload: bytes, *, now: int, message_id: str | None = None
    ) -> bool:
        """Clauses J."""
        self._listeners.wake(run_id)
        send = partial(verbs.send_message, run_id=run_id, name=name, payload=payload, now=now, message_id=message_id)
        return await self._write("send_message", send)

    async def request_cancel(self, run_id: str, *, now: int) -> bool:
        """Clauses K."""
        self._listeners.wake(run_id)
        return await self._write("request_cancel", partial(verbs.request_cancel, run_id=run_id, now=now))

    async def check_runs(self, run_ids: Sequence[str]) -> list[RunSignal]:
        """Clauses L."""
        # Behind the writes, so that what a hint was about is seen.
        return await self._write("check_runs", partial(verbs.check_runs, run_ids=run_ids))

    async def resume_run(self, run_id: str, *, keep: int, now: int) -> bool:
        """Clauses M."""
        self._listeners.wake()
        return await self._write("resume_run", partial(verbs.resume_run, run_id=run_id, keep=keep, now=now))

    async def get_cut_entries(self, run_id: str) -> list[Entry]:
        """Clauses N."""
        return await self._read("get_cut_entries", partial(verbs.get_cut_entries, run_id=run_id))

    async def list_runs(self, filter: RunFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Clauses O."""
        return await self._read("list_runs", partial(verbs.list_runs, filter=filter, limit=limit, cursor=cursor))

    async def count_runs(self) -> RunCounts:
        """Clauses P."""
        return await self._read("count_runs", verbs.count_runs)

    async def prune(self, *, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
        """Clauses Q."""
        return await self._write("prune", partial(verbs.prune, before=before, statuses=statuses, limit=limit))

    async def put_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        """Clauses R."""
        self._listeners.wake()
        return await self._write("put_schedule", partial(verbs.put_schedule, schedule=schedule))

    async def delete_schedule(self, key: str) -> bool:
        """Clauses S."""
        return await self._write("delete_schedule", partial(verbs.delete_schedule, key=key))

    async def pause_schedule(self, key: str, *, paused: bool, now: int) -> bool:
        """Clauses T."""
        return await self._write("pause_schedule", partial(verbs.pause_schedule, key=key, paused=paused, now=now))

    async def get_schedules(self) -> list[ScheduleRow]:
        """Clauses U."""
        return await self._read("get_schedules", verbs.get_schedules)

    async def due_schedules(self, workflows: Sequence[str], *, limit: int, now: int) -> DueSchedules:
        """Clauses V."""
        return await self._read(
            "due_schedules", partial(verbs.due_schedules, workflows=workflows, limit=limit, now=now)
        )

    async def fire_schedule(
        self, key: str, *, expected_next_at: int, next_at: int, runs: Sequence[NewRun], now: int
    ) -> bool:
        """Clauses W."""
        self._listeners.wake()
        fire = partial(
            verbs.fire_schedule, key=key, expected_next_at=expected_next_at, next_at=next_at, runs=runs, now=now
        )
        return await self._write("fire_schedule", fire)

    async def listen(self, wake: Wake) -> None:
        """Clauses Y.

        Verbs of this adapter give the hint when they are called: a claim that is made because of it is carried out
        behind them, often in the same transaction.
        """
        call_soon = call_soon_here()

        def wake_there() -> None:
            with suppress(RuntimeError):  # the event loop is gone
                call_soon(partial(wake, None))

        with self._opened("listen").writing.watched(wake_there):
            await self._listeners.listen(wake)

    def statistics(self) -> LaneStatistics:
        """Commits since the file was opened, and the verbs that shared them; zeros while it is closed."""
        return LaneStatistics(0, 0) if self._open is None else self._open.writing.statistics()

    async def _write(self, verb: str, do: Callable[[Connection], T]) -> T:
        return await self._opened(verb).writing.submit(verb, one_by_one, do)

    async def _read(self, verb: str, do: Callable[[Connection], T]) -> T:
        return await self._opened(verb).reading.submit(verb, one_by_one, do)

    def _opened(self, verb: str) -> _Open:
        if self._open is None:
            raise StorageError(
                verb, f"{self.path} is not open; enter the engine or the client, or await storage.initialize()"
            )
        return self._open

    # ---- in a worker thread; the lock puts those who open and close at once in a row ---------------------------------

    def _ensure_open(self) -> None:
        with self._changing:
            if self._open is None:
                writer = open_writer(self.path, self.durability)
                try:
                    reader = open_reader(self.path)
                except BaseException:
                    writer.close()
                    raise
                self._open = _Open(Lane(writer, self.path, "begin immediate"), Lane(reader, self.path, "begin"))

    def _close_unused(self) -> None:
        with self._changing:
            if self._users == 0 and self._open is not None:
                closing, self._open = self._open, None
                closing.reading.close()
                closing.writing.close()


class _Open(NamedTuple):
    """What there is while the file is open."""

    writing: Lane
    reading: Lane
