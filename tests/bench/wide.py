"""W5: one gather of 500 steps."""

from __future__ import annotations

import time

from tests.bench import workflows
from tests.bench.floor import rows_per_second
from tests.bench.setting import Setting

WIDTH = 500


async def measure(setting: Setting) -> None:
    """The best of five, beside the floor with all rows in one commit."""
    floor = rows_per_second(setting, rows=WIDTH * 10, batch=WIDTH)
    async with setting.engine(setting.storage("wide"), workflows.wide) as engine:
        times: list[float] = []
        for _ in range(5):
            started = time.perf_counter()
            result = await engine.execute(workflows.wide(WIDTH))
            times.append(time.perf_counter() - started)
            assert result == WIDTH * (WIDTH + 1) // 2
    rate = WIDTH / min(times)
    setting.show(
        "W5 gather", width=WIDTH, steps_per_second=rate, floor_rows_per_second=floor, ratio_to_floor=rate / floor
    )
