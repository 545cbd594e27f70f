"""What a storage adapter promises: numbered clauses, each with a test in the conformance suite.

An adapter is a set of atomic transitions over rows of bytes, integers and text. It has no policy, no clock and no
entropy: the time and every id are arguments. `MemoryStorage` is the specification; an adapter that agrees with it on
every clause is right. Verbs may be called concurrently, also through several adapters. For every verb:

X1. Whatever goes wrong surfaces as `StorageError`, with the verb and the driver's text; then nothing has changed.
X2. A verb whose caller is cancelled is carried out as a whole or not at all, and holds up nobody else.
X3. What a verb was answered for is on record, and there for every verb called afterwards, through any adapter.
X4. Bytes, text and integers of 64 bits come back exactly. Text is compared by code points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from reflow._core.journal import Journal
from reflow.storage.records import Claimed, Lease, NewRun, Progress, RunRow

__all__ = ["StorageAdapter"]


class StorageAdapter(Protocol):
    """The verbs of a storage. Implement them, run the conformance suite, pass the object to `Engine`."""

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

    async def create_run(self, run: NewRun) -> tuple[RunRow, bool]:
        """Store a new run; returns its row and whether this call created it.

        C1. An unknown id: the run is stored as `pending`, due at `due_at`, with no lease and no executions.
        C2. A known id: nothing changes, and the row that is there comes back with False.
        C3. Of several callers with one new id, exactly one is told True.
        C4. The input comes back byte for byte.
        """
        ...

    async def claim_runs(
        self, workflows: Sequence[tuple[str, int]], *, limit: int, lease_id: str, now: int, lease_until: int
    ) -> Claimed:
        """Take up to `limit` due runs of the named (workflow, version) pairs.

        D1. A run is due when `due_at <= now`, whatever its status; pending, sleeping, or running with a lease that is
            over are all alike.
        D2. Only named workflows and versions are claimed; naming none claims nothing.
        D3. Runs come in order of `due_at`, oldest first.
        D4. A claimed run is `running` under `lease_id`, due again at `lease_until`, and counts one execution more.
        D5. Of several claimers exactly one gets a run.
        D6. `next_due_at` is the least `due_at` of the named runs that were not claimed; at or before `now` when
            `limit` left due ones behind.
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
            run goes on under its lease. `running` is no ending.
        F3. It is written as a whole or not at all.
        F4. The same entries written again under the same lease are there once.
        F5. A foreign, replaced or ended lease: False, and nothing changes.
        F6. Where fewer entries are there than `recorded` says: `StorageError`, and nothing changes.
        """
        ...

    async def get_run(self, run_id: str) -> RunRow | None:
        """The row of a run.

        G1. None for an unknown id.
        """
        ...

    async def get_journal(self, run_id: str) -> Journal:
        """All entries and timers of a run.

        H1. Entries come in the order in which they were recorded, of this run only; timers by position.
        H2. An unknown run has an empty journal.
        """
        ...

    async def listen(self, wake: Callable[[], object]) -> None:
        """Until cancelled, call `wake` in this event loop whenever there may be something new to do.

        It is a hint: it may be called for nothing, and who must not miss anything looks now and then as well.

        W1. It is called soon after a verb has stored a run or made one due earlier, through whatever adapter.
        W2. Where that verb was called in this event loop and through this adapter, a claim that is made because of the
            hint finds the run.
        W3. It is not called any more once the listener was cancelled.
        """
        ...
