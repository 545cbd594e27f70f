"""W2: 2,000 runs of 5 steps, 25 at once, enqueue included. W2b: the same with 250 at once. Enqueued in one call, as one
does who has them all; and W2 again with a task for each run that enqueues it and waits for it, as a server has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from anyio import create_task_group

from reflow import Engine
from tests.bench import workflows
from tests.bench.contents import Contents, contents
from tests.bench.floor import Rows
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.bench.throughput import Stopwatch, beside_floor

STEPS = 5

RunAll: TypeAlias = Callable[[Engine, int], Awaitable[list[int]]]


def measure(setting: Setting) -> Iterator[Result]:
    """Both widths, and both ways."""
    runs, repetitions = setting.sized((2_000, 5), (2_000, 2), (20, 1))
    for workload, at_once, run_all in (
        ("W2 many runs", 25, enqueue_together),
        ("W2b many runs", 250, enqueue_together),
        ("W2 many runs, a task each", 25, execute_each),
    ):
        figures = beside_floor(setting, Rows(runs, STEPS), repetitions, once, runs, at_once, run_all)
        yield Result(workload, {"runs": runs, "steps_each": STEPS, "at_once": at_once, **figures})


async def enqueue_together(engine: Engine, runs: int) -> list[int]:
    """All are enqueued in one call, and waited for in turn."""
    return [await run.result() for run in await engine.enqueue_many(workflows.chain(STEPS) for _ in range(runs))]


async def execute_each(engine: Engine, runs: int) -> list[int]:
    """Each is enqueued and waited for by a task of its own."""
    results: list[int] = []

    async def execute() -> None:
        results.append(await engine.execute(workflows.chain(STEPS)))

    async with create_task_group() as tasks:
        for _ in range(runs):
            tasks.start_soon(execute)
    return results


async def once(setting: Setting, runs: int = 2_000, at_once: int = 25, run_all: RunAll = enqueue_together) -> Stopwatch:
    """All results, from the first enqueue on."""
    place = setting.new_place()
    storage = setting.storage(place)
    async with Engine(storage, [workflows.chain], concurrency=at_once) as engine:
        await engine.execute(workflows.chain(1))
        with Stopwatch(storage) as watch:
            results = await run_all(engine, runs)
    assert results == [STEPS * (STEPS - 1) // 2] * runs
    assert Contents({"completed": 1 + runs}, 1 + runs * STEPS) == contents(place)
    return watch
