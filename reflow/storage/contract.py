"""What a storage adapter promises: numbered clauses, each with a test in the conformance suite.

An adapter is a set of atomic transitions over rows of bytes, integers and text. It has no policy, no clock and no
entropy: the time and every id are arguments. `MemoryStorage` is the specification; an adapter that agrees with it on
every clause is right. Verbs may be called concurrently, also through several adapters.

Two words that clauses use. To *wake* a run: where no engine holds it, it is due at `now`, unless it was due earlier;
its status stays. To *tell* a parent: where it has not ended, a message of kind `child` is put into its mailbox, named
after the position of the child; it wakes where it awaits that. For every verb:

X1. Whatever goes wrong surfaces as `StorageError`, with the verb and the driver's text; then nothing has changed.
X2. A verb whose caller is cancelled is carried out as a whole or not at all, and holds up nobody else.
X3. What a verb was answered for is on record, and there for every verb called afterwards, through any adapter.
X4. Bytes, text and integers of 64 bits come back exactly. Text is compared by code points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from reflow._core.journal import Entry, Journal, Message
from reflow._core.status import RunStatus
from reflow.storage.listeners import Wake
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

__all__ = ["SharedClock", "StorageAdapter", "Transactional"]


class StorageAdapter(Protocol):
    """The verbs of a storage. Implement them, run `reflow.testing.conformance`, pass the object to `Engine`."""

    async def initialize(self) -> None:
        """Make the storage ready.

        A1. It may be called again, and by several processes at once; nothing stored is lost.
        A2. Tables of an older version are migrated in place; those of a newer one are left alone and raise
            `StorageSchemaError`.
        A3. What cannot be opened raises `StorageAccessError` or `StorageFormatError` and is left as it is.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections.

        B1. Two engines may share one adapter: it is closed when `close` was called as often as `initialize`. Calling
            it more often is fine.
        B2. Everything stored is there after `initialize` on a new adapter (but for adapters that keep it in memory).
        """
        ...

    async def create_runs(self, runs: Sequence[NewRun]) -> list[tuple[RunRow, bool]]:
        """Store new runs; returns the row of each, and whether this call created it.

        C1. An unknown id: the run is stored as `pending`, due at `due_at`, with no lease and no executions.
        C2. A known id: nothing changes, and the row that is there comes back with False.
        C3. Of several callers with one new id or key, exactly one is told True.
        C4. Input and tags come back exactly.
        C5. A known idempotency key of the same workflow is like a known id. It stays known under that workflow as long
            as its run is there, whatever the run has become.
        C6. Runs are created in this order, also where one call has an id or a key twice; all of them or none.
        """
        ...

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Take up to `limit` due runs of the named (workflow, version) pairs.

        D1. A run is due when `due_at <= now`, whatever its status; pending, sleeping, or running with a lease that is
            over are all alike.
        D2. Only named workflows and versions are claimed; naming none claims nothing.
        D3. Runs of a higher priority come first; those of one priority in order of `due_at`, oldest first.
        D4. A claimed run is `running` under `lease_id`, due again at `lease_until`, and counts one execution and one
            idle claim more.
        D5. Of several claimers exactly one gets a run.
        D6. `next_due_at` is the least `due_at` of the named runs that were not claimed; where `limit` left due ones
            behind, that of one of them will do.
        """
        ...

    async def heartbeat(self, leases: Sequence[Lease], *, lease_until: int) -> list[Lease]:
        """Keep leases until `lease_until`; returns those that are lost.

        E1. A lease that is held is kept, even when its time was over and nobody has taken the run.
        E2. A lease that another claim has replaced, or that has ended, is returned; nothing changes for its run.
        """
        ...

    async def save_progress(self, progress: Progress) -> bool:
        """Write what an engine learned about a run; False, and nothing written, where its lease is lost.

        F1. Entries are appended in order, timers are replaced or removed, by position.
        F2. With an `ending` the run takes its status, due time, output and error, and the lease ends; without one the
            run goes on under its lease. An ending with a `problem` is refused: `StorageError`, whatever else is wrong.
        F3. It is written as a whole or not at all.
        F4. The same entries written again under the same lease are there once. Where another entry is in the place of
            one, the journal has gone on without this writer: False, and nothing changes.
        F5. A foreign, replaced or ended lease: False, and nothing changes.
        F6. Where fewer entries are there than `recorded` says: `StorageError`, and nothing changes.
        F7. With a new entry, a timer or an ending, there are no idle claims any more.
        F8. The `consumed` messages go. Where one of them is not there, and none of the entries was there before:
            `StorageError`, and nothing changes.
        F9. `children` are created like runs of `create_runs`. One that is there already, under the same parent and
            position, is left as it is; where it has ended, the parent is told so, unless such a message is there.
        F10. Where the id or the key of a child belongs to another run, nothing is created and the parent is told so, by
            a message without status, unless there is a message of that name.
        F11. Of a run that ends, the parent is told: its status, and its output or error.
        F12. An `ending` that leaves the run alive, while a message that it awaits is there or its cancellation is
            requested: it wakes.
        F13. With `cancel_delivered` the cancellation is no longer requested; it was delivered.
        F14. With `continued` the run becomes that, one generation on: entries, timers, cut entries and messages of
            children go, and it was never claimed, nor was a cancellation delivered. Events and a cancellation that was
            requested stay.
        F15. Of the `cancelled` runs the cancellation is requested, as by `request_cancel`.
        """
        ...

    async def get_run(self, run_id: str) -> RunRow | None:
        """The row of a run.

        G1. None for an unknown id.
        """
        ...

    async def get_journal(self, run_id: str) -> Journal:
        """All entries, timers and messages of a run, as they were at one moment.

        H1. Entries come in the order in which they were recorded, of this run only; timers by position; messages by
            number.
        H2. An unknown run has an empty journal.
        """
        ...

    async def get_messages(self, run_id: str, *, after: int) -> list[Message]:
        """The messages in the mailbox of a run whose numbers are greater than `after`.

        I1. They come in the order in which they were put there. Numbers begin at 1, and none is given twice.
        I2. An unknown run has none.
        """
        ...

    async def send_message(
        self, run_id: str, name: str, payload: bytes, *, now: int, message_id: str | None = None
    ) -> bool:
        """Put an event into the mailbox of a run; False, and nothing done, where it is unknown or has ended.

        J1. It is there until a write consumes it, or the run is pruned, whatever the run does meanwhile.
        J2. A run that awaits an event of this name wakes; no other does.
        J3. A `message_id` that this run was sent before, consumed or not: True, and nothing changes.
        """
        ...

    async def request_cancel(self, run_id: str, *, now: int) -> bool:
        """Ask for the cancellation of a run; False, and nothing done, where it is unknown or has ended.

        K1. A pending run that was never claimed is `cancelled` at once, and its parent is told.
        K2. Of any other run the cancellation is requested, and it wakes.
        K3. A second request changes nothing, nor does one after the cancellation was delivered.
        """
        ...

    async def check_runs(self, run_ids: Sequence[str]) -> list[RunSignal]:
        """Which of these runs have news.

        L1. Those whose cancellation is requested or that have a message in the mailbox, in this order; no others.
        """
        ...

    async def resume_run(self, run_id: str, *, generation: int, executions: int, keep: int, now: int) -> bool:
        """Let a failed or cancelled run go on; False, and nothing done, for any other, or where it is not as expected.

        M1. It is pending, due at `now`, with no output, no error, no idle claims, and no cancellation requested or
            delivered.
        M2. The first `keep` entries stay. The others move to the cut entries; timers and messages of children go,
            events stay.
        M3. It is as expected where `generation` and `executions` are those of its row. So what `keep` was worked out
            from is what is cut, however often the run went on and failed again meanwhile.
        """
        ...

    async def get_cut_entries(self, run_id: str) -> list[Entry]:
        """The entries that were cut out of the journal of a run.

        N1. Those of the first `resume_run` come first, each time in the order in which they were recorded.
        """
        ...

    async def list_runs(self, filter: RunFilter, *, limit: int, cursor: str | None = None) -> Page:
        """Up to `limit` of the runs that a filter names.

        O1. The run that was created last comes first.
        O2. Only runs that fit everything in the filter come.
        O3. `cursor` is None for the first page, or what the page before said. Pages that follow each other have every
            run that was there all the time exactly once. Any other text: `StorageError`.
        """
        ...

    async def count_runs(self) -> RunCounts:
        """How many runs there are, by workflow and status.

        P1. Each workflow and status that a run has is counted, in order of workflow, then of the status as text.
        P2. `next_due_at` is the least `due_at` of all runs.
        """
        ...

    async def prune(self, *, before: int, statuses: Sequence[RunStatus], limit: int) -> int:
        """Delete up to `limit` ended runs with one of these statuses; returns how many. Call it until that is 0.

        Q1. Runs go that have not been updated since `before`, longest ended first, with all that belongs to them. A run
            that has not ended stays, whatever the statuses say.
        Q2. A child stays as long as its parent has not ended, and a parent as long as one of its children is there.
        Q3. Its id and its idempotency key are unknown afterwards.
        """
        ...

    async def put_schedule(self, schedule: ScheduleRow) -> ScheduleRow:
        """Store a schedule; returns it as it is now.

        R1. An unknown key: it is stored as given.
        R2. A known key: `created_at`, `paused` and `last_run_id` stay; so do `anchor_at` and `next_at` where the
            recurrence is the same text. All else is replaced.
        """
        ...

    async def delete_schedule(self, key: str) -> bool:
        """Remove a schedule; whether there was one.

        S1. True once, then False. The runs that it has started stay.
        """
        ...

    async def pause_schedule(self, key: str, *, paused: bool, now: int) -> bool:
        """Let a schedule rest, or go on; whether there is one.

        T1. Only `paused` and `updated_at` change, and only where it was otherwise before.
        """
        ...

    async def get_schedules(self) -> list[ScheduleRow]:
        """All schedules.

        U1. They come in order of their keys.
        """
        ...

    async def due_schedules(self, workflows: Sequence[str], *, limit: int, now: int) -> DueSchedules:
        """Up to `limit` due schedules of these workflows.

        V1. Those come that are not paused and whose `next_at` is `now` or earlier, oldest first.
        V2. `next_due_at` is the least `next_at` of the named ones that are left and not paused.
        """
        ...

    async def fire_schedule(
        self, key: str, *, expected_next_at: int, next_at: int, runs: Sequence[NewRun], now: int
    ) -> bool:
        """Move a schedule on, and create runs; False, and nothing done, where it is not as expected.

        W1. It is as expected where it is there, not paused, and its `next_at` is `expected_next_at`. So of several
            callers one is told True.
        W2. Its next time is `next_at`, and `updated_at` is `now`. The runs are created as by `create_runs`; the last
            of them is its last run.
        """
        ...

    async def listen(self, wake: Wake) -> None:
        """Until cancelled, call `wake` in this event loop whenever there may be something new to do.

        It is a hint: it may be called for nothing, and who must not miss anything looks now and then as well. It says
        for which run there is news, where a run was sent a message or is to be cancelled and the adapter knows which;
        otherwise None.

        Y1. It is called soon after a verb has stored a run, made one due earlier, or ended one, through whatever
            adapter.
        Y2. Where that verb was called in this event loop and through this adapter, a verb that is called because of the
            hint, to claim or to check runs, sees what it did.
        Y3. It is not called any more once the listener was cancelled.
        """
        ...


@runtime_checkable
class Transactional(Protocol):
    """What an adapter may have beside its verbs: transactions that a step shares with it."""

    def transact(self, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
        """What `body` gave for this run and position, once and for all; called in a worker thread.

        Where no outcome is stored: `body` is called with a connection on which a transaction is open, and what it gives
        is stored in that transaction. Whatever `body` raises undoes it. Where the outcome of a step of this name is
        stored already, that one, and `body` is not called. Where the lease is lost: `StorageError`, and nothing has
        changed. It goes with the entries of the run.
        """
        ...


@runtime_checkable
class SharedClock(Protocol):
    """What an adapter may have beside its verbs, where engines on several machines use it: one clock for all."""

    async def time(self) -> int:
        """The time there, in microseconds since 1970 UTC. Engines and clients go by it, unless they were given a
        clock."""
        ...
