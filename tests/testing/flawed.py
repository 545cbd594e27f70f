"""The adapter of examples/own_storage.py with one flaw, each of them one that somebody could overlook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, TypeAlias

from anyio import sleep_forever
from anyio.lowlevel import checkpoint
from msgspec import Struct
from msgspec.structs import replace

from examples.own_storage import LogStorage
from reflow import MemoryStorage, StorageError
from reflow.storage.records import Claimed, Lease, Page, RunCounts, RunFilter

__all__ = ["FLAWS", "Flaw", "FlawedStorage"]

Do: TypeAlias = Callable[..., Awaitable[Any]]


class Flaw(Struct, frozen=True):
    """A verb that is carried out by `call`, of the storage, the verb as it ought to be, and the arguments by name; and
    a clause that is broken by that."""

    clause: str
    verb: str
    what: str
    call: Callable[[LogStorage, Do, dict[str, Any]], Awaitable[Any]]

    def __str__(self) -> str:
        return f"{self.clause}: {self.verb} {self.what}"


class FlawedStorage(LogStorage):
    """A `LogStorage` with a flaw."""

    def __init__(self, path: Path, flaw: Flaw) -> None:
        super().__init__(path)
        self._flaw = flaw

    async def listen(self, wake: Callable[[], object]) -> None:
        """Call `wake`, unless that is the flaw."""
        if self._flaw.verb == "listen":
            await sleep_forever()
        await super().listen(wake)

    async def _catch_up(self, file: Any) -> None:
        """Carry out what others have added, unless that is the flaw."""
        if self._flaw.verb != "_catch_up":
            await super()._catch_up(file)

    async def _carry_out(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        do = partial(super()._carry_out, verb)
        if verb != self._flaw.verb:
            return await do(*args, **kwargs)
        arguments = signature(getattr(MemoryStorage, verb)).bind(self, *args, **kwargs).arguments
        return await self._flaw.call(self, do, {name: value for name, value in arguments.items() if name != "self"})


def asks(clause: str, verb: str, what: str, **changes: Callable[[Any], Any]) -> Flaw:
    """One that carries out the verb with other arguments than it was given."""

    async def call(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
        changed = {name: change(arguments[name]) for name, change in changes.items() if name in arguments}
        return await do(**{**arguments, **changed})

    return Flaw(clause, verb, what, call)


def writes(clause: str, what: str, **changes: Any) -> Flaw:
    """One that writes less than it was given."""
    return asks(clause, "save_progress", what, progress=lambda progress: replace(progress, **changes))


def tells(clause: str, verb: str, what: str, change: Callable[[Any], Any]) -> Flaw:
    """One that gives another answer than the right one."""

    async def call(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
        return change(await do(**arguments))

    return Flaw(clause, verb, what, call)


def skips(clause: str, verb: str, answer: Any) -> Flaw:
    """One that answers and does nothing."""

    async def call(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
        return answer

    return Flaw(clause, verb, "does nothing", call)


async def without_fence(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Write under whatever lease the run has."""
    progress = arguments["progress"]
    row = await storage.get_run(progress.lease.run_id)
    lease = Lease(row.run_id, row.lease_id) if row and row.lease_id else progress.lease
    return await do(replace(progress, lease=lease))


