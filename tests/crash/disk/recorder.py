"""The process whose disk misbehaves: `python -m tests.crash.disk.recorder FOLDER LOG BACKEND DURABILITY PAGES
[FAULT AT LASTS]`.

It works in FOLDER, with what is there, until all runs have ended, and writes to LOG what happened to the files. Halfway
it closes the file and opens it again. With FAULT, operations fail until Reflow has been told of it three times; then
the disk is well again. The last line of its output is how many operations failed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from reflow import SQLiteStorage, StorageError
from reflow.storage.records import NewRun, Progress
from tests.crash.disk import driver, model, workload
from tests.crash.disk.faults import Trouble
from tests.crash.disk.vfs import Disk
from tests.support.workflows import effects
from tests.support.world import World

_ERRORS_UNTIL_WELL = 3


class Witness:
    """Passes verbs on to a storage, and notes what was asked for, what was acknowledged and what failed."""

    def __init__(self, storage: SQLiteStorage, disk: Disk) -> None:
        self._storage = storage
        self._disk = disk
        self.errors = 0

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._storage, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await verb(*args, **kwargs)
            except StorageError:
                self.errors += 1
                if self.errors >= _ERRORS_UNTIL_WELL:
                    self._disk.heal()
                raise

        return call

    async def create_runs(self, runs: Sequence[NewRun]) -> Any:
        answer = await self.__getattr__("create_runs")(runs)
        for run in runs:
            self._disk.note(model.Enqueued(run.run_id))
        return answer

    async def save_progress(self, progress: Progress) -> bool:
        asked = (progress.lease.run_id, progress.entries)
        self._disk.note(model.Saved(*asked, "none yet"))
        try:
            held: bool = await self.__getattr__("save_progress")(progress)
        except StorageError:
            self._disk.note(model.Saved(*asked, "refused"))
            raise
        if held:
            self._disk.note(model.Saved(*asked, "done"))
        return held

    async def found(self) -> list[model.Record]:
        """What is stored: as if it had just been acknowledged."""
        found: list[model.Record] = []
        for row in await workload.rows_of(self):  # type: ignore[arg-type]
            journal = await self.get_journal(row.run_id)
            found += [model.Enqueued(row.run_id), model.Saved(row.run_id, journal.entries, "done")]
        return found


async def main(folder: Path, disk: Disk, durability: Any) -> None:
    """Two lives of a process."""
    witness = Witness(SQLiteStorage(folder / workload.PATH, durability=durability), disk)
    world = World(witness)  # type: ignore[arg-type]
    found: list[model.Record] | None = None
    for rounds in (1, 30):
        await workload.insisting(witness.initialize)
        found = await workload.insisting(witness.found) if found is None else found
        engine = workload.opened_engine(world)
        await workload.started(engine)
        await workload.finished(world, engine, rounds)
        if rounds > 1:
            assert [] == await workload.unlike(world)
        await witness.close()
    assert len(effects.ended) == len(set(effects.ended)), "a finished body ran again"
    # It was there from the beginning.
    disk.log[:0] = found or []


if __name__ == "__main__":
    folder, log, backend, durability, pages, *trouble = sys.argv[1:]
    # That a verb is tried again is what this is about, and is told as a warning.
    logging.getLogger("reflow").setLevel(logging.ERROR)
    disk = Disk()
    driver.install(int(pages))
    disk.begin(Trouble(trouble[0], int(trouble[1]), trouble[2] == "lasts") if trouble else None)  # type: ignore[arg-type]
    anyio.run(main, Path(folder), disk, durability, backend=backend)
    Path(log).write_bytes(model.encoded(disk.log))
    print(disk.struck)
