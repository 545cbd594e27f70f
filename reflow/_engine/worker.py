"""The worker: claims due runs into free slots and starts a runner for each.

Model. There are `concurrency` slots; a held run has one until it parks or ends. The worker looks for due runs when
somebody says that there may be some (`poke`: something was enqueued here), when the next known one comes due, and, as a
safety net against what other processes did, every `look_us`. A slot that becomes free is refilled at once, and only
when something is known to be due, so an idle storage is left alone.

Held runs can be sent messages and be cancelled, by anybody. The worker asks for such signals when it is told that there
is one for a run that it holds; soon, when something was written and nobody knows what; and now and then in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from anyio import CancelScope, CapacityLimiter, Event, Lock, create_task_group, sleep_forever
from anyio.abc import TaskGroup, TaskStatus

from reflow._core.journal import NEVER
from reflow._engine.clock import Clock
from reflow._engine.ids import new_id
from reflow._engine.lease import LeaseKeeper
from reflow._engine.observers import Observers
from reflow._engine.perform import Perform, attempt
from reflow._engine.registry import Registry
from reflow._engine.runner import Runner, Services
from reflow._engine.scopes import Waiting, waiting, waiting_here
from reflow.codec import Codec
from reflow.errors import StorageError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Claimed, Ending, Lease, RunRow

__all__ = ["Worker"]

_LOOK_US = 1_000_000
# How soon held runs hear of what another process has written, at the earliest; at the latest after half of `look_us`.
_SIGNALS_AFTER_US = 100_000

_log = logging.getLogger("reflow")


class Worker:
    """Advances due runs of the registered workflows. `on_end` is told when a run has left this engine, and how."""

    def __init__(
        self,
        storage: StorageAdapter,
        codec: Codec,
        clock: Clock,
        registry: Registry,
        *,
        concurrency: int,
        lease_us: int,
        threads: int,
        observers: Observers,
        most_idle_claims: int,
        strict: bool,
        on_end: Callable[[str, Ending], None],
        perform: Perform = attempt,
        look_us: int = _LOOK_US,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._registry = registry
        self._concurrency = concurrency
        self._look_us = look_us
        self._leases = LeaseKeeper(storage, clock, lease_us)
        self._services = Services(
            storage,
            codec,
            clock,
            CapacityLimiter(threads),
            perform,
            observers,
            lease_us,
            most_idle_claims,
            strict,
            registry.knows,
            lambda: self._is_stopping,
            on_end,
        )
        self._is_serving = False
        # Where runs live while the worker claims, and who waits for them.
        self._runs: TaskGroup | None = None
        self._waiting: Waiting | None = None
        self._is_stopping = False
        self._stopped = Event()
        # Set for the loop to look up; `_asked` and `_look_at` say whether there is a reason to claim.
        self._news = Event()
        self._asked = False
        self._look_at = NEVER
        # Set when there may be signals; when they were last asked for, and when to ask for them next.
        self._signalled = Event()
        self._signals_asked_at = 0
        self._signals_due_at = 0
        # One claim at a time, so that all together never hold more than there are slots. What it brings may be older
        # than the news of these runs.
        self._claiming = Lock(fast_acquire=True)
        self._told_while_claiming: set[str] = set()
        # Set when a run leaves; None while nobody waits for that.
        self._one_left: Event | None = None

    def poke(self, run_id: str | None = None) -> None:
        """There may be a due run: claim now. Or news for a run that is held: for `run_id`, or for any."""
        self._asked = True
        self._news.set()
        if run_id is not None and self._claiming.locked():
            self._told_while_claiming.add(run_id)
        if self._leases.held:
            due_at = self._signals_asked_at + _SIGNALS_AFTER_US
            if run_id is not None:
                if self._leases.runner_of(run_id) is None:
                    return
                due_at = 0
            if due_at < self._signals_due_at:
                self._signals_due_at = due_at
                self._signalled.set()

    async def serve(self) -> None:
        """Claim and run until `stop`; returns when the last run has left."""
        self._is_serving = True
        try:
            async with create_task_group() as keeping:
                self._keep_held(keeping)
                async with create_task_group() as self._runs:
                    self._waiting = await keeping.start(_wait)
                    await self._keep_claiming(self._runs)
                    # It may end any moment now: a tick that comes too late has a group of its own.
                    self._runs = None
                keeping.cancel_scope.cancel()
        finally:
            self._is_serving = False
            self._stopped.set()

    def _keep_held(self, tasks: TaskGroup) -> None:
        """Keep the leases of held runs, and pass signals on to them."""
        tasks.start_soon(self._leases.keep)
        tasks.start_soon(self._keep_signalling)

    @property
    def _is_told(self) -> bool:
        """Whether there may be signals that were not asked for yet."""
        return self._signals_due_at <= self._signals_asked_at + _SIGNALS_AFTER_US

    async def _keep_signalling(self) -> None:
        while True:
            self._signalled = Event()
            now = self._clock.now()
            # Neither is later than this, unless the clock was put back.
            self._signals_asked_at = min(self._signals_asked_at, now)
            self._signals_due_at = min(self._signals_due_at, now + self._look_us // 2)
            if not self._leases.held:
                await self._clock.wait(self._signalled, None)
            elif now < self._signals_due_at:
                await self._clock.wait(self._signalled, self._signals_due_at)
            else:
                self._signals_asked_at, self._signals_due_at = now, now + self._look_us // 2
                await self._pass_on_signals()

    async def _pass_on_signals(self) -> None:
        runners = {lease.run_id: runner for lease, runner in self._leases.held.items()}
        try:
            signals = await self._storage.check_runs(list(runners))
        except StorageError as error:
            _log.warning("signals for %d runs: %s; trying again", len(runners), error)
            return
        for signal in signals:
            runner = runners[signal.run_id]
            runner.signal(signal)
            if runner.lease not in self._leases.held:
                # It has parked in the meantime.
                self.poke()

    async def _keep_claiming(self, runs: TaskGroup) -> None:
        while not self._is_stopping:
            self._news = Event()
            now = self._clock.now()
            # It is no later than this, unless the clock was put back.
            self._look_at = min(self._look_at, now + self._look_us)
            if self._has_slot and (self._asked or now >= self._look_at):
                try:
                    self._start(await self._claim(), runs, self._waiting)
                except StorageError as error:
                    _log.warning("claim: %s; trying again", error)
            elif not self._is_stopping:
                await self._clock.wait(self._news, self._look_at if self._has_slot else None)

    def halt(self) -> None:
        """Claim no more, and start no more steps."""
        self._is_stopping = True
        self._news.set()

    async def stop(self) -> None:
        """Halt, and wait until the steps in flight have ended and their runs are back."""
        self.halt()
        if self._is_serving:
            await self._stopped.wait()
        while self._leases.held:
            await self._a_run_leaves().wait()

    async def tick(self) -> int:
        """Claim one batch and wait until each of its runs has parked or ended; returns how many there were."""
        claimed = await self._claim()
        if self._runs is not None:
            self._start(claimed, self._runs, self._waiting)
            while any(runner.lease in self._leases.held for runner in claimed):
                await self._a_run_leaves().wait()
        else:
            async with create_task_group() as keeping:
                self._keep_held(keeping)
                async with create_task_group() as runs:
                    self._start(claimed, runs, waiting_here())
                keeping.cancel_scope.cancel()
        return len(claimed)

    async def drain(self) -> None:
        """Return when nothing is due and no run is held here."""
        while not self._is_stopping:
            one_left = self._a_run_leaves()
            if await self.tick() == 0:
                if not self._leases.held:
                    return
                await one_left.wait()

    @property
    def held(self) -> int:
        """How many runs are held."""
        return len(self._leases.held)

    @property
    def _has_slot(self) -> bool:
        return len(self._leases.held) < self._concurrency

    async def _claim(self) -> list[Runner]:
        """Take due runs into the free slots. They are held from now on: start them without waiting for anything."""
        async with self._claiming:
            limit = self._concurrency - len(self._leases.held)
            now = self._clock.now()
            self._asked = False
            self._look_at = now + self._look_us
            if limit < 1 or self._is_stopping or not await self._leases.renew():
                return []
            lease_id = new_id(now)
            claimed = Claimed([], None)
            self._told_while_claiming.clear()
            # Shielded: of runs that were claimed while we are told to stop we must hear, to give them back.
            with CancelScope(shield=True):
                claimed = await self._storage.claim_runs(
                    self._registry.keys,
                    limit=limit,
                    lease_id=lease_id,
                    now=now,
                    lease_until=now + self._leases.length_us,
                )
            if claimed.next_due_at is not None:
                self._look_at = min(self._look_at, claimed.next_due_at)
            return [self._hold(row, lease_id) for row in claimed.runs]

    def _start(self, claimed: list[Runner], runs: TaskGroup, who: Waiting | None) -> None:
        for runner in claimed:
            runs.start_soon(self._run, runner, who)

    def _hold(self, row: RunRow, lease_id: str) -> Runner:
        workflow = self._registry.find(row.workflow, row.version)
        assert workflow is not None, "claimed only what is registered"
        runner = Runner(row, Lease(row.run_id, lease_id), workflow, self._services)
        runner.has_missed_news = row.run_id in self._told_while_claiming
        if not self._leases.held:
            # What there was until now, the claim has told.
            self._signals_due_at = self._clock.now() + self._look_us // 2
            self._signalled.set()
        if not self._services.observers.is_idle:
            runner.previous = self._leases.runner_of(row.run_id)
        self._leases.held[runner.lease] = runner
        return runner

    async def _run(self, runner: Runner, who: Waiting | None) -> None:
        waiting.set(who)
        try:
            await runner.run(self._pass_on_signals if runner.has_missed_news else None)
        except Exception:
            _log.exception("run %s: dropped; it will be taken up again when its lease is over", runner.row.run_id)
        finally:
            del self._leases.held[runner.lease]
            if ending := runner.ending:
                if ending.due_at is not None:
                    self._look_at = min(self._look_at, ending.due_at)
                if not ending.status.is_terminal and (ending.awaits or runner.has_missed_news or self._is_told):
                    # What it awaits may have come, or a cancellation, while it was being parked: that has made it due.
                    self._asked = True
                if runner.row.parent is not None and ending.status.is_terminal:
                    self.poke(runner.row.parent)
            self._news.set()
            if self._one_left is not None:
                self._one_left.set()
                self._one_left = None

    def _a_run_leaves(self) -> Event:
        """Set when the next run leaves."""
        if self._one_left is None:
            self._one_left = Event()
        return self._one_left


async def _wait(*, task_status: TaskStatus[Waiting | None]) -> None:
    """Only wait, in a task that nobody cancels but to end the engine: not even a deadline does, as the claiming task's
    own do for a moment, in which a body that fails would have passed for cancelled."""
    task_status.started(waiting_here())
    await sleep_forever()
