"""The floor: a bare loop over the driver that writes what a workload has written, in as many transactions.

No engine, no event loop, no thread, no codec: the rows are ready before the clock starts. The pragmas, the tables and
the number of commits are those of the measurement, so what is left is the database and the disk. Over `sqlite3` a row
is a statement; over psycopg the rows of a kind are one journey to the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeAlias
from uuid import uuid4

from reflow import RunStatus
from reflow.storage._sql.session import Database
from tests.bench.contents import Contents, contents
from tests.bench.place import File
from tests.bench.setting import Setting

_Statement: TypeAlias = tuple[str, tuple[Any, ...]]

_NOW = 1_767_225_600_000_000
_LEASE = uuid4().hex
_INPUT, _OUTPUT, _DIGEST = (bytes.fromhex(data) for data in ("81a66c656e67746805", "cd0123", "0011223344556677"))

_CREATE = """insert into reflow_run (id, run_id, workflow, version, rules, status, priority, due_at, executions,
    idle_claims, generation, cancel_requested, cancel_delivered, last_message, created_at, updated_at, keyed_as, input)
    values (?, ?, 'chain', 1, 1, 'pending', 0, ?, 0, 0, 0, 0, 0, 0, ?, ?, 'chain', ?)"""
_CLAIM = """update reflow_run set status = 'running', lease_id = ?, due_at = ?, updated_at = ?,
    executions = executions + 1, idle_claims = idle_claims + 1 where id = ?"""
_ENTRY = """insert into reflow_entry (run, seq, position, kind, name, failed, payload, attempts, started_at,
    recorded_at, digest) values (?, ?, ?, 'step', 'add', 0, ?, 1, ?, ?, ?)"""
_TIMER = """insert into reflow_timer (run, position, kind, name, due_at, attempts, started_at)
    values (?, ?, 'sleep', 'sleep', ?, 0, ?)"""
_PARK = """update reflow_run set status = 'sleeping', lease_id = null, due_at = ?, updated_at = ?, idle_claims = 0
    where id = ?"""
_END = """update reflow_run set status = 'completed', lease_id = null, due_at = null, updated_at = ?, ended_at = ?,
    output = ?, idle_claims = 0 where id = ?"""


class Rows(NamedTuple):
    """So many new runs, claimed once; each with so many steps; then ended, or asleep under a timer."""

    runs: int
    steps: int
    asleep: bool = False

    @property
    def statements(self) -> int:
        """How many there are in all."""
        return self.runs * (self.steps + (4 if self.asleep else 3))

    @property
    def contents(self) -> Contents:
        """What is in the file when all are written."""
        status = RunStatus.SLEEPING if self.asleep else RunStatus.COMPLETED
        return Contents({status: self.runs}, self.runs * self.steps, self.runs * self.asleep)


def floor_seconds(setting: Setting, rows: Rows, commits: int) -> float:
    """How long the database takes to write them in so many transactions of equal size."""
    place, seconds = setting.new_place(), 0.0
    write = _one_by_one if isinstance(place, File) else _by_kind
    with place.connected(setting.durability) as db:
        for batch in batches(rows, commits):
            started = time.perf_counter()
            db.execute(place.begin)
            write(db, batch)
            db.execute("commit")
            seconds += time.perf_counter() - started
    assert rows.contents == contents(place)
    return seconds


def lone_seconds(setting: Setting, commits: int, pause: Callable[[], object]) -> list[float]:
    """How long each of so many commits takes that comes after a pause: a new run, and its claim."""
    place, seconds = setting.new_place(), list[float]()
    with place.connected(setting.durability) as db:
        for run in range(1, commits + 1):
            pause()
            started = time.perf_counter()
            db.execute(place.begin)
            db.execute(_CREATE, (run, uuid4().hex, _NOW, _NOW, _NOW, _INPUT))
            db.execute(_CLAIM, (_LEASE, _NOW, _NOW, run))
            db.execute("commit")
            seconds.append(time.perf_counter() - started)
    assert Contents({RunStatus.RUNNING: commits}, 0) == contents(place)
    return seconds


def _one_by_one(db: Database, batch: list[_Statement]) -> None:
    for sql, values in batch:
        db.execute(sql, values)


def _by_kind(db: Database, batch: list[_Statement]) -> None:
    kinds: dict[str, list[tuple[Any, ...]]] = {}
    for sql, values in batch:
        kinds.setdefault(sql, []).append(values)
    # In this order a row is there before it is changed.
    for sql in (_CREATE, _CLAIM, _ENTRY, _TIMER, _PARK, _END):
        if sql in kinds:
            db.executemany(sql, kinds[sql])


def batches(rows: Rows, commits: int) -> Iterator[list[_Statement]]:
    """The statements of each transaction. The rows of a run follow each other: no order is better for SQLite."""
    statements, total = _statements(rows), rows.statements
    for number in range(commits):
        yield list(islice(statements, total * (number + 1) // commits - total * number // commits))


def _statements(rows: Rows) -> Iterator[_Statement]:
    for run in range(1, rows.runs + 1):
        yield _CREATE, (run, uuid4().hex, _NOW, _NOW, _NOW, _INPUT)
        yield _CLAIM, (_LEASE, _NOW, _NOW, run)
        for seq in range(rows.steps):
            yield _ENTRY, (run, seq, str(seq), _OUTPUT, _NOW, _NOW, _DIGEST)
        if rows.asleep:
            yield _TIMER, (run, str(rows.steps), _NOW, _NOW)
            yield _PARK, (_NOW, _NOW, run)
        else:
            yield _END, (_NOW, _NOW, _OUTPUT, run)
