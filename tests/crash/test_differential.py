"""One random program, everywhere: whatever the storage, the event loop, and however often the engine is stopped, the
journal is the same to the letter, and so is all that can be seen.

What must be equal: of all runs, children and spawned ones included, status, output, error, and the entries of the
journal: in which order, where, what, how it ended, with which attempt, at which instant of virtual time, with which
arguments; what is left of timers and messages; what the body saw; and which work was ordered, and when it was done.
What may differ: lease ids, tracebacks, when an interrupted attempt was begun.

A failure prints the smallest program, and what happens to it from outside.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from reflow import MemoryStorage, SQLiteStorage, StorageAdapter
from tests.crash.ledger import fired
from tests.crash.random_cases import law
from tests.support.programs import Ask, Block, Do, Simple, everywhere, programs
from tests.support.staged import CANCEL, ENDED, RUN, Plan, Play, Played

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]

_files = count()
# Up to where the instants are drawn: as long as most programs take.
_LONG_US = 300_000_000

instants = st.integers(0, _LONG_US)
sent = st.tuples(instants, st.sampled_from(["well", "well", "badly", "oddly", CANCEL]))
plans = st.builds(Plan, st.lists(sent, max_size=3, unique_by=lambda each: each[0]), st.just(()))


class Place:
    """Where programs are played."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def play(self, program: Block, plan: Plan, storage: str, backend: str, *, ticks: bool = False) -> Played:
        """Play a program to its end in a fresh storage."""
        path = self._folder / f"{next(_files)}.db"
        fresh: StorageAdapter = MemoryStorage() if storage == "memory" else SQLiteStorage(path, durability="process")
        play = Play(program, fresh)
        played = anyio.run(play.played_by_ticks if ticks else play.played, plan, backend=backend)
        for file in self._folder.glob(f"{path.name}*"):
            file.unlink()
        return played


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder for files."""
    return Place(tmp_path_factory.mktemp("differential"))


@law(40, long=1_000)
@given(program=programs(), plan=plans)
def test_storages_and_event_loops_agree(place: Place, program: Block, plan: Plan) -> None:
    """[14][63][115] On memory and SQLite, on asyncio and trio, a program does the same things in the same order."""
    expected = place.play(program, plan, "memory", "asyncio")
    fired("random program", "with events, children and cancellations")
    for storage, backend in (("memory", "trio"), ("sqlite", "asyncio"), ("sqlite", "trio")):
        assert expected == place.play(program, plan, storage, backend)
        fired("random program", f"again on {storage} under {backend}")

    assert {run["status"] for run in expected.runs.values()} <= ENDED
    event(f"{expected.runs[RUN]['status']}")
    event(f"about {len(expected.instants) // 5 * 5} entries")


@law(60, long=1_500)
@given(
    program=programs(),
    plan=plans,
    where=st.sampled_from([("memory", "asyncio"), ("memory", "trio"), ("sqlite", "asyncio"), ("sqlite", "trio")]),
    data=st.data(),
)
def test_stopping_changes_nothing(place: Place, program: Block, plan: Plan, where: Any, data: st.DataObject) -> None:
    """[28][30][32][115] An engine that is stopped again and again, at, before and after the instants at which the run
    goes on, each time followed by another one that begins with a replay, leaves the journal of one that was not."""
    expected = place.play(program, plan, "memory", "asyncio")
    moments = sorted({instant + off for instant in expected.instants for off in (-1, 0, 1)} | {0, 1})
    stops = data.draw(st.lists(st.sampled_from(moments), min_size=1, max_size=6, unique=True))
    again = place.play(program, plan._replace(stops=stops), *where)
    fired("random program", "played on")
    fired("engine stopped", f"in the middle, on {where[0]}", len(stops))

    assert expected == again


@law(40, long=1_000)
@given(
    program=programs(),
    names=st.lists(st.sampled_from(["well", "badly"]), max_size=3),
    storage=st.sampled_from(["memory", "sqlite"]),
)
def test_ticks_change_nothing(place: Place, program: Block, names: list[str], storage: str) -> None:
    """[28][69] A run that is taken up by another engine for each tick, and is in no memory in between, leaves the
    journal of one that an engine kept."""

    def alone(part: Any) -> Any:
        # In a tick, children would begin only when what runs beside them has ended.
        if isinstance(part, Ask) and part.kind == "child":
            return Do("child", "well" if part.ends == "well" else "badly")
        return Simple("uuid") if part == Simple("spawn") else part

    program = everywhere(program, alone)
    plan = Plan([(0, name) for name in names])
    expected = place.play(program, plan, "memory", "asyncio")
    again = place.play(program, plan, storage, "asyncio", ticks=True)
    fired("random program", "by ticks")

    assert expected == again
