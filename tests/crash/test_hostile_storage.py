"""Whatever stands in a storage: who looks at it, and who works with it, is given what there is, or told what is wrong
and where."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow import (
    Client,
    Engine,
    Event,
    Flow,
    ReflowError,
    Retry,
    RunCancelledError,
    RunFailedError,
    RunInfo,
    RunStatus,
    SerializationError,
    SQLiteStorage,
    WaitTimeoutError,
    gather,
    now,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow.testing import VirtualClock
from tests.crash.ledger import fired
from tests.crash.random_cases import law
from tests.support.hostile import NUMBERS, mangled, mangled_text

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]

_files = count()


class Declined(Exception):
    """What a step lists."""


@dataclass
class Item:
    """What is stored."""

    name: str
    prices: list[float]
    note: bytes = b""


go = Event("go", Item)


async def give(name: str) -> Item:
    """A result."""
    return Item(name, [0.5, 1e300])


async def decline() -> None:
    """A failure that is rebuilt."""
    raise Declined("no", 5)


async def flaky() -> None:
    """Never succeeds."""
    raise ValueError("not yet")


@workflow
def errand(well: bool) -> Flow[Item]:
    """A child."""
    given = yield from step(give, "errand")
    if not well:
        yield step(decline)
    return given


@workflow
def story(item: Item, *, count: int = 3) -> Flow[list[str]]:
    """Has one of everything in its journal, and parks with one of everything open."""
    seen = [repr((yield from step(give, item.name)))]
    try:
        yield step(decline).options(raises=Declined)
    except Declined as error:
        seen.append(str(error))
    seen.append(repr((yield from wait_event(go))))
    seen.append(repr((yield from errand(True))))
    for command in (errand(False), wait_event("never", timeout=5)):
        try:
            yield command
        except (RunFailedError, RunCancelledError, WaitTimeoutError) as error:
            seen.append(type(error).__name__)
    seen.append(str((yield now())))
    retry = Retry(max_attempts=3, initial_delay="1h", jitter=False)
    open_: Any = gather(
        step(flaky).options(retry=retry), sleep("1h"), wait_event(go), errand(True), return_exceptions=True
    )
    seen.extend(type(value).__name__ for value in (yield open_))
    return seen


WORKFLOWS = [story, errand]


async def write(path: Path) -> None:
    """A storage with runs in all states, a journal with entries of all kinds, and schedules."""
    clock = VirtualClock()
    async with Client(SQLiteStorage(path, durability="process"), clock=clock) as client:
        engine = Engine(client._storage, WORKFLOWS, clock=clock)
        await engine.enqueue(story(Item("first", [1.5])), run_id="r", tags=["red", "blue"])
        await engine.enqueue(errand(True), run_id="done")
        await engine.enqueue(errand(False), run_id="bad")
        await engine.drain()
        await client.send_event("r", go, Item("go", []))
        await engine.drain()
        clock.advance(10)
        await engine.drain()
        await client.send_event("r", go, Item("more", [0.0]))
        await engine.schedule(errand(True), every="1h", key="hourly")
        await engine.schedule(story(Item("x", [])), cron="30 2 * * mon-fri", tz="Europe/Berlin", key="nightly")


OWNERS = ("run 'r", "run 'done'", "run 'bad'", "workflow 'story'", "workflow 'errand'", "schedule '")


class Cell(NamedTuple):
    """A value in a table: of which column, and of which row."""

    table: str
    column: str
    row: tuple[Any, ...]
    value: Any


# What rows are put together by is compared and not read. A count that has reached the end of its column cannot be added
# to: the storage refuses that for ever, and as after any trouble with the storage, it is tried for ever.
_NUMBERED = {"id", "run", "seq", "attempts", "executions", "idle_claims", "last_message", "generation"}
_KEYS = {"reflow_run": "run_id", "reflow_entry": "run, seq", "reflow_timer": "run, position"}
_KEYS |= {"reflow_message": "run, seq", "reflow_schedule": "key"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Cell]]:
    """The file, and all cells of it that hold something."""
    path = tmp_path_factory.mktemp("hostile") / "written.db"
    anyio.run(write, path)
    cells: list[Cell] = []
    with sqlite3.connect(path) as db:
        db.execute("pragma wal_checkpoint(truncate)")
        for table, keys in _KEYS.items():
            columns = [row[1] for row in db.execute(f"pragma table_info({table})")]
            for key in db.execute(f"select {keys} from {table}").fetchall():
                found = db.execute(f"select * from {table} where ({keys}) = ({marks(key)})", key).fetchone()
                named = zip(columns, found, strict=True)
                cells += [
                    Cell(table, column, key, value)
                    for column, value in named
                    if value is not None and column not in _NUMBERED
                ]
    db.close()
    return path, cells


def marks(values: tuple[Any, ...]) -> str:
    """As many question marks as there are values."""
    return ", ".join("?" * len(values))


@st.composite
def damages(draw: st.DrawFn, cells: list[Cell]) -> tuple[Cell, Any]:
    """A cell, and what stands there instead."""
    table = draw(st.sampled_from(sorted(_KEYS)))
    kind = draw(st.sampled_from([bytes, bytes, str, int]))
    there = [cell for cell in cells if cell.table == table]
    cell = draw(st.sampled_from([cell for cell in there if isinstance(cell.value, kind)] or there))
    match cell.value:
        case bytes():
            return cell, draw(mangled(cell.value))
        case str():
            return cell, draw(mangled_text(cell.value))
        case _:
            return cell, draw(NUMBERS)


async def meet(path: Path) -> tuple[dict[str, RunInfo | None], list[ReflowError]]:
    """Do everything with what is stored there; returns the runs that can be seen in the end, and what was raised."""
    clock, raised = VirtualClock(), list[ReflowError]()
    clock.advance(10)

    async def answered(verb: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        try:
            with anyio.fail_after(8):
                return await verb(*args)
        except ReflowError as error:
            raised.append(error)

    async with Client(SQLiteStorage(path, durability="process"), clock=clock) as client:
        engine = Engine(client._storage, WORKFLOWS, clock=clock)
        for seer in (client, engine):
            for run_id in ("r", "done", "bad"):
                for verb in (seer.get_run, seer.why, seer.get_cut_entries, engine.where):
                    await answered(verb, run_id)
            await answered(seer.list_runs)
            await answered(seer.list_schedules)
            await answered(seer.statistics)
        for run_id in ("done", "bad"):
            run = await answered(engine.handle, run_id)
            if run is not None and (row := await answered(client._storage.get_run, run_id)) and row.status.is_terminal:
                await answered(run.result)
        await answered(engine.resume, "bad")
        await answered(client.send_event, "r", go, Item("yet another", []))
        for wait in (0, "2h", "2h", "30d"):
            clock.advance(wait)
            await answered(engine.drain)
        await answered(client.cancel, "r")
        await answered(engine.drain)
        seen = {run_id: await answered(client.get_run, run_id) for run_id in ("r", "done", "bad")}
        await answered(partial(client.prune, older_than=0, statuses=[RunStatus.CANCELLED]))
    return seen, raised


def test_a_sound_storage_raises_nothing(written: tuple[Path, list[Cell]], tmp_path: Path) -> None:
    """Where nothing is damaged, all of it can be done, and what ends badly ends as it must."""
    shutil.copy(written[0], tmp_path / "sound.db")
    seen, raised = anyio.run(meet, tmp_path / "sound.db")

    assert {"r": RunStatus.COMPLETED, "done": RunStatus.COMPLETED, "bad": RunStatus.FAILED} == {
        run_id: info.status for run_id, info in seen.items() if info is not None
    }
    assert ["RunFailedError"] == [type(error).__name__ for error in raised]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@law(40, long=2_000)
@given(data=st.data())
def test_damage_is_told(written: Any, tmp_path_factory: Any, data: st.DataObject, backend: str) -> None:
    """[19][175] Whatever a cell of a table has become: every verb answers, or raises an error of Reflow's; one about a
    value names its run or schedule, of an entry the step and its position too, and the field."""
    source, cells = written
    cell, value = data.draw(damages(cells))
    path = tmp_path_factory.getbasetemp() / f"damaged-{next(_files)}.db"
    shutil.copy(source, path)
    keys = _KEYS[cell.table]
    with closing(sqlite3.connect(path)) as db, db:
        try:
            db.execute(
                f"update {cell.table} set {cell.column} = ? where ({keys}) = ({marks(cell.row)})", (value, *cell.row)
            )
        except sqlite3.IntegrityError:
            fired("hostile bytes", "refused by a table")
            return
    seen, raised = anyio.run(meet, path, backend=backend)
    path.unlink()
    fired("hostile bytes", f"in {cell.table}")

    told = [str(error) for error in raised if isinstance(error, SerializationError)]
    ended = [info.error for info in seen.values() if info and info.error]
    told += [str(error) for error in ended if error.code == SerializationError.code]
    is_entry = (cell.table, cell.column) == ("reflow_entry", "payload")
    for message in told:
        assert [True, True, True] == [
            any(owner in message for owner in OWNERS),
            "(at " in message,
            not is_entry or "at position " in message,
        ], message