async def after_the_fence(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Look at what is to be written only where the lease is held."""
    progress = arguments["progress"]
    row = await storage.get_run(progress.lease.run_id)
    return row is not None and row.lease_id == progress.lease.lease_id and await do(progress)


async def in_two_writes(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Write the entries first, and then how it ends."""
    progress = arguments["progress"]
    saved = await do(replace(progress, ending=None))
    await checkpoint()
    return saved and await do(progress)


async def behind_what_is_there(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Append entries, whatever there should be before them."""
    progress = arguments["progress"]
    entries = (await storage.get_journal(progress.lease.run_id)).entries
    return await do(replace(progress, recorded=len(entries)))


async def leaving_out_what_is_there(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Append what is beyond the entries that are there, whatever these say."""
    progress = arguments["progress"]
    known = len((await storage.get_journal(progress.lease.run_id)).entries) - progress.recorded
    entries = progress.entries[max(known, 0) :]
    return await do(replace(progress, recorded=progress.recorded + max(known, 0), entries=entries))


async def whatever_was_expected(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Fire a schedule whenever it is due."""
    due = {row.key: row.next_at for row in await storage.get_schedules()}
    return await do(**{**arguments, "expected_next_at": due.get(arguments["key"], 0)})


async def as_it_is_now(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Resume a run whatever it was when it was looked at."""
    row = await storage.get_run(arguments["run_id"])
    now = {"generation": row.generation, "executions": row.executions} if row else {}
    return await do(**{**arguments, **now})


async def with_an_error_of_its_own(storage: LogStorage, do: Do, arguments: dict[str, Any]) -> Any:
    """Let the error of another library through."""
    try:
        return await do(**arguments)
    except StorageError as error:
        raise ValueError("this is how the driver says it") from error


def as_text(answers: list[Any]) -> list[Any]:
    """Rows as a careless adapter reads them: a status is a text."""
    return [(replace(row, status=str(row.status)), created) for row, created in answers]


FLAWS = [
    tells("C1", "create_runs", "gives a status as text", as_text),
    tells("C2", "create_runs", "says that all are new", lambda answers: [(row, True) for row, _ in answers]),
    asks(
        "C4",
        "create_runs",
        "sorts tags",
        runs=lambda runs: [replace(run, tags=tuple(sorted(run.tags))) for run in runs],
    ),
    asks("C5", "create_runs", "has no keys", runs=lambda runs: [replace(run, idempotency_key=None) for run in runs]),
    asks("D1", "claim_runs", "comes early", now=lambda now: now + 1),
    asks("D2", "claim_runs", "takes all versions", workflows=lambda pairs: [(w, v) for w, _ in pairs for v in (1, 2)]),
    tells("D3", "claim_runs", "gives the youngest first", lambda found: Claimed(found.runs[::-1], found.next_due_at)),
    asks("D4", "claim_runs", "gives a longer lease", lease_until=lambda until: until + 1),
    tells("D6", "claim_runs", "knows of no next one", lambda found: Claimed(found.runs, None)),
    skips("E1", "heartbeat", []),
    tells("E2", "heartbeat", "says that none is lost", lambda lost: []),
    writes("F1", "drops timers", timers=[]),
    writes("F2", "does not end", ending=None),
    Flaw("F2", "save_progress", "asks for the lease first", after_the_fence),
    Flaw("F3", "save_progress", "writes twice", in_two_writes),
    Flaw("F4", "save_progress", "appends again what is there", behind_what_is_there),
    Flaw("F4", "save_progress", "takes any entry for the same", leaving_out_what_is_there),
    Flaw("F5", "save_progress", "has no fence", without_fence),
    Flaw("F6", "save_progress", "closes gaps", behind_what_is_there),
    writes("F8", "takes no message", consumed=[]),
    writes("F9", "starts no child", children=[]),
    writes("F13", "cancels again and again", cancel_delivered=False),
    tells("H1", "get_journal", "has the latest first", lambda found: replace(found, entries=found.entries[::-1])),
    asks("I1", "get_messages", "begins at the first", after=lambda after: 0),
    skips("J1", "send_message", True),
    skips("J2", "send_message", True),
    asks("J3", "send_message", "forgets ids", message_id=lambda message_id: None),
    skips("K2", "request_cancel", True),
    skips("L1", "check_runs", []),
    asks("M2", "resume_run", "keeps nothing", keep=lambda keep: 0),
    Flaw("M3", "resume_run", "resumes whenever it is asked", as_it_is_now),
    tells("N1", "get_cut_entries", "has the latest first", lambda entries: entries[::-1]),
    tells("O1", "list_runs", "has the oldest first", lambda page: Page(page.rows[::-1], page.cursor)),
    asks("O2", "list_runs", "looks at no filter", filter=lambda filter: RunFilter()),
    asks("O3", "list_runs", "begins anew with each page", cursor=lambda cursor: None),
    tells("P2", "count_runs", "knows of no due one", lambda found: RunCounts(found.counts, None)),
    asks("Q1", "prune", "takes the young too", before=lambda before: 2**62),
    skips("S1", "delete_schedule", True),
    skips("T1", "pause_schedule", True),
    tells("U1", "get_schedules", "sorts backwards", lambda rows: rows[::-1]),
    asks("V1", "due_schedules", "comes early", now=lambda now: now + 1),
    Flaw("W1", "fire_schedule", "fires whenever it is asked", whatever_was_expected),
    Flaw("X1", "get_run", "raises what it likes", with_an_error_of_its_own),
    Flaw("X2", "save_progress", "writes twice", in_two_writes),
    tells("X4", "get_run", "trims text", lambda row: row and replace(row, run_id=row.run_id.strip())),
    *(skips(clause, "_catch_up", None) for clause in ("B2", "C3", "D5", "X3")),
    skips("Y1", "listen", None),
]
