"""W1: one chain of 1,000 steps. And one of 10,000: what a step costs at its beginning and at its end."""

from __future__ import annotations

import time

from tests.bench import workflows
from tests.bench.floor import rows_per_second
from tests.bench.setting import Setting


async def measure(setting: Setting) -> None:
    """Both chains, beside the floor: one row a commit."""
    floor = rows_per_second(setting, rows=2_000, batch=1)
    await _chain(setting, 1_000, floor)
    await _long_chain(setting, 2_000 if setting.quick else 10_000)


async def _chain(setting: Setting, length: int, floor: float) -> None:
    async with setting.engine(setting.storage("chain"), workflows.chain) as engine:
        await engine.execute(workflows.chain(10))
        started = time.perf_counter()
        result = await engine.execute(workflows.chain(length))
        took = time.perf_counter() - started
    assert result == length * (length - 1) // 2
    setting.show(
        "W1 chain",
        steps=length,
        steps_per_second=length / took,
        floor_rows_per_second=floor,
        ratio_to_floor=length / took / floor,
    )


async def _long_chain(setting: Setting, length: int) -> None:
    workflows.began.clear()
    async with setting.engine(setting.storage("long-chain"), workflows.marked) as engine:
        result = await engine.execute(workflows.marked(length))
    assert result == length * (length - 1) // 2
    began = workflows.began
    first, last = 1_000 / (began[1_000] - began[0]), 999 / (began[-1] - began[-1_000])
    setting.show(
        "W1 long chain",
        steps=length,
        first_1000_per_second=first,
        last_1000_per_second=last,
        last_to_first=last / first,
    )
