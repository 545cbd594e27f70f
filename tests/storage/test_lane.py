"""The lane: what shares a transaction, what a failure costs, and what is carried out when somebody is interrupted."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar

import anyio
import pytest
from anyio import CancelScope, create_task_group, from_thread, to_thread, wait_all_tasks_blocked
from anyio.lowlevel import current_token

from reflow import StorageError
from reflow.storage._sql.lane import Lane
from reflow.storage._sqlite import connection
from reflow.storage._sqlite.session import FileSession

pytestmark = pytest.mark.anyio
T = TypeVar("T")
native = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Line:
    """A lane to a table of numbers, and what happens in its thread."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        self.db.execute("pragma journal_mode = wal")
        self.db.execute("create table number (n integer primary key)")
        self.outside = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        self.said: list[str] = []
        self.db.set_trace_callback(self.said.append)
        self.lane = Lane(FileSession(self.db, path, "begin immediate"), "testing")
        self.said.clear()

    async def add(self, number: int) -> int:
        """Insert a number."""
        return await self.lane.submit(f"add {number}", _insert, number)

    async def do(self, name: str, what: Callable[[Connection], T]) -> T:
        """Carry out a job of another kind."""
        return await self.lane.submit(name, lambda db, asked: [what(db) for _ in asked], None)

    @property
    def stored(self) -> list[int]:
        """The numbers that are committed."""
        return [number for (number,) in self.outside.execute("select n from number order by n")]

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return self.said.count("commit")


def _insert(db: Connection, numbers: Sequence[int]) -> list[int]:
    for number in numbers:
        db.execute("insert into number values (?)", (number,))
    return list(numbers)


class Gate:
    """A job that stops the lane's thread until it is let through."""

    def __init__(self) -> None:
        self._loop = current_token()
        self._reached = anyio.Event()
        self._open = threading.Event()

    def __call__(self, db: Connection) -> str:
        """In the thread."""
        from_thread.run_sync(self._reached.set, token=self._loop)
        assert self._open.wait(20)
        return "through"

    async def reached(self) -> None:
        """Wait until the thread stands before the gate, and everybody else waits too."""
        await self._reached.wait()
        await wait_all_tasks_blocked()

    def let_through(self) -> None:
        """Open it."""
        self._open.set()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """An empty table."""
    line = Line(tmp_path / "lane.db")
    yield line
    line.lane.close()
    line.outside.close()


# ---- sharing --------------------------------------------------------------------------------------------------------


async def test_verbs_called_at_once_share_a_transaction(line: Line):
    """Fifty verbs that are called at once are committed in one transaction."""
    async with create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(line.add, number)

    assert (1, list(range(50))) == (line.commits, line.stored)


async def test_statistics_count_commits_and_verbs(line: Line):
    """The lane tells how many transactions it has committed, and how many verbs shared them."""
    async with create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(line.add, number)
    await line.add(50)

    assert (line.commits, 51) == line.lane.statistics()


async def test_verbs_called_during_a_commit_share_the_next(line: Line):
    """What is called while the thread is busy goes together into the transaction that follows."""
    gate = Gate()
    async with create_task_group() as tasks:
        tasks.start_soon(line.do, "gate", gate)
        await gate.reached()
        for number in range(20):
            tasks.start_soon(line.add, number)
        await wait_all_tasks_blocked()
        gate.let_through()

    assert (2, list(range(20))) == (line.commits, line.stored)


async def test_a_transaction_has_a_limit(line: Line):
    """At most a thousand verbs share a transaction; the others follow in the next ones."""
    async with create_task_group() as tasks:
        for number in range(2_500):
            tasks.start_soon(line.add, number)

    assert (3, list(range(2_500))) == (line.commits, line.stored)


async def test_order_of_calls_is_order_of_effects(line: Line):
    """Jobs are applied in the order in which they were queued, over several batches."""
    called: list[int] = []
    applied: list[int] = []

    async def call(number: int) -> None:
        for round_number in range(3):
            called.append(number + round_number * 100)
            await line.do("note", lambda db, note=called[-1]: applied.append(note))

    async with create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(call, number)

    assert called == applied


async def test_a_single_verb_is_a_transaction_of_its_own(line: Line):
    """Verbs that wait for each other are committed one by one."""
    for number in range(3):
        await line.add(number)

    assert ["begin immediate", "commit"] * 3 == [said for said in line.said if "number" not in said]


