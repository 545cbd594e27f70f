"""One claimed run: load its journal, replay it, perform what is open, record, until it parks or ends.

Model. Bodies, timers, messages and the clock produce outcomes; the execution feeds them to the program one after the
other, and what it fed is written, in that order. Three rules make it durable:

1. *Feed, then write, then start.* Feeding may run ahead of the disk, so that a result travels in one write with the
   completion or the sleep that follows it. But no body starts before everything fed so far is committed.
2. *Every write names the lease.* When it is lost, the generator is dropped without a word: somebody else replays.
3. *A run leaves the engine only by a write.* Its `Ending` says how: completed, failed or cancelled; sleeping or
   waiting; or pending again when the engine stops. If even that write fails, the lease runs out and another claim takes
   over.

A single open step is performed in the runner's own task; only when commands are open side by side are there tasks for
them. A wait shorter than `_RESIDENT_US` keeps the run in memory; a longer one parks it, and so does a wait for
messages.

A request to cancel the run interrupts whatever the runner waits for; the cancellation is then recorded like an outcome,
and the program goes on from there with its clean-up. What was interrupted and is still open begins again.

What can go wrong. The storage fails: the write is tried again until the lease can no longer be trusted. It cannot keep
a value, however often it is asked: see refused.py. User code
breaks the rules (nondeterminism, misuse, values that do not fit): the run is parked as `failed` with that error. A run
that kills the process whenever it is taken up is parked when it was claimed too often without getting anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from anyio import CancelScope, CapacityLimiter, Event, create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from reflow._core.definition import Workflow
from reflow._core.journal import ENTRIES_AT_ONCE, NEVER, Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow._engine.bodies import Bodies
from reflow._engine.clock import Clock
from reflow._engine.execution import Execution
from reflow._engine.observers import Observers
from reflow._engine.perform import Perform
from reflow._engine.refused import Refused, as_failure
from reflow._engine.scopes import checkpoint_if_cancelled, is_foreign, scope_probe
from reflow._engine.teller import Teller
from reflow._engine.transactions import Here, here
from reflow.codec import Codec
from reflow.errors import MisuseError, PoisonError, StorageError, StorageValueError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending, Lease, Progress, RunRow, RunSignal

__all__ = ["Runner", "Services"]

_RESIDENT_US = 100_000
_RETRY_STORAGE_US = 200_000
_BLOCKED_US = 500_000

_log = logging.getLogger("reflow")


class Services(NamedTuple):
    """What every runner of an engine works with."""

    storage: StorageAdapter
    codec: Codec
    clock: Clock
    threads: CapacityLimiter
    perform: Perform
    observers: Observers
    lease_us: int
    most_idle_claims: int
    strict: bool
    is_known: Callable[[str, int], bool]
    is_stopping: Callable[[], bool]
    on_end: Callable[[str, Ending], None]


class Runner:
    """Advances one run under one lease."""

    def __init__(self, row: RunRow, lease: Lease, workflow: Workflow[..., Any], services: Services) -> None:
        self.row = row
        self.lease = lease
        self.ending: Ending | None = None
        self.is_leaving = False
        self.is_dropped = False
        self._is_lost = False
        # There was news at a time when nobody here could take it in: before the run began, or when it was leaving.
        self.has_missed_news = False
        # Who has had the run here before, and has still to tell how it was left; and set when that is done, where
        # somebody waits for it.
        self.previous: Runner | None = None
        self._left: Event | None = None
        self._workflow = workflow
        self._services = services
        self._clock = services.clock
        self._teller = Teller(row, workflow, services.observers, services.codec, services.clock)
        self._bodies, self._execution = self._at_the_beginning()
        self._refused: Refused | None = None
        self._scope = CancelScope()
        self._innermost_scope: Callable[[], object]
        self._is_loaded = False
        self._is_cancel_due = row.cancel_requested
        self._is_cancelled = row.cancel_delivered
        # The number of the last message that the run is known to have been sent.
        self._last_message = 0
        self._broken: Exception | None = None

    def _at_the_beginning(self) -> tuple[Bodies, Execution]:
        row, services = self.row, self._services
        codec, clock, teller = services.codec, services.clock, self._teller
        bodies = Bodies(row, services.threads, clock, teller, services.perform)
        return bodies, Execution(row, self._workflow, codec, clock, bodies, teller, strict=services.strict)

    def drop(self, *, is_lost: bool = True) -> None:
        """Stop at once, because the lease is lost, or can no longer be trusted. In the second case it may still be
        there when the storage answers: then the run is given back, with what has an outcome."""
        self.is_dropped = True
        self._is_lost = self._is_lost or is_lost
        self._scope.cancel()

    def signal(self, news: RunSignal) -> None:
        """There is news for the run: it is to be cancelled, or was sent a message."""
        if self.is_leaving:
            # A run that ends takes no notice; one that parks is woken by the storage.
            self.has_missed_news = True
            return
        if news.last_message > self._last_message:
            self._last_message = news.last_message
            self._bodies.wake()
        # The answer may be older than the write that says that it was delivered.
        if news.cancel_requested and not (self._is_cancel_due or self._is_cancelled):
            self._is_cancel_due = True
            self._scope.cancel()

    async def run(self, hear: Callable[[], Awaitable[object]] | None = None) -> None:
        """Advance the run until it parks or ends; `ending` then says how, and is written. Before that, `hear` brings
        the news that it has missed."""
        here.set(Here(self._services.storage, self.lease, self._services.codec))
        try:
            interruption = await self._work_until_left(hear)
            # Not while it is being handled: it would become the context of what a body raises now.
            if interruption is not None or self.is_dropped:
                await self._give_back()
            if interruption is not None:
                raise interruption
        finally:
            self._execution.close()
            if self._left is not None:
                self._left.set()

    async def _work_until_left(self, hear: Callable[[], Awaitable[object]] | None) -> BaseException | None:
        """Work until the run has left; or until we are cancelled from outside, because the engine stops. (Or the
        program does: KeyboardInterrupt.) An unforeseen error of our own is raised, and no reason to try again at once:
        then the lease has to run out."""
        try:
            if hear is not None:
                await hear()
            while True:
                with self._scope:
                    await self._work()
                if self.is_dropped or self.ending:
                    return None
                # Interrupted, to be cancelled.
                self._scope = CancelScope()
        except Exception:
            raise
        except BaseException as error:
            if is_foreign(error):
                raise RuntimeError("the engine awaited something that was cancelled") from error
            return error

    # ---- the life of a claimed run ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        self._innermost_scope = scope_probe()
        observers = self._services.observers
        if self.previous is not None:
            await self._follow(self.previous)
            self.previous = None
        if not self._is_loaded:
            await self._load()
            self._is_loaded = True
            if not observers.is_idle and self._refused is None:
                await self._teller.begun()
        if self._refused is not None:
            await self._take_in(self._refused)
        if self._is_cancel_due:
            # Not in a scope that was interrupted, nor does an ending get written in one: nobody here would hear of it.
            await checkpoint_if_cancelled()
            self._guarded(self._deliver_cancel)
        ending = await self._advance()
        if self._is_cancel_due:
            # A body has swallowed the interruption.
            await checkpoint_if_cancelled()
        await self._write(ending)
        self.ending = ending
        # Who waits for the result need not wait for those who look on.
        self._services.on_end(self.row.run_id, ending)
        if self._teller.has_news:
            await self._teller.written()
        if not observers.is_idle:
            await self._teller.left(ending)

    async def _follow(self, previous: Runner) -> None:
        """What happens to a run is told in order. A hook that does not return holds up the run, and not its
        cancellation."""
        if self._is_cancel_due or not previous.is_leaving:
            previous.drop()
        previous._left = previous._left or Event()
        await previous._left.wait()

    async def _load(self) -> None:
        row = self.row
        if self._refused is not None:
            await self._load_journal(self._refused.retries)
        elif row.idle_claims > self._services.most_idle_claims:
            self._broken = PoisonError(row.run_id, row.idle_claims)
        elif row.executions == 1 and self._is_cancel_due:
            self._guarded(partial(self._execution.begin, None, is_cancelled=True))
        elif row.executions == 1 and not row.last_message:
            # Never claimed before, so it has no journal: the most frequent case, and one read less.
            self._guarded(self._execution.begin, None)
        else:
            self._last_message = row.last_message
            await self._load_journal()

    async def _load_journal(self, retries: Sequence[Timer] = ()) -> None:
        journal = await self._journal()
        self._guarded(self._execution.begin, journal)
        for _ in range(0, len(journal.entries), ENTRIES_AT_ONCE):
            self._guarded(self._execution.catch_up, ENTRIES_AT_ONCE)
            await checkpoint()
        timers = {timer.position: timer for timer in (*journal.timers, *retries)}
        self._guarded(self._execution.take_up, list(timers.values()))
        self._execution.draft.timers.update((timer.position, timer) for timer in retries)

    async def _journal(self) -> Journal:
        while True:
            try:
                return await self._services.storage.get_journal(self.row.run_id)
            except StorageError as error:
                await self._storage_failed(error)

    def _deliver_cancel(self) -> None:
        self._is_cancel_due, self._is_cancelled = False, True
        if self._execution.is_over:
            return
        self._bodies.interrupted()
        self._execution.cancel()

    async def _advance(self) -> Ending:
        execution, bodies, services = self._execution, self._bodies, self._services
        while True:
            if self._last_message > execution.mailbox.seen or execution.is_wait_due:
                await self._read_messages()
            self._guarded(execution.absorb)
            if self._broken is not None:
                return execution.failed(self._broken)
            if not bodies.ready:
                if execution.is_over:
                    return execution.ended()
                due = execution.next_due_at
                if services.is_stopping() or execution.mailbox.awaits or due - self._clock.now() > _RESIDENT_US:
                    return execution.parked()
                await self._write()
                await self._clock.wait(bodies.news(), due)
            elif services.is_stopping():
                return Ending(RunStatus.PENDING, self._clock.now())
            elif len(bodies.ready) == 1 and not execution.timers:
                await self._write()
                if not services.is_stopping():
                    await bodies.perform()
            else:
                await self._side_by_side()

    async def _side_by_side(self) -> None:
        """Perform open commands as tasks, side by side, until none is under way."""
        execution, bodies, services = self._execution, self._bodies, self._services
        async with create_task_group() as tasks:
            while True:
                arrived = bodies.news()
                if self._last_message > execution.mailbox.seen or execution.is_wait_due:
                    await self._read_messages()
                self._guarded(execution.absorb)
                if self._broken is not None or execution.is_over:
                    break
                if not bodies.is_running and (services.is_stopping() or not bodies.ready):
                    break
                await self._write()
                if bodies.arrivals:
                    # Something was answered while we wrote: take it in, so that it shares the next write.
                    continue
                if not services.is_stopping():
                    bodies.start(tasks)
                elif not bodies.is_running:
                    break
                due = execution.next_due_at
                await self._clock.wait(arrived, None if due == NEVER else due)
            # Whatever still runs was cancelled, by a race or a failure; a thread counts as settled.
            tasks.cancel_scope.cancel()
        # The group swallows asyncio's own cancellation where it reached another task first.
        await checkpoint_if_cancelled()
        bodies.interrupted()

    async def _read_messages(self) -> None:
        mailbox = self._execution.mailbox
        try:
            mailbox.put(await self._services.storage.get_messages(self.row.run_id, after=mailbox.seen))
        except StorageError as error:
            # Parking looks again.
            _log.warning("run %s: %s", self.row.run_id, error)
        mailbox.seen = max(mailbox.seen, self._last_message)

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
            # Closing the generator closes its scopes.
            self._execution.close()

    # ---- writing ----------------------------------------------------------------------------------------------------

    async def _write(self, ending: Ending | None = None) -> None:
        """Commit what was fed so far, and how the execution ends."""
        draft = self._execution.draft
        self.is_leaving = ending is not None
        if draft.is_empty and not ending:
            return
        for started in draft.started:
            if not self._services.is_known(started.workflow, started.version):
                _log.warning(
                    "run %s starts run %s of workflow %r, version %d, which this engine does not know; give it to the "
                    "engine, unless another one runs it",
                    self.row.run_id,
                    started.run_id,
                    started.workflow,
                    started.version,
                )
        now = self._clock.now()
        if draft.entries and now - draft.entries[0].recorded_at > _BLOCKED_US:
            _tell_blocked(self.row, draft.entries[0], now)
        try:
            await self._save(draft.progress(self.lease, now, ending))
        except StorageValueError as error:
            await self._start_over(error)
        # Only now: had we been cancelled before, `_give_back` would write it.
        draft.written()
        if self._teller.has_news and ending is None:
            await self._teller.written()

    async def _save(self, progress: Progress) -> None:
        """Write, and try again where it fails; not where the storage cannot keep what is in it."""
        while True:
            try:
                held = await self._services.storage.save_progress(progress)
                break
            except StorageValueError:
                raise
            except StorageError as error:
                await self._storage_failed(error)
        if not held:
            _log.info("run %s: the lease is lost; dropped", self.row.run_id)
            self.drop()
            await checkpoint()

    async def _start_over(self, error: StorageValueError) -> None:
        """What was to be written is refused: go back to what is written, with the outcomes that bodies have given."""
        execution, bodies = self._execution, self._bodies
        _log.warning("run %s: %s", self.row.run_id, error)
        while bodies.is_running:
            await self._clock.wait(bodies.news(), None)
        self._guarded(execution.absorb)
        draft, before = execution.draft, self._refused
        if before is not None and before.is_hopeless:
            _log.warning("run %s: its failure is refused too; dropped, its lease has to run out", self.row.run_id)
            self.drop()
            await checkpoint()
        if draft.is_cancel_delivered:
            self._is_cancel_due, self._is_cancelled = True, False
        self._refused = Refused.of(draft, error, before)
        self._teller.forget()
        execution.close()
        self._bodies, self._execution = self._at_the_beginning()
        self._broken, self._is_loaded, self.is_leaving, self._last_message = None, False, False, 0
        self._scope.cancel()
        await checkpoint()

    async def _take_in(self, refused: Refused) -> None:
        """Write each outcome by itself, and only then feed it: one that is refused again is replaced by a failure."""
        if refused.is_hopeless and self._broken is None:
            self._broken = refused.error
        while refused.outcomes and self._broken is None:
            entry = refused.outcomes[0]
            if entry.position in self._execution.replay.open:
                await self._write()
                try:
                    await self._save_alone(entry)
                except StorageValueError as error:
                    entry = refused.outcomes[0] = as_failure(entry, error, self._services.codec)
                    try:
                        await self._save_alone(entry)
                    except StorageValueError as again:
                        self._broken = again
                        return
                self._guarded(self._recall, entry)
            del refused.outcomes[0]

    async def _save_alone(self, entry: Entry) -> None:
        recorded, now = self._execution.draft.recorded, self._clock.now()
        await self._save(Progress(self.lease, now, recorded, [entry], settled=[entry.position]))

    def _recall(self, entry: Entry) -> None:
        """Feed what is written."""
        execution, teller, position = self._execution, self._teller, entry.position
        node = execution.replay.open[position]
        execution.draft.recorded += 1
        execution.draft.timers.pop(position, None)
        execution.timers.pop(position, None)
        if not teller.observers.is_idle:
            teller.step_settled(node, entry, entry.started_at)
        execution.replay.feed(entry)
        execution.record_marks(execution.replay)

    async def _storage_failed(self, error: StorageError) -> None:
        """Wait before the next try. The lease keeper drops the run when the lease can no longer be trusted."""
        _log.warning("run %s: %s; trying again", self.row.run_id, error)
        await self._clock.wait(Event(), self._clock.now() + _RETRY_STORAGE_US)

    async def _give_back(self) -> None:
        """The engine stops, or has had no answer for long: keep what has an outcome, and let the next claim go on at
        once. That is worth nothing any more when the lease is over."""
        if self._is_lost or self.ending:
            return
        execution = self._execution
        if self._is_loaded:
            self._guarded(execution.absorb)
        if self._broken is not None:
            ending = execution.failed(self._broken)
        elif self._is_loaded and execution.is_over:
            ending = execution.ended()
        else:
            ending = Ending(RunStatus.PENDING, self._clock.now())
        progress = execution.draft.progress(self.lease, self._clock.now(), ending)
        with move_on_after(self._services.lease_us / 1_000_000, shield=True):
            try:
                if await self._services.storage.save_progress(progress):
                    self.ending = ending
                    self._services.on_end(self.row.run_id, ending)
            except StorageError as error:
                _log.warning("run %s: not given back, its lease has to run out: %s", self.row.run_id, error)


def _tell_blocked(row: RunRow, entry: Entry, now: int) -> None:
    seconds = (now - entry.recorded_at) / 1_000_000
    _log.warning(
        "run %s: the body of workflow %r took %.1f s from the outcome of %s at position %s to its next yield; "
        "meanwhile nothing else ran in this event loop, no result was stored and no lease kept. Do long work in a step",
        row.run_id,
        row.workflow,
        seconds,
        entry,
        entry.position or "-",
    )


def _scope_left_open(workflow: Workflow[..., Any]) -> MisuseError:
    code = workflow.function.__code__
    return MisuseError(
        f"workflow {workflow.name!r} holds a cancel scope (anyio.fail_after, trio.CancelScope ...) across a yield; "
        "use `.options(timeout=...)` or race(..., sleep(...)) instead",
        f"{code.co_filename}:{code.co_firstlineno}",
    )
