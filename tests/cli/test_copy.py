"""`reflow copy`: the runs of one storage are those of the other, and go on there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from reflow import (
    Engine,
    Flow,
    Retry,
    RunStatus,
    SQLiteStorage,
    continue_as_new,
    sleep,
    step,
    transaction,
    wait_event,
    workflow,
)
from reflow.cli import main
from reflow.storage._sql.copying import TABLES
from reflow.storage._sqlite import schema
from reflow.testing import VirtualClock
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def give(value: Any) -> Any:
    """Returns what it is given."""
    return value


broken: set[str] = set()


async def fragile(name: str) -> str:
    """Fails while its name is in `broken`."""
    if name in broken:
        raise ConnectionError(name)
    return name


@workflow
def sleeper() -> Flow[str]:
    """Sleeps for two weeks."""
    first = yield from step(give, "slept")
    yield sleep("14d")
    return first


@workflow
def asker() -> Flow[list[int]]:
    """Waits for two answers."""
    one = yield from wait_event("answer", int)
    two = yield from wait_event("answer", int)
    return [one, two]


@workflow
def retrier() -> Flow[str]:
    """Tries again after an hour."""
    return (yield from step(fragile, "retrier").options(retry=Retry(initial_delay="1h", jitter=False)))


@workflow
def parent() -> Flow[list[int]]:
    """Waits for a child that waits for answers."""
    return (yield from asker())


@workflow
def failer() -> Flow[str]:
    """Fails at its second step."""
    yield step(give, 1)
    return (yield from step(fragile, "failer"))


@workflow
def counter(left: int) -> Flow[int]:
    """Begins anew until nothing is left, then sleeps."""
    yield step(give, left)
    if left:
        yield continue_as_new(counter(left - 1))
    yield sleep("1h")
    return left


@workflow
def giver(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


def write(db: sqlite3.Connection) -> int:
    """Reads what is written."""
    return int(db.execute("select 17").fetchone()[0])


@workflow
def writer() -> Flow[int]:
    """One step in a transaction."""
    return (yield from transaction(write))


WORKFLOWS = [sleeper, asker, retrier, parent, failer, counter, giver, writer]


async def fill(world: World) -> None:
    """Runs in every status, with all that a storage can hold of them."""
    broken.update(("retrier", "failer"))
    engine = world.engine(*WORKFLOWS)
    for call in (sleeper(), asker(), retrier(), parent(), failer(), counter(2)):
        await engine.enqueue(call, run_id=call.workflow.name, tags=["first", call.workflow.name])
    await engine.enqueue(giver(1), run_id="completed", idempotency_key="once")
    await engine.enqueue(writer(), run_id="written")
    await engine.enqueue(sleeper(), run_id="cancelled", priority=-3)
    await engine.enqueue(failer(), run_id="failed", priority=7)
    await engine.drain()
    # Failed twice, so that something was cut; an event that is taken, one that is not yet, and one of no interest.
    await engine.resume("failer")
    await world.send("asker", "answer", 1, event_id="a")
    await world.send("asker", "news", "unread", event_id="b")
    await world.cancel("cancelled")
    await engine.schedule("giver", {"value": 5}, every="1h", key="hourly")
    await engine.drain()
    await world.send("asker:0", "early")
    await engine.resume("failer")
    await engine.enqueue(giver(3), run_id="delayed", delay="3d")
    await engine.enqueue(giver(4), run_id="left by a kill")
    await world.take_away("left by a kill")


async def filled(path: Path) -> VirtualClock:
    """A file with runs in every status, and the time of its world."""
    storage = SQLiteStorage(path, durability="process")
    await storage.initialize()
    world = World(storage)
    await fill(world)
    await storage.close()
    return world.clock


def contents(path: Path) -> dict[str, list[Any]]:
    """All rows of all tables."""
    db = sqlite3.connect(path)
    rows = {table: sorted(db.execute(f"select * from {table}"), key=repr) for table in (*TABLES, "reflow_schema")}
    db.close()
    return rows


def execute(path: Path, statement: str, values: Sequence[object] = ()) -> None:
    """Change a file by hand."""
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


async def test_every_row_is_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy, and a copy of the copy, have every row of every table, of runs in every status; the source is as it
    was."""
    source, target, back = (tmp_path / name for name in ("source.db", "target.db", "back.db"))
    await filled(source)
    before = contents(source)

    codes = main(["copy", str(source), str(target)]), main(["copy", f"sqlite:///{target}", str(back)])

    assert (0, 0) == codes
    assert (before, before, before) == (contents(source), contents(target), contents(back))
    statuses = {row[5] for row in before["reflow_run"]}
    assert ({*RunStatus}, []) == (statuses, [table for table, rows in before.items() if not rows])
    counts = "".join(f"{len(before[table]):>10} {table}\n" for table in TABLES)
    said = capsys.readouterr()
    assert ("", True) == (said.err, said.out.startswith(f"{counts}{source} is copied to {target}"))