async def test_nobody_is_answered_before_the_commit(line: Line):
    """While the commit is not done, no caller of the batch has its answer."""
    committing, go_on, answered, loop = anyio.Event(), threading.Event(), [], current_token()

    def stop_at_commit(said: str) -> None:
        if said == "commit":
            from_thread.run_sync(committing.set, token=loop)
            assert go_on.wait(20)

    line.db.set_trace_callback(stop_at_commit)

    async def call(number: int) -> None:
        answered.append(await line.add(number))

    async with create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(call, number)
        await committing.wait()
        await wait_all_tasks_blocked()
        seen = list(answered)
        go_on.set()

    assert ([], [0, 1, 2, 3, 4]) == (seen, sorted(answered))


# ---- failures -------------------------------------------------------------------------------------------------------


async def test_a_failing_job_hurts_only_itself(line: Line):
    """Where one job of a batch fails, it alone raises; the others are committed, once each."""
    await line.add(7)
    errors: list[StorageError] = []

    async def call(number: int) -> None:
        try:
            assert number == await line.add(number)
        except StorageError as error:
            errors.append(error)

    async with create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(call, number)

    assert list(range(10)) == line.stored
    assert [("add 7", "UNIQUE constraint failed: number.n", sqlite3.IntegrityError)] == [
        (error.verb, error.reason.split(": ", 1)[1], type(error.__cause__)) for error in errors
    ]


async def test_a_job_that_breaks_the_commit_hurts_only_itself(line: Line):
    """Where the commit itself is refused because of one job, it alone raises."""
    line.db.execute("pragma foreign_keys = on")
    line.db.execute("create table child (n integer references number (n) deferrable initially deferred)")
    outcomes: list[str] = []

    async def orphan() -> None:
        try:
            await line.do("orphan", lambda db: db.execute("insert into child values (99)"))
        except StorageError as error:
            outcomes.append(error.reason)

    async with create_task_group() as tasks:
        tasks.start_soon(line.add, 1)
        tasks.start_soon(orphan)
        tasks.start_soon(line.add, 2)

    assert [1, 2] == line.stored
    assert ["FOREIGN KEY constraint failed"] == [reason.split(": ", 1)[1] for reason in outcomes]


async def test_a_lock_that_stays_is_waited_for_once(line: Line, monkeypatch: pytest.MonkeyPatch):
    """A batch whose transaction cannot begin fails as one: the wait for the lock is not repeated for each job."""
    monkeypatch.setattr(connection, "_WAITS_S", (0, 0, 0))
    line.outside.execute("begin immediate")
    reasons: list[str] = []

    async def call(number: int) -> None:
        try:
            await line.add(number)
        except StorageError as error:
            reasons.append(f"{error.verb}: {error.reason.split(': ', 1)[1]}")

    async with create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(call, number)

    line.outside.execute("rollback")
    assert [f"add {number}: database is locked" for number in range(10)] == sorted(reasons)
    assert ["begin immediate"] * 4 == line.said
    assert 1 == await line.add(1)


async def test_a_lane_that_is_closed_says_so(line: Line):
    """After `close` every verb raises StorageError."""
    line.lane.close()

    with pytest.raises(StorageError, match=r"could not add 1: .*was closed"):
        await line.add(1)


async def test_closing_finishes_what_was_called(line: Line):
    """`close` waits for every verb that was called before it, and they are answered."""
    gate = Gate()
    async with create_task_group() as tasks:
        tasks.start_soon(line.do, "gate", gate)
        await gate.reached()
        for number in range(20):
            tasks.start_soon(line.add, number)
        await wait_all_tasks_blocked()
        tasks.start_soon(to_thread.run_sync, line.lane.close)
        gate.let_through()

    assert list(range(20)) == line.stored


async def test_a_transaction_that_cannot_begin_leaves_the_lane_usable(line: Line):
    """Where the driver refuses even to begin, the callers hear of it, and the next verb is carried out."""
    line.db.execute("begin")
    with pytest.raises(StorageError, match="cannot start a transaction"):
        await line.add(1)
    line.db.execute("rollback")

    assert 1 == await line.add(1)


# ---- interruption ---------------------------------------------------------------------------------------------------


