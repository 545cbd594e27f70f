"""W5: one gather of 500 steps."""

from __future__ import annotations

from collections.abc import Iterator

from reflow import Engine
from tests.bench import workflows
from tests.bench.contents import Contents, contents
from tests.bench.floor import Rows
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.bench.throughput import Stopwatch, beside_floor


def measure(setting: Setting) -> Iterator[Result]:
    """One run each time."""
    width, repetitions = setting.sized((500, 15), (500, 5), (10, 1))
    figures = beside_floor(setting, Rows(runs=1, steps=width), repetitions, once, width)
    yield Result("W5 gather", {"width": width, **figures})


async def once(setting: Setting, width: int = 500) -> Stopwatch:
    """One gather in a warm engine."""
    place = setting.new_place()
    storage = setting.storage(place)
    async with Engine(storage, [workflows.wide]) as engine:
        await engine.execute(workflows.wide(2))
        with Stopwatch(storage) as watch:
            result = await engine.execute(workflows.wide(width))
    assert result == width * (width + 1) // 2
    assert Contents({"completed": 2}, 2 + width) == contents(place)
    return watch
