"""W2: 2,000 runs of 5 steps, 25 at once, enqueue included. W2b: the same with 250 at once."""

from __future__ import annotations

from collections.abc import Iterator

from anyio import create_task_group

from reflow import Engine
from tests.bench import workflows
from tests.bench.contents import Contents, contents
from tests.bench.floor import Rows
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.bench.throughput import Stopwatch, beside_floor

STEPS = 5


def measure(setting: Setting) -> Iterator[Result]:
    """Both widths."""
    runs, repetitions = setting.sized((2_000, 5), (2_000, 2), (20, 1))
    for workload, at_once in (("W2 many runs", 25), ("W2b many runs", 250)):
        figures = beside_floor(setting, Rows(runs, STEPS), repetitions, once, runs, at_once)
        yield Result(workload, {"runs": runs, "steps_each": STEPS, "at_once": at_once, **figures})


async def once(setting: Setting, runs: int = 2_000, at_once: int = 25) -> Stopwatch:
    """All are enqueued, and waited for, by a task each."""
    storage = setting.storage()
    results: list[int] = []
    async with Engine(storage, [workflows.chain], concurrency=at_once) as engine:

        async def execute() -> None:
            results.append(await engine.execute(workflows.chain(STEPS)))

        await engine.execute(workflows.chain(1))
        with Stopwatch(storage) as watch:
            async with create_task_group() as tasks:
                for _ in range(runs):
                    tasks.start_soon(execute)
    assert results == [STEPS * (STEPS - 1) // 2] * runs
    assert Contents({"completed": 1 + runs}, 1 + runs * STEPS) == contents(storage.path)
    return watch
