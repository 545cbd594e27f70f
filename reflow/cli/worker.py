"""One worker process: an engine that runs until it is told to stop, and then drains.

Model. It serves until the first of these: SIGTERM; SIGINT, which Ctrl-C sends; and, in a member of a fleet, the end of
standard input, a pipe that only the parent could write to. So the parent need not send a signal, and a parent that was
killed tells its workers by that alone: the system closes the pipe.

Then it drains, as every engine that is left: it claims no more, begins no more steps, gives those in flight `grace` to
end, cancels what is left, and hands all runs back, so that the next worker goes on with them at once. A second signal
ends the process there and then, and its runs wait for their leases to be over.

A plain function in a thread cannot be cancelled. Its run is handed back, so it is not waited for either.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

import anyio
from anyio import create_task_group

from reflow._core.duration import from_micros
from reflow._core.failure import read_failure
from reflow._core.status import RunStatus
from reflow._engine.engine import Engine
from reflow._engine.why import meant
from reflow.cli.signals import Signals
from reflow.errors import ReflowError
from reflow.storage.loop import call_soon_here
from reflow.storage.records import Ending

__all__ = ["WorkerEngine", "work"]

# One that is about to end needs no longer.
_THREAD_ENDS_S = 0.2
# How often to look for runs that have no code here, and for how long they have to be due: others may have it.
_LOOK_S = 180
_OVERDUE = timedelta(seconds=10)

_log = logging.getLogger("reflow")


class WorkerEngine(Engine):
    """An engine that says which runs fail, and counts those that it hands back.

    It overrides what the engine calls with every run that leaves. A hook would be public, but is told of every step
    too, and that would cost a quarter of the throughput.
    """

    is_stopping = False
    handed_back = 0

    def _run_left(self, run_id: str, ending: Ending) -> None:
        super()._run_left(run_id, ending)
        if ending.status is RunStatus.FAILED:
            failure = read_failure(ending.error, self._codec, f"the error of run {run_id!r}")
            place = f" at position {failure.position}" if failure.position else ""
            _log.warning("run %s failed%s: %s", run_id, place, failure)
        elif ending.status is RunStatus.PENDING and self.is_stopping:
            self.handed_back += 1

    async def without_code(self) -> list[str]:
        """What there is to say of runs that are due for a while, and of whose workflow or version this engine has no
        code. Of each workflow the last thousand are looked at."""
        overdue = from_micros(self._clock.now()) - _OVERDUE
        waiting: dict[tuple[str, int], list[datetime]] = {}
        for name, counts in (await self.statistics()).runs.items():
            if RunStatus.PENDING in counts:
                for run in (await self.list_runs(workflow=name, status=RunStatus.PENDING, limit=1_000)).runs:
                    if run.due_at and run.due_at < overdue and not self._registered.knows(name, run.version):
                        waiting.setdefault((name, run.version), []).append(run.due_at)
        return [
            f"{len(due)} runs of {name!r} (version {version}) are due, the first since "
            f"{min(due):%Y-%m-%d %H:%M:%S} UTC, and this worker has {self._instead_of(name)}"
            for (name, version), due in waiting.items()
        ]

    def _instead_of(self, name: str) -> str:
        if versions := [str(version) for known, version in self._registered.keys if known == name]:
            return f"only version {', '.join(versions)}"
        return "".join(
            ["no workflow of that name", *(f"; was {one!r} meant?" for one in meant(name, self._registered.names))]
        )

    def __str__(self) -> str:
        known = (f"{name} (version {version})" if version != 1 else name for name, version in self._registered.keys)
        return f"{', '.join(known)} in {self._storage!r}, {self._concurrency} runs at once"

    @property
    def in_flight(self) -> int:
        """How many runs are being advanced."""
        return self._worker.held


def work(engine: WorkerEngine, *, backend: str, is_member: bool) -> None:
    """Serve until told to stop, and drain. A `StorageError` when it cannot begin."""
    before = set(threading.enumerate())
    # What was imported stays: the garbage collector need not go over it again and again, for each thousand runs once.
    gc.collect()
    gc.freeze()
    anyio.run(_serve, engine, is_member, backend=backend)
    _leave_threads(before)


async def _serve(engine: WorkerEngine, is_member: bool) -> None:
    told = anyio.Event()
    signals = Signals(told, _end_at_once)
    if is_member:
        _watch_parent(told)
    async with engine:
        _log.info("serving %s; pid %d", engine, os.getpid())
        async with create_task_group() as tasks:
            tasks.start_soon(_tell_of_runs_without_code, engine)
            await told.wait()
            tasks.cancel_scope.cancel()
        engine.is_stopping = True
        _log.info("told to stop by %s: %d runs in flight", signals.name or "the parent", engine.in_flight)
    signals.hurry(0)
    _log.info("stopped: %d runs handed back", engine.handed_back)


async def _tell_of_runs_without_code(engine: WorkerEngine) -> None:
    """Such as one whose workflow is misspelt: it would wait in silence."""
    while True:
        # What the storage has to say against it is said elsewhere.
        with suppress(ReflowError):
            for line in await engine.without_code():
                _log.warning("%s", line)
        await anyio.sleep(_LOOK_S)


def _end_at_once(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _watch_parent(told: anyio.Event) -> None:
    call_soon = call_soon_here()

    def read() -> None:
        # Not through `sys.stdin`, whose lock a thread must not hold when the process ends.
        while os.read(0, 1_024):
            pass
        with suppress(RuntimeError):  # the event loop is gone
            call_soon(told.set)

    threading.Thread(target=read, daemon=True).start()


def _leave_threads(before: Collection[threading.Thread]) -> None:
    """End the process here and now where step bodies still run in threads: Python would wait for them."""
    for thread in threading.enumerate():
        if thread not in before and not thread.daemon:
            thread.join(_THREAD_ENDS_S)
            if thread.is_alive():
                _log.warning("a step body in a thread does not end; left, its run is handed back")
                sys.stdout.flush()
                logging.shutdown()
                os._exit(0)
