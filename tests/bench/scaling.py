"""Scaling: 4,000 runs of 5 steps that are there already, worked off by 1, 2 and 4 worker processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection

from reflow import Engine
from tests.bench import workflows
from tests.bench.contents import Contents, contents
from tests.bench.many import STEPS
from tests.bench.place import Place
from tests.bench.process import companion
from tests.bench.result import Result
from tests.bench.setting import Setting

_AT_ONCE = 25


def measure(setting: Setting) -> Iterator[Result]:
    """From the moment when all workers are ready and may begin, until the last run has ended."""
    runs, fleets = setting.sized((4_000, (1, 2, 4)), (1_000, (1, 2, 4)), (20, (1, 2)))
    alone = 0.0
    for workers in fleets:
        place = setting.new_place()
        setting.run(_enqueue, setting, place, runs)
        seconds = _work_off(setting, place, workers)
        assert Contents({"completed": runs}, runs * STEPS) == contents(place)
        alone = alone or seconds
        figures = {"steps_per_second": runs * STEPS / seconds, "times_of_one": alone / seconds}
        yield Result("scaling", {"runs": runs, "steps_each": STEPS, "at_once": _AT_ONCE, "workers": workers, **figures})


async def _enqueue(setting: Setting, place: Place, runs: int) -> None:
    storage = setting.storage(place)
    await storage.initialize()
    await Engine(storage, [workflows.chain]).enqueue_many(workflows.chain(STEPS) for _ in range(runs))
    await storage.close()


def _work_off(setting: Setting, place: Place, workers: int) -> float:
    with ExitStack() as stack:
        pipes = [stack.enter_context(companion(setting, _work, place)).pipe for _ in range(workers)]
        for pipe in pipes:
            assert pipe.recv() == "ready"
        started = time.perf_counter()
        for pipe in pipes:
            pipe.send("go")
        for pipe in pipes:
            assert pipe.recv() == "done"
        return time.perf_counter() - started


async def _work(pipe: Connection, setting: Setting, place: Place) -> None:
    pipe.send("ready")
    pipe.recv()
    async with Engine(setting.storage(place), [workflows.chain], concurrency=_AT_ONCE) as engine:
        await engine.drain()
    pipe.send("done")