async def test_a_caller_cancelled_while_it_waits_is_carried_out(line: Line):
    """A verb that waits for its turn is carried out though its caller is cancelled."""
    gate, scope = Gate(), CancelScope()

    async def follow() -> None:
        with scope:
            await line.add(1)

    async with create_task_group() as tasks:
        tasks.start_soon(line.do, "gate", gate)
        await gate.reached()
        tasks.start_soon(follow)
        tasks.start_soon(line.add, 2)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        gate.let_through()

    assert [1, 2] == line.stored


async def test_a_caller_cancelled_in_the_thread_is_carried_out(line: Line):
    """A caller that is cancelled while its job is in the thread leaves at once; the job and those behind it go on."""
    gate, scope = Gate(), CancelScope()
    answers: list[str] = []

    async def call() -> None:
        with scope:
            answers.append(await line.do("gate", gate))
        answers.append("left")

    async with create_task_group() as tasks:
        tasks.start_soon(call)
        await gate.reached()
        tasks.start_soon(line.add, 1)
        scope.cancel()
        await wait_all_tasks_blocked()
        before = list(answers)
        gate.let_through()

    assert (["left"], ["left"], [1]) == (before, answers, line.stored)


async def test_a_caller_cancelled_from_the_start_is_carried_out(line: Line):
    """A verb called in a scope that is cancelled already is carried out, and so is everything beside it."""

    async def call(number: int) -> None:
        with CancelScope() as scope:
            scope.cancel()
            await line.add(number)

    async with create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(call, number)
    await line.add(10)

    assert list(range(11)) == line.stored


@native
async def test_the_first_of_a_batch_may_be_killed(line: Line, anyio_backend: str):
    """asyncio's own cancel() of the caller that gathers a batch, before it is handed over, harms nobody: the batch is
    committed, and the others are answered."""
    first = asyncio.create_task(line.add(1))
    second = asyncio.create_task(line.add(2))
    # One step of the loop: both have called, nothing is in the thread.
    await asyncio.sleep(0)

    first.cancel()

    assert 2 == await second
    assert (True, [1, 2]) == (first.cancelled(), line.stored)


@native
@pytest.mark.parametrize("seed", range(8))
async def test_any_callers_may_be_killed_at_any_time(line: Line, anyio_backend: str, seed: int):
    """Whoever is killed at whatever moment: everybody else is answered, with what is committed, and once."""
    dice = random.Random(seed)
    tasks: dict[int, asyncio.Task[int]] = {}
    for number in range(120):
        tasks[number] = asyncio.create_task(line.add(number))
        for _ in range(dice.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)
        if dice.random() < 0.5:
            dice.choice(list(tasks.values())).cancel()

    outcomes = dict(zip(tasks, await asyncio.gather(*tasks.values(), return_exceptions=True), strict=True))

    answered = {number for number, outcome in outcomes.items() if outcome == number}
    killed = {number for number, outcome in outcomes.items() if isinstance(outcome, asyncio.CancelledError)}
    assert set(range(120)) == answered | killed, f"seed {seed}"
    assert 1_000 == await line.add(1_000)
    assert set() == answered - set(line.stored), f"seed {seed}"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_ctrl_c_leaves_the_lane_usable(line: Line, loop: str):
    """Ctrl-C reaches a caller in the main task; clean-up code can write afterwards, and others keep their answers."""
    answers: list[int] = []

    async def answer(number: int) -> None:
        answers.append(await line.add(number))

    async def main() -> None:
        gate = Gate()

        async def interrupt() -> None:
            await gate.reached()
            await to_thread.run_sync(_press_ctrl_c)
            await wait_all_tasks_blocked()
            gate.let_through()

        async with create_task_group() as tasks:
            tasks.start_soon(_shielded, partial(line.do, "gate", gate))
            await gate.reached()
            tasks.start_soon(_shielded, partial(answer, 2))
            tasks.start_soon(_shielded, interrupt)
            try:
                await line.add(1)
                await anyio.sleep_forever()
            finally:
                with CancelScope(shield=True):
                    answers.append(await line.add(3))

    with pytest.raises(KeyboardInterrupt):
        _bare(partial(anyio.run, main, backend=loop))

    assert ([2, 3], [1, 2, 3]) == (sorted(answers), line.stored)


def _press_ctrl_c() -> None:
    # The loop has answered, so it is at rest: the signal meets no task that happens to run.
    from_thread.run_sync(lambda: None)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


async def _shielded(call: Callable[[], object]) -> None:
    with CancelScope(shield=True):
        await call()  # type: ignore[misc]


def _bare(run: Callable[[], object]) -> None:
    try:
        run()
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from group
