"""list_runs, statistics, and what get_run says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reflow import (
    ConfigError,
    Failure,
    Flow,
    MemoryStorage,
    Retry,
    RunStatus,
    StorageError,
    sleep,
    step,
    workflow,
)
from reflow._core.duration import from_micros
from reflow._core.journal import NEVER, Timer
from tests.support.bodies import Steps, give
from tests.support.parked import child_of, leave
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


async def broken() -> None:
    """Fails."""
    raise ConnectionError("busy")


@workflow
def quick(value: int) -> Flow[int]:
    """One step."""
    return (yield from step(give, value))


@workflow
def sleeper() -> Flow[None]:
    """Sleeps."""
    yield sleep("1h")


@workflow
def failing() -> Flow[None]:
    """Fails."""
    yield step(give, 1)
    raise LookupError("no")


async def listed(world: World, **options: Any) -> list[str]:
    """The ids of the runs on one page."""
    return [run.run_id for run in (await world.engine().list_runs(**options)).runs]


async def various(world: World) -> None:
    """Runs a (completed), b (sleeping), c (failed), d (pending)."""
    engine = world.engine(quick, sleeper, failing)
    await engine.enqueue(quick(1), run_id="a", tags=["x", "y"])
    await engine.enqueue(sleeper(), run_id="b", tags=["x"])
    await engine.enqueue(failing(), run_id="c", tags=["y"])
    await engine.drain()
    await engine.enqueue(quick(2), run_id="d", delay="1m")


async def test_newest_first(world: World) -> None:
    """[143] `list_runs` gives the run first that was created last, with its status and error, and reads no journal."""
    await various(world)
    tapped = TappedStorage(world.storage)
    page = await world.engine(storage=tapped).list_runs()

    assert [
        ("d", "quick", RunStatus.PENDING, None),
        ("c", "failing", RunStatus.FAILED, "LookupError: no"),
        ("b", "sleeper", RunStatus.SLEEPING, None),
        ("a", "quick", RunStatus.COMPLETED, None),
    ] == [(run.run_id, run.workflow, run.status, run.error and str(run.error)) for run in page.runs]
    assert page.cursor is None
    assert ["list_runs"] == tapped.log


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"workflow": "quick"}, ["d", "a"]),
        ({"status": "failed"}, ["c"]),
        ({"status": RunStatus.FAILED}, ["c"]),
        ({"status": ["pending", RunStatus.COMPLETED]}, ["d", "a"]),
        ({"tags": ["x"]}, ["b", "a"]),
        ({"tags": {"x", "y"}}, ["a"]),
        ({"tags": ["x"], "status": "completed", "workflow": "quick"}, ["a"]),
        ({"tags": ["z"]}, []),
        ({"workflow": "nobody"}, []),
        ({"parent": "a"}, []),
        ({"limit": 2}, ["d", "c"]),
    ],
    ids=str,
)
async def test_filters(world: World, options: Any, expected: list[str]) -> None:
    """[111][143] Runs are found by status, workflow and tags, of which all have to be there; no match is an empty
    list."""
    await various(world)

    assert expected == await listed(world, **options)


async def test_children(world: World) -> None:
    """The children of a run are found by its id."""
    await world.engine(sleeper).enqueue(sleeper(), run_id="r")
    children = [child_of(world, "r", position, "quick") for position in ("0", "1")]
    await leave(world, "r", RunStatus.WAITING, children=children)

    assert ["r:1", "r:0"] == await listed(world, parent="r")


async def test_pages(world: World) -> None:
    """[143] Pages that follow each other have each run once, also of equal times and while others are created."""
    engine = world.engine(quick)
    runs = await engine.enqueue_many([quick(number) for number in range(7)])
    found: list[str] = []
    page = await engine.list_runs(limit=3)
    while True:
        found += [run.run_id for run in page.runs]
        await engine.enqueue(quick(0))
        if page.cursor is None:
            break
        page = await engine.list_runs(limit=3, cursor=page.cursor)

    assert [run.run_id for run in reversed(runs)] == found


async def test_the_default_limit(world: World) -> None:
    """[143] Without a limit a page has 100 runs."""
    engine = world.engine(quick)
    await engine.enqueue_many([quick(number) for number in range(101)])
    page = await engine.list_runs()

    assert 100 == len(page.runs)
    assert page.cursor is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit is 0; write a whole number from 1 to 1000"),
        ({"limit": 1_001}, "limit is 1001"),
        ({"limit": True}, "limit is True"),
        ({"limit": "all"}, "limit is 'all'"),
        ({"status": "done"}, "status is 'done': 'done' is not a valid RunStatus; write one of pending, running"),
        ({"status": ["failed", 7]}, "'7' is not a valid RunStatus"),
        ({"tags": "x"}, "tags is 'x'; write a list of texts"),
        ({"workflow": ""}, "workflow is ''"),
        ({"parent": 7}, "parent is 7"),
        ({"cursor": 7}, "cursor is 7"),
    ],
    ids=str,
)
async def test_wrong_filters(world: World, options: Any, message: str) -> None:
    """[143] A limit, status, tag, name, id or cursor that is none is a `ConfigError` that quotes it."""
    with pytest.raises(ConfigError, match=message):
        await listed(world, **options)


async def test_a_wrong_cursor(world: World) -> None:
    """A text that no page has given is no cursor."""
    with pytest.raises(StorageError, match="'x' is no cursor of a page"):
        await listed(world, cursor="x")


async def test_statistics(world: World) -> None:
    """`statistics` counts by workflow and status, and says how far behind the workers are."""
    await various(world)
    world.clock.advance("90s")
    statistics = await world.engine(quick, concurrency=7).statistics()
    of_a_client = await world.engine(quick).statistics()

    assert {
        "quick": {RunStatus.COMPLETED: 1, RunStatus.PENDING: 1},
        "sleeper": {RunStatus.SLEEPING: 1},
        "failing": {RunStatus.FAILED: 1},
    } == statistics.runs
    assert (30.0, 0, 7) == (statistics.behind_s, statistics.slots_used, statistics.slots_free)
    assert from_micros(world.clock.now()) - timedelta(seconds=30) == statistics.next_due_at
    assert isinstance(world.storage, MemoryStorage) == (of_a_client.commits is None)


async def test_statistics_of_nothing(world: World) -> None:
    """Where there are no runs, nothing is counted and nobody is behind."""
    statistics = await world.engine().statistics()

    assert ({}, None, 0.0) == (statistics.runs, statistics.next_due_at, statistics.behind_s)


async def test_slots(world: World) -> None:
    """`statistics` says how many slots of this engine are used, and how many are free."""
    steps = Steps("held")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "held")

    async with world.engine(flow, concurrency=3) as engine:
        await engine.enqueue_many([flow(), flow()])
        while len(steps.begun) < 2:
            await steps.until("held begins")
        statistics = await engine.statistics()
        steps.held["held"].set()

    assert (2, 1) == (statistics.slots_used, statistics.slots_free)


async def test_a_failed_step(world: World) -> None:
    """[142] A failed step shows type, message, traceback and attempts."""

    @workflow
    def flow() -> Flow[None]:
        yield step(broken).options(retry=Retry(max_attempts=2, initial_delay=0))

    [entry] = (await world.settle(flow())).entries

    assert ("broken", "failed", 2) == (entry.name, entry.status, entry.attempts)
    assert entry.error is not None
    assert ("ConnectionError", "busy") == (entry.error.type, entry.error.message)
    assert "raise ConnectionError" in entry.error.traceback


async def test_what_is_open(world: World) -> None:
    """[142] Behind the journal come the commands that are not settled: what they wait for, and until when."""
    await world.engine(sleeper).enqueue(sleeper(), run_id="r")
    now = world.clock.now()
    last = world.codec.encode(Failure("ConnectionError", "busy"))
    timers = [
        Timer("0", "sleep", "sleep", now + 5_000_000, 0, now),
        Timer("1", "wait_event", "approval", NEVER, 0, now),
        Timer("2", "wait_event", "approval", now + 7_000_000, 0, now),
        Timer("3", "child", "quick", NEVER, 0, now),
        Timer("4", "step", "charge", now + 9_000_000, 2, now, last),
    ]
    await leave(world, "r", RunStatus.WAITING, timers=timers, due_at=now + 5_000_000)
    entries = (await world.info()).entries

    assert [
        ("sleeping", 5),
        ("waiting", None),
        ("waiting", 7),
        ("waiting", None),
        ("retrying", 9),
    ] == [(e.status, None if e.due_at is None else (e.due_at - e.started_at).total_seconds()) for e in entries]
    assert [None] * 4 + ["ConnectionError: busy"] == [entry.error and str(entry.error) for entry in entries]
