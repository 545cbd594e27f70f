"""A real process on a real file kills itself at a statement of SQL; another one takes its runs up, and may do the same.

In the long form that is every point of every scenario, the opening of a new file and its tables included.
"""

from __future__ import annotations

import random
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from shutil import copytree, rmtree

import msgspec
import pytest

from tests.crash.ledger import fired, scaled
from tests.crash.nursery import Nursery
from tests.support.workflows import SCENARIOS, Body, Scenario

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]

AT_ONCE, AGAIN = 12, 4
NEVER = 1_000_000


class Case:
    """One file of a scenario, and the processes that work on it one after the other, on asyncio or on trio."""

    def __init__(self, folder: Path, scenario: Scenario, nursery: Nursery, backend: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._scenario = scenario
        self._nursery = nursery
        self._backend = backend
        self._lives = 0
        # Stored when a process died, and how much of the log there was then.
        self._finished: list[tuple[set[Body], int]] = []

    def die(self, point: int) -> str | None:
        """Where a process died at that point; None where it had ended before."""
        code = self._live(point)
        assert code in (0, -signal.SIGKILL), self._errors
        if code == 0:
            return None
        self._look()
        return str(self._log[-1])

    def finish(self) -> int:
        """A process works to the end; at how many points it could have died."""
        assert 0 == self._live(NEVER), self._errors
        return int(self._noted("points")[-1])

    def check(self) -> None:
        """The run has ended as it must, and no finished body ran again."""
        scenario = self._scenario
        with closing(sqlite3.connect(self._file)) as db:
            runs = db.execute("select run_id, status, output, ended_at is not null from reflow_run").fetchall()
            of_run = "reflow_entry join reflow_run on id = run where run_id = 'r'"
            names = tuple(name for [name] in db.execute(f"select name from {of_run} order by seq"))
            twice = db.execute("select run, position from reflow_entry group by 1, 2 having count(*) > 1").fetchall()
            left = db.execute("select name from reflow_message where kind = 'event'").fetchall()
            assert [("ok",)] == db.execute("pragma quick_check").fetchall()
        [end] = [(status, output and msgspec.msgpack.decode(output)) for run, status, output, _ in runs if run == "r"]
        assert (scenario.status, scenario.result) == end
        assert [1] * scenario.runs == [has_ended for *_, has_ended in runs]
        assert names == (scenario.entries or names)
        assert ([], []) == (twice, left)
        for finished, seen in self._finished:
            assert set() == finished & set(_bodies(self._log[seen:], "began"))

    @property
    def _file(self) -> Path:
        return self.folder / "test.db"

    @property
    def _log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    @property
    def _errors(self) -> str:
        return (self.folder / "stderr").read_text()

    def _noted(self, what: str) -> list[str]:
        return [line.partition("\t")[2] for line in self._log if line.startswith(f"{what}\t")]

    def _live(self, point: int) -> int:
        life = [str(self._lives), str(point)]
        command = ["tests.crash.life", self._scenario.name, str(self._file), str(self.folder / "log"), self._backend]
        self._lives += 1
        with (self.folder / "stderr").open("ab") as errors:
            child = self._nursery.start([*command, *life], {}, errors)
        with child.stdin:
            return child.wait()

    def _look(self) -> None:
        """At a copy of what was left: opening a file changes it."""
        copy = self.folder.with_name(f"{self.folder.name}-left")
        copytree(self.folder, copy)
        finished: set[Body] = set()
        with closing(sqlite3.connect(copy / "test.db")) as db:
            assert [("ok",)] == db.execute("pragma quick_check").fetchall()
            if db.execute("select 1 from sqlite_master where name = 'reflow_entry'").fetchone():
                finished.update(
                    db.execute("select run_id, generation, position from reflow_entry join reflow_run on id = run")
                )
                lives = dict(db.execute("select run_id, generation from reflow_run"))
                # Of generations before nothing else is left.
                finished.update(body for body in _bodies(self._log, "ended") if body[1] < lives.get(body[0], 0))
        rmtree(copy)
        self._finished.append((finished, len(self._log)))


def _bodies(log: Sequence[str], what: str) -> Iterator[Body]:
    for line in log:
        if line.startswith(f"{what}\t"):
            run_id, generation, position = line.partition("\t")[2].split()
            yield run_id, int(generation), position


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_killed_at_a_statement(tmp_path: Path, nursery: Nursery, scenario: Scenario) -> None:
    """[26][28][29][30] A process that is killed before or after any statement leaves a whole file; the next one
    completes the run with the same result, and no finished body runs again."""
    whole = Case(tmp_path / "whole", scenario, nursery, "asyncio")
    points = chosen(whole.finish(), AT_ONCE, scenario)
    died = [survived(tmp_path, scenario, nursery, point) for point in points]

    # How many statements there are varies a little, with what shares a transaction.
    assert len(points) * 0.8 <= sum(died)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_killed_again_in_recovery(tmp_path: Path, nursery: Nursery, scenario: Scenario) -> None:
    """[28] Nor is anything lost when the process that takes the run up half way is killed at a statement as well."""
    whole = Case(tmp_path / "whole", scenario, nursery, "asyncio")
    half = whole.finish() // 2
    recovered = Case(tmp_path / "recovered", scenario, nursery, "asyncio")
    recovered.die(half)
    points = chosen(recovered.finish(), AGAIN, scenario)
    died = [survived(tmp_path, scenario, nursery, half, point) for point in points]

    assert len(points) * 0.8 <= sum(died)


def chosen(count: int, sample: int, scenario: Scenario) -> list[int]:
    """All points in the long form, else some, always the same."""
    every = range(1, count + 1)
    return random.Random(scenario.name).sample(every, scaled(min(sample, count), long=count))


def survived(folder: Path, scenario: Scenario, nursery: Nursery, *points: int) -> bool:
    """Whether processes died at these points, one after the other; the last one finishes in any case."""
    name = "-".join(map(str, points))
    case = Case(folder / name, scenario, nursery, ("asyncio", "trio")[points[-1] // 2 % 2])
    where = [case.die(point) for point in points]
    case.finish()
    case.check()
    rmtree(case.folder)
    if where[-1] is not None:
        fired("SIGKILL", where[-1].partition("\t")[0] + (", again" if len(points) > 1 else ""))
    return where[-1] is not None
