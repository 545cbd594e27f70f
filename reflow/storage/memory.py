"""`MemoryStorage`: the specification of the contract, in dictionaries. For tests; nothing survives the process.

It is no laxer than a database: what it is given goes through bytes and is checked on the way, so a test on memory does
not pass with a value that no column would take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

from anyio.lowlevel import checkpoint
from msgspec import MsgspecError
from msgspec.msgpack import decode, encode
from msgspec.structs import replace

from reflow._core.journal import Entry, Journal, Message, MessageKind
from reflow._core.status import RunStatus
from reflow.errors import StorageError
from reflow.storage._memory import StoredRun
from reflow.storage.listeners import Listeners, Wake
from reflow.storage.records import (
    Claimed,
    DueSchedules,
    Ending,
    Lease,
    NewRun,
    Page,
    Progress,
    RunCount,
    RunCounts,
    RunFilter,
    RunRow,
    RunSignal,
    ScheduleRow,
)

__all__ = ["MemoryStorage"]

T = TypeVar("T")


class MemoryStorage:
    """Keeps runs in this process, as bytes. Every verb is atomic because none waits in its middle."""

    def __init__(self) -> None:
        self._runs: dict[str, StoredRun] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._schedules: dict[str, ScheduleRow] = {}
        self._created = 0
        self._listeners = Listeners()

    async def initialize(self) -> None:
        """Nothing to make ready."""
        await checkpoint()

    async def close(self) -> None:
        """Nothing to let go of: another engine in this process may go on with the same object."""
        await checkpoint()

    async def create_runs(self, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
        """Clauses C."""
        await checkpoint()
        answers = [self._create(run) for run in _stored("create_runs", runs, list[NewRun])]
        self._listeners.wake()
        return answers

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Clauses D."""
        await checkpoint()
        workflows = _stored("claim_runs", workflows, list[tuple[str, int]])
        limit, lease_id, now, lease_until = _stored(
            "claim_runs", (limit, lease_id, now, lease_until), tuple[int, str, int, int]
        )
        named = [run for run in self._runs.values() if (run.row.workflow, run.row.version) in workflows]
        waiting = sorted((due_at, run.number, run) for run in named if (due_at := run.row.due_at) is not None)
        due = sorted((run for due_at, _, run in waiting if due_at <= now), key=lambda run: -run.row.priority)[:limit]
        left = [due_at for due_at, _, run in waiting if run not in due]
        for run in due:
            run.change(
                status=RunStatus.RUNNING,
                lease_id=lease_id,
                due_at=lease_until,
                executions=run.row.executions + 1,
                idle_claims=run.row.idle_claims + 1,
                updated_at=now,
            )
        return Claimed([run.row for run in due], min(left, default=None))

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Clauses E."""
        await checkpoint()
        leases, lease_until = _stored("heartbeat", (leases, lease_until), tuple[list[Lease], int])
        lost: list[Lease] = []
        for lease in leases:
            if run := self._held(lease):
                run.change(due_at=lease_until)
            else:
                lost.append(lease)
        return lost

    async def save_progress(self, progress: Progress) -> bool:
        """Clauses F."""
        await checkpoint()
        progress = _stored("save_progress", progress, Progress)
        if progress.ending and progress.ending.problem:
            raise StorageError("save_progress", progress.ending.problem)
        run = self._held(progress.lease)
        if run is None:
            return False
        known = len(run.entries) - progress.recorded
        if known < 0:
            raise StorageError("save_progress", f"entries of run {run.row.run_id!r} are missing")
        there = run.entries[progress.recorded :]
        if any(entry != known for entry, known in zip(progress.entries, there, strict=False)):
            return False
        if known == 0 and not run.messages.keys() >= set(progress.consumed):
            raise StorageError("save_progress", f"messages of run {run.row.run_id!r} are missing")
        added = progress.entries[known:]
        run.entries.extend(added)
        for timer in progress.timers:
            run.timers[timer.position] = timer
        for position in progress.settled:
            run.timers.pop(position, None)
        for seq in progress.consumed:
            run.messages.pop(seq, None)
        for child in progress.children:
            self._start(child, progress.now)
        for run_id in progress.cancelled:
            self._request_cancel(run_id, progress.now)
        if added or progress.timers or progress.ending:
            run.change(idle_claims=0)
        if progress.cancel_delivered:
            run.change(cancel_requested=False, cancel_delivered=True)
        if progress.ending:
            self._end(run, progress.ending, progress.now)
        for run_id in progress.cancelled:
            self._listeners.wake(run_id)
        if progress.is_news:
            self._listeners.wake()
        return True

    async def get_run(self, run_id: str) -> RunRow | None:
        """Clauses G."""
        await checkpoint()
        run = self._runs.get(_stored("get_run", run_id, str))
        return run.row if run else None

    async def get_journal(self, run_id: str) -> Journal:
        """Clauses H."""
        await checkpoint()
        run = self._runs.get(_stored("get_journal", run_id, str))
        if run is None:
            return Journal([], [])
        timers = [run.timers[position] for position in sorted(run.timers)]
        return Journal(list(run.entries), timers, list(run.messages.values()))

    async def get_messages(self, run_id: str, *, after: int) -> list[Message]:
        """Clauses I."""
        await checkpoint()
        run_id, after = _stored("get_messages", (run_id, after), tuple[str, int])
        run = self._runs.get(run_id)
        return [message for seq, message in run.messages.items() if seq > after] if run else []

    async def send_message(
        self, run_id: str, name: str, payload: bytes, *, now: int, message_id: str | None = None
    ) -> bool:
        """Clauses J."""
        await checkpoint()
        run_id, name, payload, now, message_id = _stored(
            "send_message", (run_id, name, payload, now, message_id), tuple[str, str, bytes, int, str | None]
        )
        run = self._alive(run_id)
        if run is None:
            return False
        if message_id is None or message_id not in run.message_ids:
            run.put_message(now, MessageKind.EVENT, name, payload, None)
        if message_id is not None:
            run.message_ids.add(message_id)
        self._listeners.wake(run_id)
        return True

    async def request_cancel(self, run_id: str, *, now: int) -> bool:
        """Clauses K."""
        await checkpoint()
        run_id, now = _stored("request_cancel", (run_id, now), tuple[str, int])
        answer = self._request_cancel(run_id, now)
        self._listeners.wake(run_id)
        return answer

    async def check_runs(self, run_ids: Sequence[str]) -> list[RunSignal]:
        """Clauses L."""
        await checkpoint()
        runs = [self._runs.get(run_id) for run_id in _stored("check_runs", run_ids, list[str])]
        return [
            RunSignal(run.row.run_id, run.row.cancel_requested, run.row.last_message)
            for run in runs
            if run and (run.row.cancel_requested or run.messages)
        ]

    async def resume_run(self, run_id: str, *, generation: int, executions: int, keep: int, now: int) -> bool:
        """Clauses M."""
        await checkpoint()
        run_id, generation, executions, keep, now = _stored(
            "resume_run", (run_id, generation, executions, keep, now), tuple[str, int, int, int, int]
        )
        run = self._runs.get(run_id)
        if run is None or run.row.status not in (RunStatus.FAILED, RunStatus.CANCELLED):
            return False
        if (run.row.generation, run.row.executions) != (generation, executions):
            return False
        run.cut.extend(run.entries[keep:])
        del run.entries[keep:]
        run.timers.clear()
        run.forget_children()
        run.change(
            status=RunStatus.PENDING,
            due_at=now,
            updated_at=now,
            output=None,
            error=None,
            idle_claims=0,
            cancel_requested=False,
            cancel_delivered=False,
        )
        self._listeners.wake()
        return True

    async def get_cut_entries(self, run_id: str) -> list[Entry]:
        """Clauses N."""
        await checkpoint()
        run = self._runs.get(_stored("get_cut_entries", run_id, str))
        return list(run.cut) if run else []

    async def list_runs(self, filter: RunFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Clauses O."""
        await checkpoint()
        filter, limit, cursor = _stored("list_runs", (filter, limit, cursor), tuple[RunFilter, int, str | None])
        before = self._created + 1 if cursor is None else _number(cursor)
        newest_first = sorted(self._runs.values(), key=attrgetter("number"), reverse=True)
        found = [run for run in newest_first if run.number < before and _fits(run.row, filter)]
        rows = [run.row for run in found[:limit]]
        return Page(rows, str(found[limit - 1].number) if limit < len(found) else None)

    async def count_runs(self) -> RunCounts:
        """Clauses P."""
        await checkpoint()
        rows = [run.row for run in self._runs.values()]
        counts = Counter((row.workflow, row.status) for row in rows)
        due = [row.due_at for row in rows if row.due_at is not None]
        return RunCounts([RunCount(*pair, counts[pair]) for pair in sorted(counts)], min(due, default=None))

    async def prune(self, *, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
        """Clauses Q."""
        await checkpoint()
        before, statuses, limit = _stored("prune", (before, statuses, limit), tuple[int, list[RunStatus], int])
        parents = {run.row.parent for run in self._runs.values()}
        ended = [
            run
            for run in self._runs.values()
            if run.row.status in statuses
            and run.row.status.is_terminal
            and run.row.updated_at < before
            and run.row.run_id not in parents
            and self._alive(run.row.parent) is None
        ]
        pruned = sorted(ended, key=lambda run: (run.row.updated_at, run.number))[:limit]
        for run in pruned:
            del self._runs[run.row.run_id]
        self._keys = {key: run_id for key, run_id in self._keys.items() if run_id in self._runs}
        return len(pruned)

    async def put_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        """Clauses R."""
        await checkpoint()
        schedule = _stored("put_schedule", schedule, ScheduleRow)
        if known := self._schedules.get(schedule.key):
            schedule = replace(
                schedule, created_at=known.created_at, paused=known.paused, last_run_id=known.last_run_id
            )
            if schedule.recurrence == known.recurrence:
                schedule = replace(schedule, anchor_at=known.anchor_at, next_at=known.next_at)
        self._schedules[schedule.key] = schedule
        self._listeners.wake()
        return schedule

    async def delete_schedule(self, key: str) -> bool:
        """Clauses S."""
        await checkpoint()
        return self._schedules.pop(_stored("delete_schedule", key, str), None) is not None

    async def pause_schedule(self, key: str, *, paused: bool, now: int) -> bool:
        """Clauses T."""
        await checkpoint()
        key, paused, now = _stored("pause_schedule", (key, paused, now), tuple[str, bool, int])
        schedule = self._schedules.get(key)
        if schedule and schedule.paused != paused:
            self._schedules[key] = replace(schedule, paused=paused, updated_at=now)
        return schedule is not None

    async def get_schedules(self) -> list[ScheduleRow]:
        """Clauses U."""
        await checkpoint()
        return [self._schedules[key] for key in sorted(self._schedules)]

    async def due_schedules(self, workflows: Sequence[str], *, limit: int, now: int) -> DueSchedules:
        """Clauses V."""
        await checkpoint()
        workflows, limit, now = _stored("due_schedules", (workflows, limit, now), tuple[list[str], int, int])
        named = [row for row in self._schedules.values() if row.workflow in workflows and not row.paused]
        waiting = sorted(named, key=attrgetter("next_at", "key"))
        due = [row for row in waiting if row.next_at <= now][:limit]
        left = waiting[len(due) :]
        return DueSchedules(due, left[0].next_at if left else None)

    async def fire_schedule(
        self, key: str, *, expected_next_at: int, next_at: int, runs: Sequence[NewRun], now: int
    ) -> bool:
        """Clauses W."""
        await checkpoint()
        key, expected_next_at, next_at, now = _stored(
            "fire_schedule", (key, expected_next_at, next_at, now), tuple[str, int, int, int]
        )
        runs = _stored("fire_schedule", runs, list[NewRun])
        schedule = self._schedules.get(key)
        if schedule is None or schedule.paused or schedule.next_at != expected_next_at:
            return False
        rows = [self._create(run)[0] for run in runs]
        last_run_id = rows[-1].run_id if rows else schedule.last_run_id
        self._schedules[key] = replace(schedule, next_at=next_at, updated_at=now, last_run_id=last_run_id)
        self._listeners.wake()
        return True

    async def listen(self, wake: Wake) -> None:
        """Clauses Y."""
        await self._listeners.listen(wake)

    # ---- what several verbs do --------------------------------------------------------------------------------------

    def _held(self, lease: Lease) -> StoredRun | None:
        run = self._runs.get(lease.run_id)
        return run if run and run.row.lease_id == lease.lease_id else None

    def _alive(self, run_id: str | None) -> StoredRun | None:
        run = self._runs.get(run_id) if run_id is not None else None
        return run if run and not run.row.status.is_terminal else None

    def _create(self, new: NewRun) -> tuple[RunRow, bool]:
        key = (new.workflow, new.idempotency_key) if new.idempotency_key is not None else None
        known_id = self._keys.get(key, new.run_id) if key and new.run_id not in self._runs else new.run_id
        if known := self._runs.get(known_id):
            return known.row, False
        self._created += 1
        self._runs[new.run_id] = StoredRun(self._created, new.row())
        if key:
            self._keys[key] = new.run_id
        return new.row(), True

    def _request_cancel(self, run_id: str, now: int) -> bool:
        run = self._alive(run_id)
        if run is None:
            return False
        if run.row.status is RunStatus.PENDING and run.row.executions == 0:
            self._end(run, Ending(RunStatus.CANCELLED), now)
        elif not (run.row.cancel_requested or run.row.cancel_delivered):
            run.change(cancel_requested=True)
            run.wake(now)
        return True

    def _start(self, child: NewRun, now: int) -> None:
        row, created = self._create(child)
        parent = self._alive(child.parent)
        name = child.parent_position or ""
        if created or parent is None or parent.has_message(MessageKind.CHILD, name):
            return
        if not row.is_same_child(child):
            parent.put_message(now, MessageKind.CHILD, name, b"", None)
        elif row.status.is_terminal:
            self._tell_parent(row, now)

    def _tell_parent(self, row: RunRow, now: int) -> None:
        if parent := self._alive(row.parent):
            payload = row.output if row.status is RunStatus.COMPLETED else row.error
            parent.put_message(now, MessageKind.CHILD, row.parent_position or "", payload or b"", row.status)

    def _end(self, run: StoredRun, ending: Ending, now: int) -> None:
        if new := ending.continued:
            run.entries, run.cut, run.timers = [], [], {}
            run.forget_children()
            run.change(
                workflow=new.workflow,
                version=new.version,
                rules=new.rules,
                input=new.input,
                executions=0,
                generation=run.row.generation + 1,
                cancel_delivered=False,
            )
        run.awaits = ending.awaits
        row = run.change(
            status=ending.status,
            lease_id=None,
            due_at=ending.due_at,
            updated_at=now,
            output=ending.output,
            error=ending.error,
        )
        if row.status.is_terminal:
            self._tell_parent(row, now)
        elif row.cancel_requested or run.has_any_message(ending.awaits):
            run.wake(now)


def _fits(row: RunRow, filter: RunFilter) -> bool:
    return (
        (not filter.statuses or row.status in filter.statuses)
        and (filter.workflow is None or row.workflow == filter.workflow)
        and (filter.parent is None or row.parent == filter.parent)
        and set(filter.tags) <= set(row.tags)
    )


def _number(cursor: str) -> int:
    try:
        return int(cursor)
    except ValueError:
        raise StorageError("list_runs", f"{cursor!r} is no cursor of a page") from None


def _stored(verb: str, value: Any, type: type[T]) -> T:
    """`value` as a database would give it back; StorageError where none would take it."""
    try:
        return decode(encode(value), type=type)
    except (MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise StorageError(verb, str(error)) from error
