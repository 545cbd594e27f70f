"""A chain of 10,000 steps: what a step costs at its beginning and at its end, and what it costs to replay."""

from __future__ import annotations

import time
from pathlib import Path

from reflow import Engine, Flow, SQLiteStorage, step, workflow
from reflow._core.replay import Replay
from reflow.codec import MsgpackCodec
from reflow.storage._sqlite.connection import Durability
from tests.bench.floor import rows_per_second
from tests.bench.report import show

STEPS = 10_000

_marks: list[float] = []


async def add(a: int, b: int) -> int:
    """The smallest useful body."""
    _marks.append(time.perf_counter())
    return a + b


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row."""
    total = 0
    for number in range(length):
        total = yield step(add, total, number)
    return total


async def run_chain(folder: Path, durability: Durability, backend: str) -> None:
    """One chain, measured at its first and last thousand steps, beside the floor; then its replay."""
    _marks.clear()
    storage = SQLiteStorage(folder / f"chain-{durability}-{backend}.db", durability=durability)
    async with Engine(storage, [chain]) as engine:
        result = await engine.execute(chain(STEPS), run_id="chain")
        assert result == STEPS * (STEPS - 1) // 2, result
        floor = rows_per_second(folder, durability, 1_000, 1)
        first = 1_000 / (_marks[1_000] - _marks[0])
        last = 999 / (_marks[-1] - _marks[-1_000])
        whole = (STEPS - 1) / (_marks[-1] - _marks[0])
        show(
            "chain",
            backend=backend,
            durability=durability,
            steps=STEPS,
            steps_per_second=whole,
            first_1000_per_second=first,
            last_1000_per_second=last,
            last_to_first=last / first,
            floor_per_second=floor,
            ratio_to_floor=whole / floor,
        )
        await _replay(storage, result)


async def _replay(storage: SQLiteStorage, result: int) -> None:
    started = time.perf_counter()
    journal = await storage.get_journal("chain")
    loaded = time.perf_counter()
    replay = Replay("chain", chain.function(STEPS), MsgpackCodec())
    replay.start()
    for entry in journal.entries:
        replay.feed(entry)
        replay.opened.clear()
    replayed = time.perf_counter()
    assert replay.outcome is not None
    assert replay.outcome.value == result
    show(
        "replay",
        steps=len(journal.entries),
        load_us_per_step=(loaded - started) / len(journal.entries) * 1e6,
        replay_us_per_step=(replayed - loaded) / len(journal.entries) * 1e6,
    )
