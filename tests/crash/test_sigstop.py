"""Zombies: real processes that are stopped as a whole, are taken for dead, and wake up.

What a frozen process does to others depends on whether it holds the lock on the file. Where it does not, another takes
its runs over, and completes them. Where it does, nobody can write, nor take anything over: the others wait, for a
minute at a time, and what the zombie had begun to write is written when it wakes, as it should be.
"""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from reflow import RunStatus
from tests.crash.fleet import Fleet
from tests.crash.fleet_worker import shared
from tests.crash.ledger import fired, scaled
from tests.crash.nursery import Child, Nursery
from tests.crash.test_sigkill import enqueue, finished, statuses
from tests.crash.test_sigkill_together import rows

pytestmark = [pytest.mark.slow, pytest.mark.anyio, pytest.mark.usefixtures("patience")]

LEASE, LEASE_S = "300ms", 0.3
IN_BODIES = scaled(4, long=30)
# An idle worker has come to the last of them after a few seconds.
POINTS = range(1, 131)
AT_POINTS = scaled(6, long=len(POINTS))
# How a zombie hears that it is one.
REFUSALS = {"a write": "the lease is lost; dropped", "a heartbeat": "another engine has taken it over; dropped here"}


class Zombie:
    """A worker that is to be stopped, and a run that it may be at when it is; then others have the file."""

    def __init__(self, fleet: Fleet, worker: Child, number: int) -> None:
        self.number = number
        self.fleet = fleet
        self.worker = worker

    @property
    def run(self) -> list[tuple[object, ...]]:
        """All that is stored of the run."""
        this = f"reflow_run where run_id = 'run-{self.number}'"
        return rows(self.fleet.database, f"select * from {this}") + rows(
            self.fleet.database, f"select * from reflow_entry where run = (select id from {this}) order by seq"
        )

    async def completed(self, number: int, limit_s: float = 20) -> bool:
        """Whether a run has completed within so many seconds."""
        text = f"select 1 from reflow_run where run_id = 'run-{number}' and status = '{RunStatus.COMPLETED}'"
        with anyio.move_on_after(limit_s):
            while not rows(self.fleet.database, text):  # noqa: ASYNC110 - another process does it
                await anyio.sleep(0.02)
        return bool(rows(self.fleet.database, text))

    def freeze(self) -> None:
        """Stop it, wherever it is."""
        self.worker.send_signal(signal.SIGSTOP)
        self.worker.wait_until_stopped(10)

    def wake(self) -> None:
        """Let it go on."""
        self.worker.send_signal(signal.SIGCONT)

    async def works_on(self) -> None:
        """Alone on the file, it works: on a run that comes now."""
        seen = self.fleet.began_count()
        await enqueue(self.fleet.database, shared, 1, first=self.number + 1)
        assert await self.completed(self.number + 1)
        begun = [body for body in self.fleet.began(seen) if body[0] == f"run-{self.number + 1}"]
        assert [self.worker.pid] * 5 == [pid for *_, pid in begun]

    @property
    def holds_the_lock(self) -> bool:
        """Whether nobody else can write."""
        with closing(sqlite3.connect(self.fleet.database, timeout=0, isolation_level=None)) as db:
            try:
                db.execute("begin immediate")
            except sqlite3.OperationalError:
                return True
            return False


@contextmanager
def zombie(fleet: Fleet, number: int, **settings: object) -> Iterator[Zombie]:
    """A worker; it is awake at the end, or could not stop."""
    with fleet.worker(lease=LEASE, says="INFO", **settings) as worker:
        assert isinstance(worker, Child)
        try:
            yield Zombie(fleet, worker, number)
        finally:
            worker.send_signal(signal.SIGCONT)


async def test_frozen_in_a_body(tmp_path: Path, nursery: Nursery, anyio_backend: str) -> None:
    """[115][117][119] A worker that is stopped in a body for longer than its lease changes nothing when it wakes: the
    run is as the one that took over has left it. It drops the run, and works on for others."""
    fleet = Fleet(tmp_path, anyio_backend, nursery)
    dice = random.Random(20261128)

    for number in range(0, 2 * IN_BODIES, 2):
        await enqueue(fleet.database, shared, 1, first=number)
        seen, told = fleet.began_count(), len(fleet.errors)
        with zombie(fleet, number, pace_s=0.1) as frozen:
            assert await to_thread.run_sync(fleet.wait_for_bodies, seen + dice.randint(1, 5))
            await anyio.sleep(dice.uniform(0.01, 0.08))
            frozen.freeze()
            # Amid a heartbeat, it would hold up everybody: the next test is about that.
            while frozen.holds_the_lock:
                frozen.wake()
                await anyio.sleep(0.002)
                frozen.freeze()
            with fleet.worker(lease=LEASE):
                assert await frozen.completed(number)
            left = frozen.run
            frozen.wake()
            await frozen.works_on()

            assert left == frozen.run
            [refusal, *_] = [what for what, said in REFUSALS.items() if said in fleet.errors[told:]]
            fired("SIGSTOP", f"in a body; when it woke, {refusal} was refused")

    assert {RunStatus.COMPLETED: 2 * IN_BODIES} == statuses(fleet.database)


async def test_frozen_at_a_statement(tmp_path: Path, nursery: Nursery, anyio_backend: str) -> None:
    """[117][120] A worker that is stopped at a statement of SQL, in its threads that write and read, changes nothing of
    what others did meanwhile, and begins at most the one body that it was about to begin. Where it holds the lock, they
    can do nothing, and go on when it wakes.
    """
    fleet = Fleet(tmp_path, anyio_backend, nursery)
    points = random.Random(anyio_backend).sample(POINTS, AT_POINTS)

    for number, point in zip(range(0, 2 * AT_POINTS, 2), points, strict=True):
        await enqueue(fleet.database, shared, 1, first=number)
        with zombie(fleet, number, stops_at=point) as frozen:
            frozen.worker.wait_until_stopped(20)
            where = fleet.errors.splitlines()[-1].partition("\t")[0]
            is_locked, is_over, left = frozen.holds_the_lock, await frozen.completed(number, 0), frozen.run
            following = (f"run-{number}", str(len(left) - 1))
            with fleet.worker(lease=LEASE):
                has_gone_on = await frozen.completed(number, 4 * LEASE_S if is_locked else 20)
                assert (is_over or not is_locked) == has_gone_on
                if is_locked:
                    assert left == frozen.run
                    frozen.wake()
                    assert await frozen.completed(number)
            left, done, seen = frozen.run, finished(fleet.database), fleet.began_count()
            frozen.wake()
            await frozen.works_on()

            assert left == frozen.run
            # It could not know yet, where it was about to begin the next body: that one, and no other, may run again.
            again = [(run, position) for run, position, _, _ in fleet.began(seen) if (run, position) in done]
            assert again in ([], [following])
            fired("SIGSTOP", where + (", with the lock" if is_locked else ""))

    assert {RunStatus.COMPLETED: 2 * AT_POINTS} == statuses(fleet.database)
    assert [("ok",)] == rows(fleet.database, "pragma quick_check")
