"""Fleets of engines on one storage, in which everything goes wrong that can, as seeds say.

A failure tells its seed: `simulate(..., seeds=[17])` repeats it. More seeds, once in a while:
`SEEDS=0:2000 python -m pytest tests/crash/test_simulation.py`.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from reflow import (
    Event,
    Flow,
    RunStatus,
    SQLiteStorage,
    StorageAdapter,
    continue_as_new,
    gather,
    race,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow.testing import SimulatedRuns, simulate
from reflow.testing.lockstep import Backend
from tests.support.workflows import SCENARIOS, Scenario

FIRST, LAST = map(int, os.environ.get("SEEDS", "0:16").split(":"))
SEEDS = range(FIRST, LAST)

number = Event("number", int)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The event loop."""
    return request.param  # type: ignore[no-any-return]


async def give(value: int) -> int:
    """An async body."""
    return value


@workflow
def leaf(value: int) -> Flow[int]:
    """A step and a sleep."""
    given = yield from step(give, value)
    yield sleep("1m")
    return given


@workflow
def family(value: int) -> Flow[list[int]]:
    """Children in a row and side by side, a run of its own, and events, in time and not."""
    first = yield from leaf(value)
    second, third = yield from gather(leaf(value + 1), step(give, value))
    yield spawn(leaf(value + 100))
    fourth = yield from wait_event(number)
    winner = yield from race(wait_event("never"), sleep("1h"))
    fifth = yield from wait_event(number, timeout="100h")
    return [first, second, third, winner.index, *sorted([fourth, fifth])]


@workflow
def counting(left: int, total: int) -> Flow[int]:
    """Goes on as new, and takes an event in each life."""
    total += yield from wait_event(number)
    if left:
        yield from continue_as_new(counting(left - 1, total))
    return total


@workflow
def guarded(value: int) -> Flow[int]:
    """Works in rounds, and cleans up whatever comes."""
    try:
        for each in range(3):
            yield from leaf(each)
            yield sleep("1h")
        return value
    finally:
        yield step(give, value).options(name="clean_up")


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if each.cancels is None], ids=str)
def test_the_corpus(scenario: Scenario, backend: Backend) -> None:
    """[23][28][112][115][119][120] Whatever goes wrong, each scenario ends with the one result that it must have."""

    def right(ended: SimulatedRuns) -> None:
        assert [scenario.result] * 2 == [ended.runs[f"run-{index}"].output for index in range(2)]

    found = simulate(
        [scenario.call, scenario.call],
        workflows=scenario.others,
        events=[(index, name, payload) for index in range(2) for name, payload in scenario.events],
        invariant=right,
        seeds=SEEDS,
        backend=backend,
    )

    assert len(SEEDS) == found.seeds


def families(ended: SimulatedRuns) -> None:
    """All runs of the families are as they must be."""
    runs = ended.runs
    outputs = [runs[f"run-{index}"].output for index in range(3)]
    assert [[1, 2, 1, 1, 5, 6], 14, 101] == [*outputs[:2], runs["run-0:2"].output]
    assert runs["run-2"].status in (RunStatus.CANCELLED, RunStatus.COMPLETED)
    names = [entry.name for entry in runs["run-2"].entries]
    assert len(names) <= 1 or "clean_up" in names
    assert {RunStatus.COMPLETED} == {run.status for run_id, run in runs.items() if not run_id.startswith("run-2")}


FAMILIES: dict[str, Any] = {
    "calls": [family(1), counting(2, 0), guarded(9)],
    "workflows": [leaf],
    "events": [(0, number, 5), (0, number, 6), (1, number, 2), (1, "number", 4), (1, "number", 8)],
    "cancels": [2],
    "invariant": families,
}


def test_families(backend: Backend) -> None:
    """[80][132][134][148] Children, events, cancellation and runs without end, on whatever engine: each child is there
    once, each event is taken once, and clean-up is done."""
    found = simulate(**FAMILIES, seeds=SEEDS, backend=backend)

    assert len(SEEDS) == found.seeds


def test_families_in_a_file(tmp_path: Path, backend: Backend) -> None:
    """[121] The same in an SQLite file."""
    files = count()

    def fresh() -> StorageAdapter:
        return SQLiteStorage(tmp_path / f"{next(files)}.db", durability="process")

    found = simulate(**FAMILIES, storage=fresh, seeds=SEEDS[: len(SEEDS) // 8], backend=backend)

    assert len(SEEDS) // 8 == found.seeds


def test_many_runs_and_engines(backend: Backend) -> None:
    """[123] Twenty runs on six engines, and twenty faults."""

    def right(ended: SimulatedRuns) -> None:
        assert list(range(20)) == [ended.runs[f"run-{index}"].output for index in range(20)]

    calls = [leaf(value) for value in range(20)]
    found = simulate(calls, invariant=right, engines=6, faults=20, seeds=SEEDS[: len(SEEDS) // 4], backend=backend)

    assert found.faults
