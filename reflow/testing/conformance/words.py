"""The words of the cases: rows to store, verbs with the usual arguments, and calls that are made at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar, cast

from anyio import create_task_group
from msgspec.structs import replace

from reflow import RunStatus, StorageAdapter, StorageError
from reflow._core.journal import Entry, Journal, Message, MessageKind, Timer
from reflow.storage.records import Claimed, Ending, Lease, NewRun, Progress, RunRow, ScheduleRow
from reflow.testing.conformance.expectation import expect

__all__ = [
    "ALL_BYTES",
    "LEASE_UNTIL",
    "LEASE_US",
    "NOT_A_NUMBER",
    "NOT_TEXT",
    "NOW",
    "Another",
    "Awaited",
    "bound",
    "claim",
    "create",
    "end",
    "entry",
    "event",
    "failing",
    "get",
    "hold",
    "ids",
    "new_run",
    "opened",
    "park",
    "progress",
    "refusal",
    "resume",
    "schedule",
    "state",
    "timer",
    "together",
]

T = TypeVar("T")

Another: TypeAlias = Callable[[], StorageAdapter]
"""Makes an adapter on the same data, not initialized yet: a new one, or the same again where the data is in it."""

Awaited: TypeAlias = tuple[tuple[MessageKind, str], ...]

NOW = 1_750_000_000_000_000
LEASE_US = 30_000_000
LEASE_UNTIL = NOW + LEASE_US
ALL_BYTES = bytes(range(256))
NOT_TEXT = cast(str, None)
NOT_A_NUMBER = cast(int, None)


def new_run(
    run_id: str = "r",
    *,
    workflow: str = "w",
    version: int = 1,
    input: bytes = b"in",
    due_at: int = NOW,
    created_at: int = NOW,
    **more: Any,
) -> NewRun:
    """A run of workflow `w`, due now."""
    return NewRun(run_id, workflow, version, 1, input, due_at, created_at, **more)


def entry(position: str, *, payload: bytes = b"value") -> Entry:
    """A step that completed."""
    return Entry(position, "step", "work", False, payload, 1, NOW, NOW + 1)


def timer(position: str, *, due_at: int = NOW + 50, attempts: int = 0, failure: bytes | None = None) -> Timer:
    """A step that waits for its next attempt."""
    return Timer(position, "step", "work", due_at, attempts, NOW, failure)


def event(seq: int, name: str, payload: bytes = b"") -> Message:
    """A message that was sent."""
    return Message(seq, MessageKind.EVENT, name, payload)


def schedule(key: str = "s", *, workflow: str = "w", next_at: int = NOW, **more: Any) -> ScheduleRow:
    """A schedule of workflow `w`, due now."""
    row = ScheduleRow(key, workflow, None, b"in", "every hour", "skip", "allow", NOW - 9, next_at, NOW - 9, NOW - 9)
    return replace(row, **more)


def progress(
    lease: Lease,
    *,
    recorded: int = 0,
    entries: Sequence[Entry] = (),
    timers: Sequence[Timer] = (),
    settled: Sequence[str] = (),
    ending: Ending | None = None,
    consumed: Sequence[int] = (),
    children: Sequence[NewRun] = (),
    cancelled: Sequence[str] = (),
    cancel_delivered: bool = False,
    now: int = NOW,
) -> Progress:
    """A write under `lease`."""
    return Progress(
        lease=lease,
        now=now,
        recorded=recorded,
        entries=list(entries),
        timers=list(timers),
        settled=list(settled),
        ending=ending,
        consumed=list(consumed),
        children=list(children),
        cancelled=list(cancelled),
        cancel_delivered=cancel_delivered,
    )


async def create(storage: StorageAdapter, run: NewRun) -> tuple[RunRow, bool]:
    """Create one run; its row, and whether it was created."""
    [answer] = await storage.create_runs([run])
    return answer


async def claim(
    storage: StorageAdapter,
    lease_id: str = "first",
    *,
    workflows: Sequence[tuple[str, int]] = (("w", 1),),
    limit: int = 100,
    now: int = NOW,
    until: int = LEASE_UNTIL,
) -> Claimed:
    """Claim what is due of workflow `w`."""
    return await storage.claim_runs(workflows, limit=limit, lease_id=lease_id, now=now, lease_until=until)


async def hold(storage: StorageAdapter, run_id: str = "r", *, until: int = LEASE_UNTIL, due_at: int = 0) -> Lease:
    """Create a run and claim it, and no other: it is the oldest."""
    await create(storage, new_run(run_id, due_at=due_at))
    claimed = await claim(storage, "first", limit=1, until=until, now=due_at)
    expect([run_id], ids(claimed))
    return Lease(run_id, "first")


async def end(storage: StorageAdapter, run_id: str, ending: Ending, *, now: int = NOW) -> None:
    """Create a run, claim it and end it so."""
    lease = await hold(storage, run_id)
    expect(True, await storage.save_progress(progress(lease, ending=ending, now=now)))


async def park(
    storage: StorageAdapter,
    lease: Lease,
    *events: str,
    awaits: Awaited = (),
    status: RunStatus = RunStatus.WAITING,
    due_at: int | None = None,
    now: int = NOW,
) -> None:
    """Let a run wait for events of these names, and for what else it `awaits`."""
    awaited = (*awaits, *((MessageKind.EVENT, name) for name in events))
    recorded = len((await storage.get_journal(lease.run_id)).entries)
    ending = Ending(status, due_at, awaits=awaited)
    expect(True, await storage.save_progress(progress(lease, recorded=recorded, ending=ending, now=now)))


async def resume(storage: StorageAdapter, run_id: str = "r", *, keep: int = 0, now: int = NOW) -> bool:
    """Let a run go on, as it is; an unknown one as if it had never run."""
    row = await storage.get_run(run_id)
    generation, executions = (row.generation, row.executions) if row else (0, 0)
    return await storage.resume_run(run_id, generation=generation, executions=executions, keep=keep, now=now)


async def get(storage: StorageAdapter, run_id: str = "r") -> RunRow:
    """The row of a run that exists."""
    row = await storage.get_run(run_id)
    if row is None:
        raise AssertionError(f"run {run_id!r} is not there")
    return row


async def state(storage: StorageAdapter, run_id: str) -> tuple[RunRow, Journal]:
    """All that is stored of a run that exists."""
    return await get(storage, run_id), await storage.get_journal(run_id)


def ids(claimed: Claimed) -> list[str]:
    """The run ids of a claim, in order."""
    return [row.run_id for row in claimed.runs]


async def refusal(storage: StorageAdapter, write: Progress) -> str | None:
    """The verb that a refused write names; None where it was saved."""

    async def save() -> None:
        expect(True, await storage.save_progress(write))

    return await failing(save)


async def failing(call: Callable[[], Awaitable[object]]) -> str | None:
    """The verb of the StorageError that `call` raises; None where it raises none."""
    try:
        await call()
    except StorageError as error:
        return error.verb
    return None


def bound(function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> Callable[[], Awaitable[T]]:
    """A call to be made later."""
    return lambda: function(*args, **kwargs)


async def together(*calls: Callable[[], Awaitable[T]]) -> list[T]:
    """The answers of calls that are made at once, each in a task of its own, started in this order; where some fail,
    the first error, once all are done."""
    answers: dict[int, T] = {}
    errors: list[Exception] = []

    async def answer(number: int, call: Callable[[], Awaitable[T]]) -> None:
        try:
            answers[number] = await call()
        except Exception as error:
            errors.append(error)

    async with create_task_group() as tasks:
        for number, call in enumerate(calls):
            tasks.start_soon(answer, number, call)
    if errors:
        raise errors[0]
    return [answers[number] for number in range(len(calls))]


@asynccontextmanager
async def opened(adapter: StorageAdapter) -> AsyncGenerator[StorageAdapter, None]:
    """Initialize an adapter, and close it in the end."""
    await adapter.initialize()
    try:
        yield adapter
    finally:
        await adapter.close()
