"""W6: 5,000 and 100,000 runs asleep. How long until they are, what they hold, and how late they wake when 1,000 more
come due together.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple, TypeAlias

from anyio import fail_after, sleep

from reflow import Engine, Flow, SQLiteStorage, sleep_until, step, workflow
from reflow.storage.postgres import PostgresStorage
from tests.bench.contents import Contents, contents
from tests.bench.floor import Rows, floor_seconds
from tests.bench.place import Place
from tests.bench.process import apart
from tests.bench.result import Result, percentiles
from tests.bench.setting import Setting
from tests.bench.throughput import Stopwatch
from tests.bench.workflows import add

_Storage: TypeAlias = SQLiteStorage | PostgresStorage

_PHASES = 8

_began: list[float] = []


async def mark() -> None:
    """Note when it began."""
    _began.append(time.time())


@workflow
def sleeper(until: datetime) -> Flow[None]:
    """A step, a sleep, and a step that notes when it began."""
    yield step(add, 1, 1)
    yield sleep_until(until)
    yield step(mark)


class _Asleep(NamedTuple):
    """So many runs were asleep after so many seconds and commits, when the process was so large."""

    runs: int
    seconds: float
    commits: int
    rss: int


def measure(setting: Setting) -> Iterator[Result]:
    """In a process that does nothing else."""
    few, many = setting.sized((5_000, 100_000), (2_000, 10_000), (20, 100))
    together, lead_s = setting.sized((1_000, 6.0), (1_000, 6.0), (10, 0.5))
    place = setting.new_place()
    phases, lags = apart(setting, _sleep_and_wake, place, few, many, together, lead_s)
    for asleep in (phases[0], phases[-1]):
        rows = Rows(asleep.runs, 1, asleep=True)
        floor = min(floor_seconds(setting, rows, asleep.commits) for _ in range(setting.sized(3, 2, 1)))
        yield Result(
            "W6 sleepers",
            {
                "runs": asleep.runs,
                "seconds_to_sleep": asleep.seconds,
                "runs_per_second": asleep.runs / asleep.seconds,
                "floor_runs_per_second": asleep.runs / floor,
                "ratio_to_floor": floor / asleep.seconds,
                "rows_per_commit": rows.statements / asleep.commits,
                "rss_mib": asleep.rss / 2**20,
            },
        )
    held = linear_regression([asleep.runs for asleep in phases], [asleep.rss for asleep in phases]).slope
    size = place.size / (many + together)
    yield Result("W6 sleeper", {"rss_kib_held": held / 1024, "bytes_on_disk": size})
    yield Result("W6 wake-up", {"due_together": together, "asleep": many, **percentiles(lags)})


async def once(setting: Setting, runs: int = 5_000) -> Stopwatch:
    """Put so many to sleep in this process."""
    storage = setting.storage(setting.new_place())
    async with Engine(storage, [sleeper]) as engine:
        return await _put_to_sleep(engine, storage, runs, _in(86_400.0))


async def _sleep_and_wake(
    setting: Setting, place: Place, few: int, many: int, together: int, lead_s: float
) -> tuple[list[_Asleep], list[float]]:
    """In the process that is looked at: the few, in phases the others, then a wake-up."""
    storage = setting.storage(place)
    phases = [_Asleep(0, 0.0, 0, 0)]
    async with Engine(storage, [sleeper]) as engine:
        for runs in (few, *(few + (many - few) * phase // _PHASES for phase in range(1, _PHASES + 1))):
            before = phases[-1]
            watch = await _put_to_sleep(engine, storage, runs - before.runs, _in(86_400.0))
            phases.append(_Asleep(runs, before.seconds + watch.seconds, before.commits + watch.commits, _rss()))
            assert Contents({"sleeping": runs}, runs, runs) == contents(place)
        lags = await _wake(engine, storage, place, many, together, _in(lead_s))
    return phases[1:], lags


async def _put_to_sleep(engine: Engine, storage: _Storage, runs: int, until: datetime) -> Stopwatch:
    """Enqueued in portions, so that the process never holds handles for all of them."""
    with Stopwatch(storage) as watch:
        for first in range(0, runs, 1_000):
            await engine.enqueue_many(sleeper(until) for _ in range(first, min(runs, first + 1_000)))
        await engine.drain()
    return watch


async def _wake(
    engine: Engine, storage: _Storage, place: Place, asleep: int, together: int, until: datetime
) -> list[float]:
    """How long after their due time the next bodies of the runs that are due together began."""
    _began.clear()
    await _put_to_sleep(engine, storage, together, until)
    total = asleep + together
    assert Contents({"sleeping": total}, total, total) == contents(place)
    assert not _began, "the machine is too slow: some woke while others were still being put to sleep"
    # Not by `drain`, which would take part: it claims what is due.
    with fail_after(60):
        while len(_began) < together:  # noqa: ASYNC110 (the bodies are to note the time, and do nothing more)
            await sleep(0.01)
    await engine.drain()
    assert Contents({"sleeping": asleep, "completed": together}, asleep + 3 * together, asleep) == contents(place)
    return [began - until.timestamp() for began in _began]


def _in(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _rss() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
