"""W2: 2,000 runs of 5 steps, 25 at once, enqueue included. W2b: the same with 250 at once."""

from __future__ import annotations

import time

from anyio import create_task_group

from reflow import Engine
from tests.bench import workflows
from tests.bench.floor import rows_per_second
from tests.bench.setting import Setting

STEPS = 5


async def measure(setting: Setting) -> None:
    """Both widths."""
    await _many(setting, "W2 many runs", 25)
    await _many(setting, "W2b many runs", 250)


async def _many(setting: Setting, workload: str, concurrency: int) -> None:
    runs = 400 if setting.quick else 2_000
    storage = setting.storage(f"many-{concurrency}")
    async with setting.engine(storage, workflows.chain, concurrency=concurrency) as engine:
        await engine.execute(workflows.chain(STEPS))
        before = storage.statistics()
        results: list[int] = []
        started = time.perf_counter()
        async with create_task_group() as tasks:
            for _ in range(runs):
                tasks.start_soon(_execute, engine, results)
        took = time.perf_counter() - started
        after = storage.statistics()
    assert results == [STEPS * (STEPS - 1) // 2] * runs
    commits, steps = after.commits - before.commits, runs * STEPS
    floor = rows_per_second(setting, rows=steps, batch=max(1, round(steps / commits)))
    setting.show(
        workload,
        at_once=concurrency,
        runs=runs,
        steps_per_second=steps / took,
        runs_per_second=runs / took,
        steps_per_commit=steps / commits,
        verbs_per_commit=(after.verbs - before.verbs) / commits,
        floor_rows_per_second=floor,
        ratio_to_floor=steps / took / floor,
    )


async def _execute(engine: Engine, results: list[int]) -> None:
    results.append(await engine.execute(workflows.chain(STEPS)))
