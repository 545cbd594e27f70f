"""What must be true of the files that a power cut has left."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

from anyio import fail_after
from msgspec import Struct

from reflow import SQLiteStorage
from reflow._core.journal import Entry
from tests.crash.disk import model, workload
from tests.support.workflows import effects
from tests.support.world import World

__all__ = ["Lost", "judge", "lay_down"]

# On a busy machine; it takes some hundredths of a second.
_GOES_ON_WITHIN_S = 60


class Lost(Struct, frozen=True):
    """What was acknowledged and is not there: how many runs and entries."""

    runs: int
    entries: int


async def judge(folder: Path, log: Sequence[model.Record], dice: Random) -> Lost:
    """Cut the power after what the log tells, open what is left, and let the runs go on to their ends.

    Raises `AssertionError` where something is there that cannot be. What is not there any more is returned: whether
    it may be lost, the caller knows.
    """
    lay_down(folder, model.after_a_cut(log, dice))
    if dice.random() < 0.5:
        # Shared memory is no part of what is stored: whatever the disk has of it must not matter.
        (folder / f"{workload.PATH}-shm").write_bytes(dice.randbytes(32_768))

    storage = SQLiteStorage(folder / workload.PATH, durability="process")
    world = World(storage)
    await storage.initialize()
    try:
        # Before the runs go on: an engine does not give up on a file that cannot be read.
        _is_whole(folder)
        rows = await workload.rows_of(storage)
        there = [await _entries(storage, row.run_id) for row in rows]
        lost = _compared(log, {row.run_id for row in rows}, {place: entry for run in there for place, entry in run})
        effects.clear()
        # All leases are over.
        world.clock.advance("1d")
        engine = workload.opened_engine(world)
        with fail_after(_GOES_ON_WITHIN_S):
            await workload.started(engine)
            await workload.finished(world, engine)
        assert [] == await workload.unlike(world)
        finished = {place for run in there for place, _ in run}
        assert set() == finished & {(run_id, position) for run_id, _, position in effects.began}
        _is_whole(folder)
    finally:
        await storage.close()
    return lost


def _is_whole(folder: Path) -> None:
    with closing(sqlite3.connect(folder / workload.PATH)) as db:
        assert [("ok",)] == db.execute("pragma integrity_check").fetchall()


def lay_down(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files that a power cut has left."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


_Place = tuple[str, str]


async def _entries(storage: SQLiteStorage, run_id: str) -> list[tuple[_Place, Entry]]:
    journal = await storage.get_journal(run_id)
    return [((run_id, entry.position), entry) for entry in journal.entries]


def _compared(log: Sequence[model.Record], runs: set[str], there: dict[_Place, Entry]) -> Lost:
    """What is lost of what was acknowledged. All that is there must be the beginning of what was asked for."""
    # What was refused when a sync failed may turn out to be there all the same: the log cannot tell.
    is_sure = not any(isinstance(record, model.Synced) and record.failed for record in log)
    asked: dict[_Place, Entry] = {}
    acknowledged: set[_Place] = set()
    enqueued: set[str] = set()
    for record in log:
        match record:
            case model.Enqueued(run_id):
                enqueued.add(run_id)
            case model.Saved(run_id, entries, "refused"):
                for entry in entries if is_sure else ():
                    del asked[run_id, entry.position]
            case model.Saved(run_id, entries, answer):
                places = {(run_id, entry.position): entry for entry in entries}
                asked |= places
                if answer == "done":
                    acknowledged |= places.keys()
    # Transactions are carried out in the order of the calls, so this holds for all runs together; where refusals cannot
    # be sorted out, for each.
    for run_id in {None} if is_sure else runs:
        wanted, found = ([each for each in places.items() if run_id in (None, each[0][0])] for places in (asked, there))
        assert dict(wanted[: len(found)]) == dict(found)
    return Lost(len(enqueued - runs), len(acknowledged - there.keys()))
