"""Measuring throughput on a machine that does other things too: several times, in turn with the floor."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, Self

from reflow import SQLiteStorage
from reflow.storage.postgres import PostgresStorage
from tests.bench.floor import Rows, floor_seconds
from tests.bench.setting import Setting


class Stopwatch:
    """`with Stopwatch(storage) as watch`: the time between entering and leaving, the commits, the verbs in them."""

    def __init__(self, storage: SQLiteStorage | PostgresStorage) -> None:
        self.seconds = 0.0
        self.commits = 0
        self.verbs = 0
        self._storage = storage

    def __enter__(self) -> Self:
        self._before = self._storage.statistics()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        after = self._storage.statistics()
        self.commits = after.commits - self._before.commits
        self.verbs = after.verbs - self._before.verbs


def beside_floor(
    setting: Setting, rows: Rows, repetitions: int, once: Callable[..., Awaitable[Stopwatch]], *arguments: Any
) -> dict[str, Any]:
    """The figures of `once`: run, floor, run, floor ..., so that whatever else the machine does meets both.

    Each floor has the commits of the run before it. Best and median: on a quiet machine they are close.
    """
    watches: list[Stopwatch] = []
    floors: list[float] = []
    for _ in range(repetitions):
        watches.append(setting.run(once, setting, *arguments))
        floors.append(floor_seconds(setting, rows, watches[-1].commits))
    times = [watch.seconds for watch in watches]
    best, steps = min(watches, key=lambda watch: watch.seconds), rows.runs * rows.steps
    return {
        "steps_per_second": steps / best.seconds,
        "steps_per_second_median": steps / median(times),
        "floor_steps_per_second": steps / min(floors),
        "ratio_to_floor": min(floors) / best.seconds,
        "ratio_to_floor_median": median(floor / seconds for floor, seconds in zip(floors, times, strict=True)),
        "repetitions": repetitions,
        "commits": best.commits,
        "rows_per_commit": rows.statements / best.commits,
        "verbs_per_commit": best.verbs / best.commits,
    }
