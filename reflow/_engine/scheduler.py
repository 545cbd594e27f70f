"""The scheduler: starts the runs of due schedules.

Model. A schedule has the instant of its next occurrence. Whoever finds it due computes what that means now, and has the
storage do three things in one transaction: check that the instant is still the same, move it on, create the runs. So of
several engines one succeeds, and a crash leaves all of it or nothing. A run's id follows from schedule and occurrence.

The scheduler sleeps until the next occurrence that it knows of. It is poked when a schedule changes in this engine, and
looks once in a while for what others have registered: hardly ever is that due within a moment.

What can go wrong. A schedule that cannot be fired is reported once, and tried again with the next look; others go on.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import cast

from anyio import Event

from reflow._core.duration import from_micros
from reflow._core.journal import NEVER
from reflow._core.replay import RULES
from reflow._core.schedule import Missed, Recurrence, due_occurrences, occurrence_run_id
from reflow._engine.clock import Clock
from reflow._engine.observers import Observers
from reflow._engine.registry import Registry
from reflow.errors import ReflowError, StorageError
from reflow.events import ScheduleFired
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import NewRun, ScheduleRow

__all__ = ["Scheduler"]

_BATCH = 100
_POLL_US = 1_000_000

_log = logging.getLogger("reflow")


class Scheduler:
    """Fires the schedules of the registered workflows."""

    def __init__(self, storage: StorageAdapter, clock: Clock, registry: Registry, observers: Observers) -> None:
        self._storage = storage
        self._clock = clock
        self._registry = registry
        self._observers = observers
        self._is_stopping = False
        self._poked = Event()
        self._reported: set[tuple[str, str]] = set()

    def poke(self) -> None:
        """A schedule has changed: look now."""
        self._poked.set()

    def stop(self) -> None:
        """Fire no more."""
        self._is_stopping = True
        self._poked.set()

    async def serve(self) -> None:
        """Fire what comes due until `stop`."""
        while not self._is_stopping:
            self._poked, look_at = Event(), self._clock.now() + _POLL_US
            try:
                _, next_at = await self._fire_due()
                look_at = min(look_at, next_at)
            except StorageError as error:
                _log.warning("schedules: %s; trying again", error)
            if not self._is_stopping:
                await self._clock.wait(self._poked, look_at)

    async def fire_due(self) -> int:
        """Fire what is due now; returns how many runs were started."""
        started, _ = await self._fire_due()
        return started

    async def _fire_due(self) -> tuple[int, int]:
        """How many runs were started, and when to look again."""
        started = 0
        while (names := self._registry.names) and not self._is_stopping:
            now = self._clock.now()
            due = await self._storage.due_schedules(names, limit=_BATCH, now=now)
            counts = [await self._fire_or_report(row, now) for row in due.schedules]
            fired = [count for count in counts if count is not None]
            started += sum(fired)
            if not fired:
                return started, NEVER if due.next_due_at is None else due.next_due_at
        return started, NEVER

    async def _fire_or_report(self, row: ScheduleRow, now: int) -> int | None:
        """How many runs were started; None where that failed."""
        try:
            return await self._fire(row, now)
        except Exception as error:
            # Whatever a row says that somebody else has written: it is no reason to leave the others alone.
            problem = f"{type(error).__name__}: {error}"
            if (row.key, problem) not in self._reported:
                self._reported.add((row.key, problem))
                failed = ReflowError(f"schedule {row.key!r} could not be fired: {problem}; it is tried again")
                failed.__cause__ = error
                await self._observers.report(failed)
            return None

    async def _fire(self, row: ScheduleRow, now: int) -> int:
        recurrence, missed = Recurrence.parse(row.recurrence), cast("Missed", row.missed)
        due = due_occurrences(recurrence, next_at=row.next_at, now=now, anchor=row.anchor_at, missed=missed)
        occurrences = due.fire
        if row.overlap == "skip":
            # One at a time: of several that are due, the latest.
            occurrences = () if await self._is_going_on(row.last_run_id) else due.fire[-1:]
        version = row.version or self._registry.require(row.workflow).version
        runs = [
            NewRun(
                run_id=occurrence_run_id(row.key, instant),
                workflow=row.workflow,
                version=version,
                rules=RULES,
                input=row.input,
                due_at=now,
                created_at=now,
            )
            for instant in occurrences
        ]
        next_at = NEVER if due.next_at is None else due.next_at
        fired = await self._storage.fire_schedule(
            row.key, expected_next_at=row.next_at, next_at=next_at, runs=runs, now=now
        )
        if fired and not self._observers.is_idle:
            for run, instant in zip(runs, occurrences, strict=True):
                await self._observers.emit(partial(_fired, row.key, run, instant, due.skipped, now))
        if fired and due.skipped:
            _log.warning("schedule %r: %d occurrences were missed, and are skipped", row.key, due.skipped)
        return len(runs) if fired else 0

    async def _is_going_on(self, run_id: str | None) -> bool:
        row = None if run_id is None else await self._storage.get_run(run_id)
        return row is not None and not row.status.is_terminal


def _fired(key: str, run: NewRun, instant: int, skipped: int, now: int) -> ScheduleFired:
    return ScheduleFired(
        run_id=run.run_id,
        workflow=run.workflow,
        version=run.version,
        at=from_micros(now),
        key=key,
        occurrence_at=from_micros(instant),
        skipped=skipped,
    )
