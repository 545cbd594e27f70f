"""`Engine`: a client with a worker."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup

from reflow._core.definition import Workflow
from reflow._core.duration import Duration, to_micros, to_positive_micros
from reflow._engine.client import Client
from reflow._engine.clock import Clock
from reflow._engine.ends import Ends
from reflow._engine.observers import Observers
from reflow._engine.registry import Registry
from reflow._engine.scheduler import Scheduler
from reflow._engine.streams import Stream
from reflow._engine.why import Claimers
from reflow._engine.worker import Worker
from reflow.codec import Codec
from reflow.errors import ConfigError, StorageError
from reflow.events import ErrorHandler, Hook
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending

__all__ = ["Engine"]

# How often to look for ends in other processes: at least; at most, and for each that is waited for.
_LOOK_US = 500_000
_LOOK_SOON_US = 20_000
_LOOK_EACH_US = 4_000
# Clocks drift apart by a few milliseconds in that time.
_ASK_FOR_THE_TIME_US = 30_000_000
# So often in a row a run may be claimed without getting anywhere.
_MOST_IDLE_CLAIMS = 10
# Between two times of deleting what is too old: a tenth of the retention, within these bounds.
_SHORTEST_PAUSE_US = 1_000_000
_LONGEST_PAUSE_US = 3_600_000_000

_log = logging.getLogger("reflow")


class Engine(Client):
    """Runs workflows durably: `async with Engine(SQLiteStorage("app.db"), [signup]) as engine: ...`

    Entering opens the storage and starts to claim due runs, those of a crashed engine included. Leaving stops claiming,
    lets the steps in flight finish for up to `grace`, cancels what is left, and gives all runs back, so that the next
    engine goes on at once. Leaving by an exception, Ctrl-C included, cancels without waiting.

    `concurrency` is the number of runs that are advanced at once; runs that only wait do not count. `threads` bounds
    the plain `def` bodies that run at once, abandoned ones included. `lease` is how long a run stays ours without a
    heartbeat: after a kill, another engine takes over when it is over. With `retention`, runs that ended longer ago
    than that are deleted. Durations are seconds, timedeltas or text such as `"30s"`.

    `hooks` are functions, async or not, that are told of every lifecycle event; what they raise goes to `on_error`
    (default: the log) and is never felt by a run. `stream()` gives the same events to read.

    With `strict`, for tests, a replayed step whose arguments are not those that were recorded fails its run with
    `NonDeterminismError`. Without it the recorded outcome stands, and a warning is logged.

    Raises `ConfigError` for a wrong setting, `DuplicateWorkflowError` for two workflows of one name and version.
    """

    def __init__(
        self,
        storage: StorageAdapter,
        workflows: Iterable[Workflow[..., Any]],
        *,
        concurrency: int = 100,
        threads: int = 40,
        lease: Duration = "30s",
        grace: Duration = "5s",
        retention: Duration | None = None,
        hooks: Iterable[Hook] = (),
        on_error: ErrorHandler | None = None,
        strict: bool = False,
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        registry = Registry(workflows)
        super().__init__(storage, codec=codec, clock=clock)
        self._registry = self._registered = registry
        self._concurrency = _positive(concurrency, "concurrency")
        self._threads = _positive(threads, "threads")
        self._lease_us = to_micros(lease, what="lease")
        self._grace_us = to_micros(grace, what="grace")
        if self._lease_us < 100_000:
            raise ConfigError(f"lease is {lease!r}; it has to last through a heartbeat: write 0.1 seconds or more")
        self._retention_us = None if retention is None else to_positive_micros(retention, what="retention")
        self._observers = Observers(hooks, on_error)
        # A worker stops for good: an engine that is entered again, perhaps in another event loop, has a new one.
        self._new_worker = partial(
            Worker,
            storage,
            self._codec,
            self._clock,
            registry,
            concurrency=self._concurrency,
            lease_us=self._lease_us,
            threads=self._threads,
            observers=self._observers,
            most_idle_claims=_MOST_IDLE_CLAIMS,
            strict=strict,
            on_end=self._run_left,
        )
        self._new_scheduler = partial(Scheduler, storage, self._clock, registry, self._observers)
        self._worker, self._scheduler = self._new_worker(), self._new_scheduler()
        self._tasks: TaskGroup | None = None
        # Looked up once, while this is entered: it is asked for with every run.
        self._ends_here: Ends | None = None
        # Set when somebody may have ended a run elsewhere.
        self._written = Event()

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise ConfigError("this engine is running already; make another Engine for a second worker")
        tasks = self._tasks = create_task_group()
        try:
            await self._open()
        except BaseException:
            self._tasks = None
            raise
        self._ends_here = Ends.of(self._storage)
        await tasks.__aenter__()
        tasks.start_soon(self._listen)
        tasks.start_soon(self._worker.serve)
        tasks.start_soon(self._scheduler.serve)
        tasks.start_soon(self._look_for_ends)
        if self._ask_for_the_time:
            tasks.start_soon(self._keep_time, self._ask_for_the_time)
        if self._retention_us is not None:
            tasks.start_soon(self._keep_pruning, self._retention_us)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None, "left without being entered"
        self._scheduler.stop()
        self._worker.halt()
        async with AsyncExitStack() as leaving:
            leaving.push_async_callback(self._close)
            leaving.push_async_exit(self._tasks)
            leaving.callback(self._tasks.cancel_scope.cancel)
            if error is None:
                with move_on_after(self._grace_us / 1_000_000):
                    await self._worker.stop()
            elif isinstance(error, get_cancelled_exc_class()):
                raise error
            # Any other error of the body goes its own way, not wrapped in a group.

    async def _close(self) -> None:
        self._worker, self._scheduler, self._tasks = self._new_worker(), self._new_scheduler(), None
        self._ends_here = None
        # Whoever still waits for a result is told of no end any more: have them look for themselves.
        self._ends.look()
        self._observers.end()
        with CancelScope(shield=True):
            await self._storage.close()

    async def tick(self) -> int:
        """Start the runs of due schedules, claim one batch of due runs, and wait until each has parked or ended;
        returns how many were claimed."""
        # The one of now: when the engine is left meanwhile, it is replaced.
        worker = self._worker
        await self._scheduler.fire_due()
        return await worker.tick()

    async def drain(self) -> None:
        """Start the runs of due schedules, and return when no run is due and none is being advanced here; sleeping runs
        do not hold it."""
        worker = self._worker
        await self._scheduler.fire_due()
        await worker.drain()

    def stream(self, *, buffer: int | None = None) -> Stream:
        """The lifecycle events of this engine from now on, as an async iterator that can also be closed.

        Without a `buffer` the latest 10,000 are kept and those dropped are counted; nothing waits for the reader. With
        one, so many are held, and a run whose events find no place waits: 0 hands over one by one. `ConfigError` for
        what is no number from 0 up.
        """
        return self._observers.stream(buffer)

    def _check_can_wait(self) -> None:
        if self._tasks is None:
            raise ConfigError(
                "execute() would wait for ever: enter the engine first, `async with Engine(...) as engine`"
            )

    def _claimers(self, workflow: str) -> Claimers:
        versions = tuple(version for name, version in self._registered.keys if name == workflow)
        used = self._worker.held
        return Claimers(self._tasks is not None, versions, used, self._concurrency - used)

    def _schedules_changed(self) -> None:
        self._scheduler.poke()

    @property
    def _ends(self) -> Ends:
        return self._ends_here or super()._ends

    @property
    def _tells_ends(self) -> bool:
        return self._tasks is not None

    async def _listen(self) -> None:
        # The worker's first claim comes after this: tasks start in any order, and what was written between a claim and
        # this would be missed.
        self._worker.poke()
        await self._storage.listen(self._hinted)

    def _hinted(self, run_id: str | None) -> None:
        self._worker.poke(run_id)
        if run_id is None:
            self._written.set()

    async def _look_for_ends(self) -> None:
        """What ends in another process gives no signal: have everybody who waits look, soon after somebody has written,
        and now and then. The more there are, the longer the pauses, so that it never is much work."""
        ends, looked_at, look_at = self._ends, 0, self._clock.now() + _LOOK_US
        while True:
            self._written = Event()
            await self._clock.wait(self._written, look_at)
            # It is no later than this, unless the clock was put back.
            looked_at = min(looked_at, self._clock.now())
            pause_us = min(max(_LOOK_SOON_US, _LOOK_EACH_US * len(ends)), _LOOK_US)
            await self._clock.wait(Event(), looked_at + pause_us)
            ends.look()
            looked_at = self._clock.now()
            look_at = looked_at + _LOOK_US

    async def _keep_time(self, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.wait(Event(), self._clock.now() + _ASK_FOR_THE_TIME_US)
            with suppress(StorageError):  # until it answers again, the time goes on as it did
                await ask()

    async def _keep_pruning(self, retention_us: int) -> None:
        while True:
            try:
                await self.prune(older_than=retention_us / 1_000_000)
            except StorageError as error:
                _log.warning("prune: %s; trying again", error)
            pause_us = min(max(retention_us // 10, _SHORTEST_PAUSE_US), _LONGEST_PAUSE_US)
            await self._clock.wait(Event(), self._clock.now() + pause_us)

    def _run_left(self, run_id: str, ending: Ending) -> None:
        if ending.status.is_terminal:
            self._ends.ended(run_id, ending)


def _positive(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} is {value!r}; write a whole number from 1 up")
    return value
