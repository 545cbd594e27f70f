"""What Reflow promises, checked from outside while engines work on one storage.

kept        what is in a journal stays there, as it is and in its order; one entry for each position
one only    only the engine that holds the lease is told that its write was accepted
done        an engine that holds the lease starts no body that has an entry
taken once  an entry is written with the messages that it took, and no other takes them again
one child   there is one run for each place of a parent
final       how a run has ended stays
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from reflow._core.journal import Entry
from reflow._engine.perform import StepInfo
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Claimed, Progress, RunFilter, RunRow
from reflow.testing.faults import Owner

__all__ = ["Promises"]

_ALL = 1_000_000


class Promises:
    """Told of everything that was carried out; raises AssertionError where a promise is broken."""

    def __init__(self, storage: StorageAdapter) -> None:
        self.began: list[StepInfo] = []
        self._storage = storage
        self._holders: dict[str, tuple[Owner, str]] = {}
        # By run and generation.
        self._journals: dict[tuple[str, int], list[Entry]] = {}
        self._consumed: dict[str, set[int]] = {}
        self._ends: dict[str, RunRow] = {}

    def holds(self, owner: Owner, run_id: str) -> str | None:
        """The lease under which this engine holds the run, for all that the storage has told."""
        holder, lease_id = self._holders.get(run_id, (None, None))
        return lease_id if holder is owner else None

    def body_begins(self, info: StepInfo, lease: str | None) -> None:
        """A body begins; `lease` is the one under which its engine holds the run, None where it is not sure."""
        self.began.append(info)
        known = self._journals.get((info.run_id, info.generation), [])
        if lease is not None and any(entry.position == info.position for entry in known):
            raise AssertionError(
                f"done: step {info.step!r} at {info.position} of {info.run_id} has an entry, and began"
            )

    async def carried_out(self, owner: Owner, verb: str, subject: Any, result: Any) -> None:
        """A verb was carried out, with this result."""
        match subject, result:
            case _, Claimed(runs=runs):
                for row in runs:
                    assert row.lease_id is not None, "it was claimed"
                    self._holders[row.run_id] = owner, row.lease_id
            case Progress(), bool():
                await self._written(owner, subject, accepted=result)
            case _:
                pass

    async def _written(self, owner: Owner, progress: Progress, *, accepted: bool) -> None:
        run_id = progress.lease.run_id
        held = self._holders.get(run_id) == (owner, progress.lease.lease_id)
        row = await self._storage.get_run(run_id)
        assert row is not None, "kept: the run is gone"
        if not accepted:
            if held:
                raise AssertionError(f"one only: {owner} holds {run_id}, and was refused")
            return
        if not held:
            raise AssertionError(f"one only: a write of {owner} for {run_id} was accepted under a lease that is over")
        ending = progress.ending
        if ending is not None:
            del self._holders[run_id]
        if ending is not None and ending.continued is not None:
            return
        known = self._journals.get((run_id, row.generation), [])
        found = await self._entries(row)
        # Of a run that is given back before its journal was loaded, nothing is said of it.
        if found != (known[: progress.recorded] + progress.entries if progress.entries else known):
            raise AssertionError(f"kept: of {run_id} {_told(known)} was known and {_told(progress.entries)} written")
        self._keeps(row, known, found)
        if len(found) > len(known):
            taken = self._consumed.setdefault(run_id, set())
            if twice := taken & set(progress.consumed):
                raise AssertionError(f"taken once: {run_id} has taken message {min(twice)} again")
            taken.update(progress.consumed)
        self._journals[run_id, row.generation] = found

    async def at_the_end(self) -> dict[str, RunRow]:
        """Check what is there when all has ended; returns the rows."""
        rows = (await self._storage.list_runs(RunFilter(), limit=_ALL)).rows
        for row in rows:
            known = self._journals.get((row.run_id, row.generation), [])
            found = await self._entries(row)
            self._keeps(row, known, found)
            if len(found) != len(known):
                raise AssertionError(f"kept: the journal of {row.run_id} has what nobody was told of")
        places = Counter((row.parent, row.parent_position) for row in rows if row.parent is not None)
        for (parent, position), count in places.items():
            if count > 1:
                raise AssertionError(f"one child: {parent} has {count} at {position}")
        return {row.run_id: row for row in rows}

    async def ended(self) -> None:
        """Check that what has ended stays as it is."""
        for row in (await self._storage.list_runs(RunFilter(), limit=_ALL)).rows:
            end = self._ends.get(row.run_id)
            if end is not None and (end.status, end.output, end.error) != (row.status, row.output, row.error):
                raise AssertionError(f"final: {row.run_id} was {end.status}, and is {row.status} now")
            if row.status.is_terminal:
                self._ends[row.run_id] = row

    async def _entries(self, row: RunRow) -> list[Entry]:
        return (await self._storage.get_journal(row.run_id)).entries

    def _keeps(self, row: RunRow, known: list[Entry], found: list[Entry]) -> None:
        if found[: len(known)] != known:
            raise AssertionError(f"kept: the journal of {row.run_id} was {_told(known)}, and is {_told(found)}")
        if twice := [position for position, count in Counter(e.position for e in found).items() if count > 1]:
            raise AssertionError(f"kept: {row.run_id} has two entries at {twice[0]}")


def _told(entries: list[Entry]) -> str:
    return f"[{', '.join(entry.position or entry.kind for entry in entries)}]"
