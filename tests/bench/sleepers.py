"""W6: many runs asleep. How long until they are, what they hold, and how late they wake when many come due at once."""

from __future__ import annotations

import gc
import time
from pathlib import Path

from anyio import create_task_group

from reflow import Engine, RunStatus, SQLiteStorage
from tests.bench import workflows
from tests.bench.setting import Setting, percentiles

AWAKE_TOGETHER = 1_000


async def measure(setting: Setting) -> None:
    """Two sizes, whose difference tells what one more sleeper holds; then a wake-up of many."""
    few, many = (1_000, 5_000) if setting.quick else (5_000, 100_000)
    storage = setting.storage("sleepers")
    async with setting.engine(storage, workflows.sleeper) as engine:
        first = await _put_to_sleep(engine, storage, few)
        second = await _put_to_sleep(engine, storage, many)
        setting.show(
            "W6 sleepers",
            first=few,
            then=many,
            seconds_to_sleep_first=first.seconds,
            seconds_to_sleep_then=second.seconds,
            kib_held_per_sleeper=(second.rss - first.rss) / many / 1024,
            bytes_on_disk_per_run=(second.size - first.size) / many,
        )
        await _wake_together(setting, engine)


class _Asleep:
    """The state of things once so many more runs are asleep."""

    def __init__(self, seconds: float, path: Path) -> None:
        gc.collect()
        self.seconds = seconds
        self.rss = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        self.size = path.stat().st_size


async def _put_to_sleep(engine: Engine, storage: SQLiteStorage, count: int) -> _Asleep:
    started = time.perf_counter()
    await _enqueue(engine, count, 86_400.0)
    await engine.drain()
    return _Asleep(time.perf_counter() - started, storage.path)


async def _enqueue(engine: Engine, count: int, seconds: float) -> list[str]:
    """In portions, so that the measurement does not hold 100,000 tasks."""
    ids: list[str] = []

    async def one() -> None:
        ids.append((await engine.enqueue(workflows.sleeper(seconds))).run_id)

    for first in range(0, count, 1_000):
        async with create_task_group() as tasks:
            for _ in range(first, min(count, first + 1_000)):
                tasks.start_soon(one)
    return ids


async def _wake_together(setting: Setting, engine: Engine) -> None:
    """All sleep until about the same moment; the lag is from a run's own due time to the start of its next body."""
    workflows.began.clear()
    ids = await _enqueue(engine, AWAKE_TOGETHER, 5.0)
    await engine.drain()
    due: list[float] = []
    for run_id in ids:
        info = await engine.get_run(run_id)
        assert info is not None
        assert info.status == RunStatus.SLEEPING, "woke while still being put to sleep: the machine is too slow"
        assert info.due_at is not None
        due.append(info.due_at.timestamp())
    offset = time.time() - time.perf_counter()
    for run_id in ids:
        assert await (await engine.handle(run_id)).result() == 3
    lags = [began + offset - due_at for began, due_at in zip(sorted(workflows.began), sorted(due), strict=True)]
    spread_ms = (max(due) - min(due)) * 1e3
    setting.show("W6 wake-up", together=AWAKE_TOGETHER, due_within_ms=spread_ms, **percentiles(lags))
