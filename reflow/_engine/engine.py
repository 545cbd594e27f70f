"""`Engine`: a client with a worker."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup

from reflow._core.definition import Call, Workflow
from reflow._core.duration import Duration, to_micros
from reflow._engine.client import Client
from reflow._engine.clock import Clock, SystemClock
from reflow._engine.ends import Ends
from reflow._engine.registry import Registry
from reflow._engine.worker import Worker
from reflow.codec import Codec, MsgpackCodec
from reflow.errors import ConfigError
from reflow.storage.contract import StorageAdapter
from reflow.storage.records import Ending

__all__ = ["Engine"]

R = TypeVar("R")

_LOOK_US = 500_000
# So often in a row a run may be claimed without getting anywhere.
_MOST_IDLE_CLAIMS = 10


class Engine(Client):
    """Runs workflows durably: `async with Engine(SQLiteStorage("app.db"), [signup]) as engine: ...`

    Entering opens the storage and starts to claim due runs, those of a crashed engine included. Leaving stops claiming,
    lets the steps in flight finish for up to `grace`, cancels what is left, and gives all runs back, so that the next
    engine goes on at once. Leaving by an exception, Ctrl-C included, cancels without waiting.

    `concurrency` is the number of runs that are advanced at once; runs that only wait do not count. `threads` bounds
    the plain `def` bodies that run at once. `lease` is how long a run stays ours without a heartbeat: after a kill,
    another engine takes over when it is over. Durations are seconds, timedeltas or text such as `"30s"`.

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
        codec: Codec | None = None,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(storage, (str, os.PathLike)):
            raise ConfigError(f"storage is {storage!r}; write SQLiteStorage({os.fspath(storage)!r})")
        registry = Registry(workflows)
        super().__init__(storage, registry, codec or MsgpackCodec(), clock or SystemClock())
        self._concurrency = _positive(concurrency, "concurrency")
        self._threads = _positive(threads, "threads")
        self._lease_us = to_micros(lease, what="lease")
        self._grace_us = to_micros(grace, what="grace")
        if self._lease_us < 100_000:
            raise ConfigError(f"lease is {lease!r}; it has to last through a heartbeat: write 0.1 seconds or more")
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
            most_idle_claims=_MOST_IDLE_CLAIMS,
            on_end=self._run_left,
        )
        self._worker = self._new_worker()
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise ConfigError("this engine is running already; make another Engine for a second worker")
        tasks = self._tasks = create_task_group()
        try:
            await self._storage.initialize()
        except BaseException:
            self._tasks = None
            raise
        await tasks.__aenter__()
        self._worker.poke()
        tasks.start_soon(self._worker.serve)
        tasks.start_soon(self._storage.listen, self._worker.poke)
        tasks.start_soon(self._look_for_ends)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._tasks is not None, "left without being entered"
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
        self._worker, self._tasks = self._new_worker(), None
        with CancelScope(shield=True):
            await self._storage.close()

    async def execute(self, call: Call[R], *, run_id: str | None = None) -> R:
        """Enqueue `call` and wait for its result; errors as of `enqueue` and `Run.result`."""
        if self._tasks is None:
            raise ConfigError(
                "execute() would wait for ever: enter the engine first, `async with Engine(...) as engine`"
            )
        return await super().execute(call, run_id=run_id)

    async def tick(self) -> int:
        """Claim one batch of due runs and wait until each has parked or ended; returns how many there were."""
        return await self._worker.tick()

    async def drain(self) -> None:
        """Return when no run is due and none is being advanced here; sleeping runs do not hold it."""
        await self._worker.drain()

    @property
    def _tells_ends(self) -> bool:
        return self._tasks is not None

    async def _look_for_ends(self) -> None:
        """What ends in another process gives no signal: now and then, have everybody who waits look."""
        while True:
            await self._clock.wait(Event(), self._clock.now() + _LOOK_US)
            Ends.of(self._storage).look()

    def _run_left(self, run_id: str, ending: Ending) -> None:
        if ending.status.is_terminal:
            Ends.of(self._storage).ended(run_id, ending)


def _positive(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{what} is {value!r}; write a whole number from 1 up")
    return value