async def test_runs_go_on_in_the_copy(tmp_path: Path) -> None:
    """An engine on the copy finishes every run with the right result, numbers new runs on, and takes no event twice."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    clock = await filled(source)
    assert 0 == main(["copy", str(source), str(target)])

    broken.clear()
    clock.advance("30m")
    async with Engine(SQLiteStorage(target, durability="process"), WORKFLOWS, clock=clock) as engine:
        assert await engine.send_event("asker", "answer", 100, event_id="a")
        for run_id, answer in (("asker", 2), ("parent:0", 3), ("parent:0", 4)):
            await engine.send_event(run_id, "answer", answer)
        await engine.drain()
        assert "completed" == (await engine.enqueue(giver(1), idempotency_key="once")).run_id
        clock.advance("15d")
        await engine.drain()
        await engine.resume("failed")
        await engine.drain()
        infos = {run.run_id: await engine.get_run(run.run_id) for run in (await engine.list_runs()).runs}

    expected = {
        **{"sleeper": "slept", "asker": [1, 2], "retrier": "retrier", "parent": [3, 4], "failer": "failer"},
        **{
            "counter": 0,
            "completed": 1,
            "written": 17,
            "failed": "failer",
            "delayed": 3,
            "left by a kill": 4,
            "parent:0": [3, 4],
        },
    }
    ended = {name: info.output for name, info in infos.items() if info and info.status is RunStatus.COMPLETED}
    assert expected == {name: output for name, output in ended.items() if name in expected}
    assert {RunStatus.COMPLETED, RunStatus.CANCELLED} == {info.status for info in infos.values() if info}
    # What the schedule has started.
    assert {5} == {output for name, output in ended.items() if name not in expected}


async def test_a_run_that_a_worker_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a worker holds a run, nothing is copied and no file made; with `--force` it is, lease and all."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    await filled(source)
    execute(source, "update reflow_run set due_at = ? where status = ?", (2**62, RunStatus.RUNNING))

    refused = main(["copy", str(source), str(target)])
    said, is_made = capsys.readouterr(), target.exists()
    forced = main(["copy", str(source), str(target), "--force"])

    assert (1, "", False, 1) == (refused, said.out, is_made, said.err.count("\n"))
    assert said.err.startswith(f"reflow copy: storage could not copy: workers hold 1 runs of {source}; stop them first")
    assert (0, contents(source)) == (forced, contents(target))


async def test_a_target_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A target that has rows is refused, be it only a schedule, and left as it is."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    await filled(source)
    await filled(target)
    for table in TABLES[:-1]:
        execute(target, f"delete from {table}")
    before = contents(target)

    code = main(["copy", str(source), str(target)])

    assert (1, before) == (code, contents(target))
    why = "the target is not empty, it has rows in reflow_schedule; name a new one"
    assert f"reflow copy: storage could not copy: {why}\n" == capsys.readouterr().err


@pytest.mark.parametrize("name", ["app.db", "./app.db", "sqlite:///app.db", "linked.db", "second.db"])
async def test_a_copy_onto_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The source is refused as the target, by whatever path it is named, and though it is empty."""
    storage = SQLiteStorage(tmp_path / "app.db")
    await storage.initialize()
    await storage.close()
    os.symlink(storage.path, tmp_path / "linked.db")
    os.link(storage.path, tmp_path / "second.db")
    monkeypatch.chdir(tmp_path)

    code = main(["copy", "app.db", name])

    expected = "reflow copy: source and target are the same, app.db; name a new one as the target\n"
    assert (2, expected) == (code, capsys.readouterr().err)


@pytest.mark.parametrize("target", ["postgresql://me@host.invalid/app", "postgres://you:secret@host.invalid/app"])
async def test_a_copy_of_a_database_onto_itself(capsys: pytest.CaptureFixture[str], target: str) -> None:
    """A database is refused as its own target, whoever connects to it, and no server is asked."""
    assert 2 == main(["copy", "postgresql://me@host.invalid/app", target, "--schema", "jobs"])
    assert "source and target are the same" in capsys.readouterr().err


async def test_a_source_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A source that does not exist is said to be missing, and neither file is made."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"

    code = main(["copy", str(source), str(target)])

    expected = f"reflow copy: storage could not copy: there is no file {source}\n"
    assert (1, expected, False, False) == (code, capsys.readouterr().err, source.exists(), target.exists())


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (0, "has a table reflow_schema that is not Reflow's; use another file"),
        (schema.VERSION + 1, "was written by a newer Reflow (schema {version}; this one reads up to {known})"),
    ],
)
async def test_a_source_of_another_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int, why: str
) -> None:
    """A source whose tables are of another version of Reflow is refused, with what to do about it."""
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    await filled(source)
    execute(source, "update reflow_schema set version = ?", (version,))

    code = main(["copy", str(source), str(target)])

    assert (1, False) == (code, target.exists())
    assert f"{source} {why.format(version=version, known=schema.VERSION)}" in capsys.readouterr().err
