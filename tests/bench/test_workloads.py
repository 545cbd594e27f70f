"""The benchmarks themselves: every workload still runs, verifies its results, and shows them."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.bench import chain, profile, sleepers
from tests.bench.__main__ import BACKENDS, WORKLOADS, main
from tests.bench.floor import Rows, batches, floor_seconds
from tests.bench.setting import Setting

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_runs(name: str, backend: str, capsys: pytest.CaptureFixture[str]):
    """A workload in its smallest size ends, and prints lines of JSON with finite figures and the durability."""
    main([name, "--tiny", "--json", "--backend", backend, "--durability", "process"])
    machine, *results = map(json.loads, capsys.readouterr().out.splitlines())
    figures = [value for result in results for value in result.values() if isinstance(value, float)]

    assert {"python", "sqlite", "system", "cores"} == set(machine)
    assert {(backend, "process")} == {(result["backend"], result["durability"]) for result in results}
    assert figures
    assert all(map(math.isfinite, figures))


def test_a_result_is_a_line_and_a_table(capsys: pytest.CaptureFixture[str]):
    """Without `--json`, each result is shown twice: for machines and for people."""
    main(["wide", "--tiny", "--backend", "asyncio"])
    _, _, line, title, *table = capsys.readouterr().out.splitlines()

    assert json.loads(line)["workload"] == title
    assert list(json.loads(line))[1:] == [row.split()[0] for row in table]


@pytest.mark.parametrize("rows", [Rows(1, 20), Rows(7, 5), Rows(4, 1, asleep=True)])
@pytest.mark.parametrize("commits", [1, 4, 15])
def test_the_floor_commits_as_often_as_it_is_told_to(rows: Rows, commits: int):
    """The floor's transactions are as many as asked for, have all rows between them, and differ by one row at most."""
    sizes = [len(batch) for batch in batches(rows, commits)]

    assert (commits, rows.statements) == (len(sizes), sum(sizes))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("once", "asleep"), [(chain.once, False), (sleepers.once, True)])
def test_the_floor_writes_the_rows_that_the_engine_writes(
    once: Callable[..., Awaitable[object]], asleep: bool, tmp_path: Path
):
    """The floor fills the columns that the engine fills, with values of the same types."""
    by_engine, by_floor = (Setting(tmp_path / name, "asyncio", "process", "tiny") for name in ("engine", "floor"))
    for setting in (by_engine, by_floor):
        setting.folder.mkdir()
    by_engine.run(once, by_engine, 1)
    floor_seconds(by_floor, Rows(1, 1, asleep), 2)

    assert types(by_engine) == types(by_floor)


def types(setting: Setting) -> dict[str, set[tuple[str, ...]]]:
    """Of each table in the one file of a setting, the types of every row's values."""
    [path] = setting.folder.glob("*.db")
    with closing(sqlite3.connect(path)) as db:
        return {
            table: {tuple(type(value).__name__ for value in row) for row in db.execute(f"select * from {table}")}
            for table in ("reflow_run", "reflow_entry", "reflow_timer")
        }


def test_a_profile_names_functions(capsys: pytest.CaptureFixture[str]):
    """A profile of a workload shows the engine's functions by the time they took."""
    profile.main(["wide"])

    assert "lane.py" in capsys.readouterr().out
