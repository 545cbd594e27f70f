"""W1: one chain of 1,000 steps. And one of 10,000: what a step costs at its beginning and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from reflow import Engine, Flow, step, workflow
from tests.bench import workflows
from tests.bench.contents import Contents, contents
from tests.bench.floor import Rows
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.bench.throughput import Stopwatch, beside_floor

_began: list[float] = []


def measure(setting: Setting) -> Iterator[Result]:
    """Both chains."""
    length, repetitions = setting.sized((1_000, 7), (1_000, 3), (10, 1))
    figures = beside_floor(setting, Rows(runs=1, steps=length), repetitions, once, length)
    yield Result("W1 chain", {"steps": length, **figures})
    length = setting.sized(10_000, 5_000, 50)
    yield Result("W1 long chain", {"steps": length, **setting.run(_long_chain, setting, length)})


async def once(setting: Setting, length: int = 1_000) -> Stopwatch:
    """One chain in a warm engine."""
    place = setting.new_place()
    storage = setting.storage(place)
    async with Engine(storage, [workflows.chain]) as engine:
        await engine.execute(workflows.chain(1))
        with Stopwatch(storage) as watch:
            result = await engine.execute(workflows.chain(length))
    assert result == length * (length - 1) // 2
    assert Contents({"completed": 2}, 1 + length) == contents(place)
    return watch


async def mark(a: int, b: int) -> int:
    """`add`, and notes when it began."""
    _began.append(time.perf_counter())
    return a + b


@workflow
def marked(length: int) -> Flow[int]:
    """`chain` with bodies that note when they began."""
    total = 0
    for number in range(length):
        total = yield step(mark, total, number)
    return total


async def _long_chain(setting: Setting, length: int) -> dict[str, float]:
    """The rate of the first tenth and of the last."""
    _began.clear()
    async with Engine(setting.storage(setting.new_place()), [marked]) as engine:
        result = await engine.execute(marked(length))
    assert result == length * (length - 1) // 2
    assert len(_began) == length
    tenth = length // 10
    first, last = (tenth / (_began[start + tenth] - _began[start]) for start in (0, length - tenth - 1))
    return {"first_tenth_per_second": first, "last_tenth_per_second": last, "last_to_first": last / first}
