"""One claimed run: load its journal, replay it, perform what is open, record, until it parks or ends.

Model. The runner owns the replay. Bodies, timers and the clock produce outcomes; the runner feeds them one after the
other, and what it fed it writes, in that order. Three rules make it durable:

1. *Feed, then write, then start.* Feeding may run ahead of the disk, so that a result travels in one write with the
   completion or the sleep that follows it. But no body starts before everything fed so far is committed.
2. *Every write names the lease.* When it is lost, the generator is dropped without another word: somebody else replays.
3. *A run leaves the engine only by a write.* Its `Ending` says how: completed or failed, sleeping until a time, or
   pending again when the engine stops. If even that write fails, the lease runs out and another claim takes over.

A single open step is performed in the runner's own task; only when commands are open side by side are there tasks for
them. A wait shorter than `_RESIDENT_US` keeps the run in memory; a longer one parks it.

What can go wrong. The storage fails: the write is tried again until the lease can no longer be trusted. User code
breaks the rules (nondeterminism, misuse, values that do not fit): the run is parked as `failed` with that error.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any, NamedTuple, assert_never

from anyio import CancelScope, CapacityLimiter, Event, create_task_group
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from reflow._core.definition import Call, Workflow
from reflow._core.digest import digest_of
from reflow._core.duration import from_micros
from reflow._core.failure import capture, capture_for
from reflow._core.journal import Entry, Journal, Timer, patch_entry
from reflow._core.nodes import Open, lingers
from reflow._core.performed import Performed, result_type
from reflow._core.replay import Replay
from reflow._core.retry import next_delay
from reflow._core.runs import Spawn
from reflow._core.status import RunStatus
from reflow._core.steps import Step
from reflow._core.values import Now
from reflow._core.waits import Sleep, WaitEvent
from reflow._engine.clock import Clock
from reflow._engine.perform import Attempt, StepInfo, attempt
from reflow._engine.scopes import scope_probe
from reflow.codec import Codec
from reflow.errors import ConfigError, Failure, MisuseError, SerializationError, StepTimeoutError, StorageError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending, Lease, Progress, RunRow

__all__ = ["Runner", "Services"]

_RESIDENT_US = 100_000
_ENTRIES_BETWEEN_CHECKPOINTS = 2_000
_RETRY_STORAGE_US = 200_000

_log = logging.getLogger("reflow")


class Services(NamedTuple):
    """What every runner of an engine works with."""

    storage: StorageAdapter
    codec: Codec
    clock: Clock
    threads: CapacityLimiter
    is_stopping: Callable[[], bool]


class _Arrival(NamedTuple):
    """A body has ended."""

    position: str
    step: Step[Any]
    attempts: int
    started_at: int
    result: Attempt


class Runner:
    """Advances one run under one lease."""

    def __init__(self, row: RunRow, lease: Lease, workflow: Workflow[..., Any], services: Services) -> None:
        self.row = row
        self.lease = lease
        self.ending: Ending | None = None
        self.is_leaving = False
        self.is_dropped = False
        self._workflow = workflow
        self._services = services
        self._codec = services.codec
        self._clock = services.clock
        self._scope = CancelScope()
        self._innermost_scope: Callable[[], object]
        self._replay: Replay | None = None
        # What has been fed and not yet written.
        self._recorded = 0
        self._entries: list[Entry] = []
        self._changed: dict[str, Timer | None] = {}
        # What is under way: timers of open commands, steps to be started, bodies, and what came of them.
        self._timers: dict[str, Timer] = {}
        self._ready: dict[str, tuple[Step[Any], int, int]] = {}
        self._bodies: dict[str, tuple[CancelScope, Open]] = {}
        self._settling: set[CancelScope] = set()
        self._arrivals: list[_Arrival] = []
        # Set by bodies that run side by side; None while there are none.
        self._arrived: Event | None = None
        self._broken: Exception | None = None

    def drop(self) -> None:
        """Stop at once, without writing: the lease is lost, or can no longer be trusted."""
        self.is_dropped = True
        self._scope.cancel()

    async def run(self) -> None:
        """Advance the run until it parks or ends; `ending` then says how, and is written."""
        try:
            with self._scope:
                self._innermost_scope = scope_probe()
                await self._load()
                ending = await self._advance()
                await self._write(ending)
                self.ending = ending
        except BaseException as error:
            # Cancelled from outside: the engine stops. (Or the program does: KeyboardInterrupt.) An unforeseen error
            # of our own is no reason to try again at once: then the lease has to run out.
            if not isinstance(error, Exception):
                await self._give_back()
            raise
        finally:
            if self._replay is not None:
                self._replay.close()

    # ---- the life of a claimed run ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        if self.row.executions == 1:
            # Never claimed before, so it has no journal: the most frequent case, and one read less.
            self._guarded(self._begin, None)
            return
        journal = await self._journal()
        self._recorded = len(journal.entries)
        self._guarded(self._begin, journal)
        for _ in range(0, len(journal.entries), _ENTRIES_BETWEEN_CHECKPOINTS):
            self._guarded(self._catch_up)
            await checkpoint()
        self._guarded(self._take_up, journal.timers)

    async def _journal(self) -> Journal:
        while True:
            try:
                return await self._services.storage.get_journal(self.row.run_id)
            except StorageError as error:
                await self._storage_failed(error)

    def _begin(self, journal: Journal | None) -> None:
        generator = self._workflow.start(self.row.input, self._codec)
        self._replay = Replay(self.row.run_id, generator, self._codec, journal, workflow=self.row.workflow)
        self._replay.start()
        self._record_marks(self._replay)

    def _catch_up(self) -> None:
        self._current.catch_up(_ENTRIES_BETWEEN_CHECKPOINTS)
        self._record_marks(self._current)

    def _take_up(self, timers: list[Timer]) -> None:
        for timer in timers:
            self._current.check(timer)
            self._timers[timer.position] = timer

    @property
    def _current(self) -> Replay:
        assert self._replay is not None
        return self._replay

    async def _advance(self) -> Ending:
        while True:
            self._guarded(self._absorb)
            if self._broken is not None:
                return self._failed(self._broken)
            if self._current.outcome is not None:
                return self._ended()
            stopping = self._services.is_stopping()
            if not self._ready:
                due = min(timer.due_at for timer in self._timers.values())
                if stopping or due - self._clock.now() > _RESIDENT_US:
                    return Ending(RunStatus.SLEEPING, due)
                await self._write()
                await self._clock.wait(Event(), due)
            elif stopping:
                return Ending(RunStatus.PENDING, self._clock.now())
            elif len(self._ready) == 1 and not self._timers:
                await self._write()
                if self._services.is_stopping():
                    continue
                [(position, (step, used, started_at))] = self._ready.items()
                self._ready.clear()
                self._arrivals.append(await self._attempt(position, step, used, started_at))
            else:
                await self._side_by_side()

    async def _side_by_side(self) -> None:
        """Perform open commands as tasks, side by side, until none is under way."""
        async with create_task_group() as tasks:
            while True:
                self._arrived = Event()
                self._guarded(self._absorb)
                if self._broken is not None or self._current.outcome is not None:
                    break
                if not self._bodies and (self._services.is_stopping() or not self._ready):
                    break
                await self._write()
                if self._arrivals:
                    # Something was answered while we wrote: take it in, so that it shares the next write.
                    continue
                if not self._services.is_stopping() and not self._settling:
                    self._start_bodies(tasks)
                elif not self._bodies and not self._settling:
                    break
                due = min((timer.due_at for timer in self._timers.values()), default=None)
                await self._clock.wait(self._arrived, due)
            # Whatever still runs was cancelled, by a race or a failure; a thread counts as settled.
            tasks.cancel_scope.cancel()
        self._arrived = None

    def _start_bodies(self, tasks: TaskGroup) -> None:
        for position, (step, used, started_at) in self._ready.items():
            scope = CancelScope()
            self._bodies[position] = scope, self._current.open[position]
            tasks.start_soon(self._body, scope, position, step, used, started_at)
        self._ready.clear()

    async def _body(self, scope: CancelScope, position: str, step: Step[Any], used: int, started_at: int) -> None:
        with scope:
            # A body whose race was decided before it could begin does not begin.
            await checkpoint_if_cancelled()
            arrival = await self._attempt(position, step, used, started_at)
            if not scope.cancel_called:
                self._arrivals.append(arrival)
        if not scope.cancel_called:
            del self._bodies[position]
        self._settling.discard(scope)
        if self._arrived is not None:
            self._arrived.set()

    async def _attempt(self, position: str, step: Step[Any], used: int, started_at: int) -> _Arrival:
        info = StepInfo(self.row.run_id, self.row.workflow, step.name, position, used + 1)
        result = await attempt(step, info, self._services.threads, self._clock)
        return _Arrival(position, step, used + 1, started_at, result)

    # ---- taking in what happened: synchronous, and the only place where the generator runs ---------------------------

    def _guarded(self, do: Callable[..., None], *arguments: Any) -> None:
        """Run user code by way of `do`. What it breaks is kept, and ends the run; a cancel scope that it left open
        across a yield would tear apart the event loop's own bookkeeping, and is found here."""
        if self._broken is not None:
            return
        before = self._innermost_scope()
        try:
            do(*arguments)
        except Exception as error:
            self._broken = error
        if self._innermost_scope() is not before:
            self._broken = _scope_left_open(self._workflow)
            if self._replay is not None:
                # Closing the generator closes its scopes.
                self._replay.close()

    def _absorb(self) -> None:
        """Feed everything that has an outcome now, until only bodies and later timers are left."""
        replay = self._current
        while True:
            if replay.cancelled:
                self._forget_cancelled(replay)
            if replay.opened:
                self._meet_opened(replay)
            elif self._arrivals:
                arrivals, self._arrivals = self._arrivals, []
                for arrival in arrivals:
                    self._settle_attempt(replay, arrival)
            elif not (self._timers and self._fire_due_timers(replay)):
                break

    def _forget_cancelled(self, replay: Replay) -> None:
        for position in replay.cancelled:
            self._ready.pop(position, None)
            self._timers.pop(position, None)
            # Also where no timer waits: that of a retry stays stored while the next attempt runs.
            self._changed[position] = None
            if body := self._bodies.pop(position, None):
                scope, node = body
                scope.cancel()
                if not lingers(node):
                    # A gather raises once all of its members have settled: no body starts before this one has ended.
                    self._settling.add(scope)
        replay.cancelled.clear()

    def _meet_opened(self, replay: Replay) -> None:
        opened = replay.opened.copy()
        replay.opened.clear()
        for node in opened:
            if replay.open.get(node.position) is node and node.position not in self._timers:
                self._meet(replay, node, node.command)

    def _meet(self, replay: Replay, node: Open, command: Performed) -> None:
        now = self._clock.now()
        match command:
            case Step():
                self._ready[node.position] = (command, 0, now)
            case Sleep():
                due_at = command.wakes_at(now)
                if due_at <= now:
                    self._record_value(replay, node, None, now)
                else:
                    self._set_timer(Timer(node.position, command.kind, command.name, due_at, 0, now))
            case Now():
                self._record_value(replay, node, from_micros(now), now)
            case WaitEvent() | Call() | Spawn():
                raise ConfigError(f"this engine does not perform {node} yet")
            case _:
                assert_never(command)

    def _fire_due_timers(self, replay: Replay) -> bool:
        now = self._clock.now()
        due = sorted((timer for timer in self._timers.values() if timer.due_at <= now), key=lambda timer: timer.due_at)
        for timer in due:
            if self._timers.pop(timer.position, None) is None:
                # Cancelled by what an earlier one of these has set off.
                continue
            node = replay.open[timer.position]
            if isinstance(node.command, Step):
                # The stored timer stays until the attempt has an outcome: it carries the count.
                self._ready[timer.position] = (node.command, timer.attempts, timer.started_at)
            else:
                self._changed[timer.position] = None
                self._record_value(replay, node, None, timer.started_at)
            self._forget_cancelled(replay)
        return bool(due)

    def _settle_attempt(self, replay: Replay, arrival: _Arrival) -> None:
        node = replay.open.get(arrival.position)
        if node is None:
            # Cancelled while it ran: its late result is dropped.
            return
        if (error := arrival.result.error) is None:
            self._record_value(replay, node, arrival.result.value, arrival.started_at, arrival.attempts)
        else:
            self._settle_failure(replay, node, arrival, error)
        self._forget_cancelled(replay)

    def _settle_failure(self, replay: Replay, node: Open, arrival: _Arrival, error: BaseException) -> None:
        step = arrival.step
        # What a timeout says is known; captured anew it would say it twice.
        timeout = error.failure if isinstance(error, StepTimeoutError) else None
        delay = next_delay(step.retry, arrival.attempts, error, random.random())
        if delay is None:
            failure = timeout or capture_for(step.raises, error, self._codec)
            self._record_failure(replay, node, failure, arrival.started_at, arrival.attempts)
            return
        due_at, last = self._clock.now() + delay, self._codec.encode(timeout or capture(error))
        self._set_timer(Timer(node.position, step.kind, step.name, due_at, arrival.attempts, arrival.started_at, last))

    def _set_timer(self, timer: Timer) -> None:
        self._timers[timer.position] = self._changed[timer.position] = timer

    # ---- recording --------------------------------------------------------------------------------------------------

    def _record_value(self, replay: Replay, node: Open, value: Any, started_at: int, attempts: int = 1) -> None:
        try:
            payload = self._codec.encode(value)
            decoded = self._codec.decode(payload, result_type(node.command))
        except SerializationError as error:
            named = error.about(f"the result of {node} at position {node.position}")
            self._record_failure(replay, node, capture(named), started_at, attempts)
        else:
            self._append(replay, node, False, payload, started_at, attempts, decoded)

    def _record_failure(self, replay: Replay, node: Open, failure: Failure, started_at: int, attempts: int) -> None:
        self._append(replay, node, True, self._codec.encode(failure), started_at, attempts)

    def _append(
        self, replay: Replay, node: Open, failed: bool, payload: bytes, started_at: int, attempts: int, *decoded: Any
    ) -> None:
        command = node.command
        now, digest = self._clock.now(), digest_of(command)
        entry = Entry(node.position, command.kind, command.name, failed, payload, attempts, started_at, now, digest)
        self._entries.append(entry)
        if attempts > 1:
            self._changed[node.position] = None
        replay.feed(entry, *decoded)
        self._record_marks(replay)

    def _record_marks(self, replay: Replay) -> None:
        """Right behind what led to them."""
        for change in replay.marks:
            self._entries.append(patch_entry(change, self._clock.now()))
        replay.marks.clear()

    def _ended(self) -> Ending:
        outcome = self._current.outcome
        assert outcome is not None
        if outcome.error is not None:
            return self._failed(outcome.error)
        if outcome.continued is not None or outcome.is_cancelled:
            return self._failed(ConfigError("this engine does not continue runs as new, nor cancel them, yet"))
        try:
            output = self._codec.encode(outcome.value)
            self._codec.decode(output, self._workflow.output_type)
        except SerializationError as error:
            return self._failed(error.about(f"the return value of workflow {self._workflow.name!r}"))
        except Exception as error:
            # A type that the codec does not know, or a codec of the user's that breaks.
            return self._failed(error)
        return Ending(RunStatus.COMPLETED, output=output)

    def _failed(self, error: BaseException) -> Ending:
        position = self._replay.position if self._replay is not None else None
        return Ending(RunStatus.FAILED, error=self._codec.encode(capture(error, position=position)))

    async def _write(self, ending: Ending | None = None) -> None:
        """Commit what was fed so far, and how the execution ends."""
        self.is_leaving = ending is not None
        if not (self._entries or self._changed or ending):
            return
        progress = self._progress(ending)
        while True:
            try:
                held = await self._services.storage.save_progress(progress)
                break
            except StorageError as error:
                await self._storage_failed(error)
        if not held:
            _log.info("run %s: the lease is lost; dropped", self.row.run_id)
            self.drop()
            await checkpoint()
        # Only now: had we been cancelled before, `_give_back` would write it.
        self._recorded += len(self._entries)
        self._entries, self._changed = [], {}

    def _progress(self, ending: Ending | None) -> Progress:
        return Progress(
            self.lease,
            self._clock.now(),
            self._recorded,
            self._entries,
            [timer for timer in self._changed.values() if timer is not None],
            [position for position, timer in self._changed.items() if timer is None],
            ending,
        )

    async def _storage_failed(self, error: StorageError) -> None:
        """Wait before the next try. The lease keeper drops the run when the lease can no longer be trusted."""
        _log.warning("run %s: %s; trying again", self.row.run_id, error)
        await self._clock.wait(Event(), self._clock.now() + _RETRY_STORAGE_US)

    async def _give_back(self) -> None:
        """The engine stops: keep what has an outcome, and let the next engine go on at once."""
        if self.is_dropped:
            return
        if self._replay is not None:
            self._guarded(self._absorb)
        if self._broken is not None:
            ending = self._failed(self._broken)
        elif self._replay is not None and self._replay.outcome is not None:
            ending = self._ended()
        else:
            ending = Ending(RunStatus.PENDING, self._clock.now())
        with CancelScope(shield=True):
            try:
                await self._services.storage.save_progress(self._progress(ending))
            except StorageError as error:
                _log.warning("run %s: not given back, its lease has to run out: %s", self.row.run_id, error)


def _scope_left_open(workflow: Workflow[..., Any]) -> MisuseError:
    code = workflow.function.__code__
    return MisuseError(
        f"workflow {workflow.name!r} holds a cancel scope (anyio.fail_after, trio.CancelScope ...) across a yield; "
        "use `.options(timeout=...)` or race(..., sleep(...)) instead",
        f"{code.co_filename}:{code.co_firstlineno}",
    )
