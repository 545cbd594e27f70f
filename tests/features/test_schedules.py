"""Schedules: stored, checked, fired once for each occurrence."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from anyio import create_task_group, wait_all_tasks_blocked

from reflow import (
    Client,
    ConfigError,
    Engine,
    Flow,
    RunStatus,
    SerializationError,
    SQLiteStorage,
    ValidationError,
    WorkflowNotFoundError,
    sleep,
    step,
    workflow,
)
from reflow._core.duration import from_micros
from reflow.storage.records import ScheduleRow
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio

# The clock of the world begins on Sunday, 2025-06-15 at 15:06:40 UTC.
began: list[Any] = []


@dataclass
class Folder:
    """An input."""

    path: str
    depth: int = 1


async def note(value: Any) -> Any:
    """Notes what it is given."""
    began.append(value)
    return value


@workflow
def tidy(folder: Folder) -> Flow[str]:
    """One step."""
    return (yield from step(note, folder.path))


@workflow(name="tidy", version=2)
def tidy_two(folder: Folder) -> Flow[str]:
    """A newer version."""
    return (yield from step(note, f"new {folder.path}"))


@workflow
def slow() -> Flow[None]:
    """Takes a day."""
    yield sleep("1d")


TMP = Folder("tmp")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    began.clear()


async def ids(world: World) -> list[str]:
    """The ids of all runs, the oldest first."""
    return [run.run_id for run in reversed((await world.engine().list_runs()).runs)]


async def passes(world: World, engine: Engine, *durations: str) -> list[int]:
    """How many runs there are after each of these times, with the engine at work."""
    counts: list[int] = []
    for duration in durations:
        world.clock.advance(duration)
        await engine.drain()
        counts.append(len(await ids(world)))
    return counts


# ---- registering -----------------------------------------------------------------------------------------------------


async def test_what_is_stored(world: World) -> None:
    """[151] `schedule` stores a recurrence and returns its key; `list_schedules` shows it as it is."""
    engine = world.engine(tidy)
    key = await engine.schedule(tidy(TMP), every="15m", key="tidy-up", missed="all", overlap="skip")
    [info] = await engine.list_schedules()

    assert "tidy-up" == key == info.key
    assert ("tidy", 1, {"folder": {"path": "tmp", "depth": 1}}) == (info.workflow, info.version, info.input)
    assert (timedelta(minutes=15), None, "UTC") == (info.every, info.cron, info.tz)
    assert ("all", "skip", False, None) == (info.missed, info.overlap, info.is_paused, info.last_run_id)
    assert timedelta(minutes=15) == (info.next_at or datetime.max) - info.created_at


async def test_by_name(world: World) -> None:
    """[151] A client registers a schedule by the name of the workflow; its runs have the latest version that the engine
    knows which fires it, or the one that was named."""
    client = Client(world.storage, clock=world.clock)
    await client.schedule("tidy", {"folder": {"path": "latest"}}, every=60)
    await client.schedule("tidy", {"folder": {"path": "first"}}, every=60, version=1)
    engine = world.engine(tidy, tidy_two)
    await passes(world, engine, "1m")

    assert ["first", "new latest"] == sorted(began)


@pytest.mark.parametrize(
    ("call", "options", "error", "message"),
    [
        (slow(), {"every": 60}, WorkflowNotFoundError, "does not know the workflow 'slow'"),
        (tidy({"path": 7}), {"every": 60}, ValidationError, r"\(at \$.folder.path\)"),
        (tidy(object()), {"every": 60}, SerializationError, "a value of type object is not data"),
        ("nobody", {"every": 60}, WorkflowNotFoundError, "does not know the workflow 'nobody'"),
        (tidy, {"every": 60}, ConfigError, r"call a workflow to make a call: schedule\(signup\(user\)\)"),
        (tidy(TMP), {}, ConfigError, "write exactly one of them"),
        (tidy(TMP), {"every": 60, "cron": "@daily"}, ConfigError, "write exactly one of them"),
        (tidy(TMP), {"every": "soon"}, ConfigError, "every is 'soon'"),
        (tidy(TMP), {"every": 0.5}, ConfigError, "every is 0.5; write a duration from one second up"),
        (tidy(TMP), {"every": 60, "tz": "Europe/Berlin"}, ConfigError, "an interval has no use for a zone"),
        (tidy(TMP), {"cron": "@daily", "tz": "Berlin"}, ConfigError, "tz is 'Berlin'; write the IANA name"),
        (
            tidy(TMP),
            {"every": 60, "missed": "none"},
            ConfigError,
            "missed is 'none'; write one of 'skip', 'once', 'all",
        ),
        (tidy(TMP), {"every": 60, "overlap": "queue"}, ConfigError, "overlap is 'queue'; write one of 'allow', 'skip'"),
        (tidy(TMP), {"every": 60, "key": ""}, ConfigError, "key is ''; write a text that is not empty"),
        (tidy(TMP), {"every": 60, "key": 7}, ConfigError, "key is 7; write a text that is not empty"),
    ],
    ids=str,
)
async def test_checked_at_once(world: World, call: Any, options: Any, error: type[Exception], message: str) -> None:
    """[151] Workflow, input, recurrence and settings are checked there and then; nothing is stored."""
    engine = world.engine(tidy)
    with pytest.raises(error, match=message):
        await engine.schedule(call, **options)

    assert [] == await engine.list_schedules()


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "5-1 * * * *", "*/0 * * * *", "0 0 30 2 *", "x * * * *"],
)
async def test_wrong_cron_text(world: World, cron: str) -> None:
    """[162] Cron text that is malformed, out of range, reversed, stepless or never matches is a `ConfigError` when it
    is registered."""
    engine = world.engine(tidy)
    with pytest.raises(ConfigError, match="cron is "):
        await engine.schedule(tidy(TMP), cron=cron)

    assert [] == await engine.list_schedules()


async def test_default_keys(world: World) -> None:
    """[157] The default key follows from workflow, recurrence and input, the order of keys ignored; an explicit key
    makes different ones one schedule."""
    engine = world.engine(tidy, tidy_two)
    same = {
        await engine.schedule(tidy(TMP), every="1m"),
        await engine.schedule(tidy(Folder("tmp", 1)), every=60),
        await engine.schedule("tidy", {"folder": {"depth": 1, "path": "tmp"}}, every=timedelta(minutes=1)),
    }
    different = {
        await engine.schedule(tidy(Folder("var")), every="1m"),
        await engine.schedule(tidy(TMP), every="2m"),
        await engine.schedule(tidy(TMP), cron="* * * * *"),
    }
    explicit = {await engine.schedule(tidy(Folder(path)), every="1m", key="k") for path in ("a", "b")}

    assert (1, 3, 1) == (len(same), len(different - same), len(explicit))
    assert 5 == len(await engine.list_schedules())


# ---- firing ----------------------------------------------------------------------------------------------------------


async def test_the_first_occurrence(world: World) -> None:
    """[152] Nothing fires before the first occurrence; at it exactly one run is created, with the registered input."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m", key="k")
    counts = await passes(world, engine, "0s", "599s", "1s", "1s")
    info = await world.info((await ids(world))[0])

    assert [0, 0, 1, 1] == counts
    assert ({"folder": {"path": "tmp", "depth": 1}}, RunStatus.COMPLETED) == (info.input, info.status)
    assert ["k@2025-06-15T15:16:40Z"] == await ids(world)


async def test_an_engine_that_serves(world: World) -> None:
    """[152] An engine that was entered fires by itself, again and again, also what was registered while it ran."""
    async with world.engine(tidy) as engine:
        await engine.schedule(tidy(TMP), every="10m", key="k")
        for number in range(1, 4):
            world.clock.advance("10m")
            while len(began) < number:
                await wait_all_tasks_blocked()

    assert [f"k@2025-06-15T15:{minute}:40Z" for minute in (16, 26, 36)] == await ids(world)


async def test_registered_elsewhere(world: World) -> None:
    """[153] An engine that runs finds what a client has registered."""
    async with world.engine(tidy):
        await Client(world.storage, clock=world.clock).schedule("tidy", {"folder": {"path": "tmp"}}, every="10m")
        world.clock.advance("10m")
        while not began:
            await wait_all_tasks_blocked()

    assert ["tmp"] == began


async def test_tick_fires(world: World) -> None:
    """[125] `tick` fires due schedules before it claims."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m")
    world.clock.advance("10m")

    assert 1 == await engine.tick()
    assert ["tmp"] == began


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_restart(tmp_path: Any, anyio_backend: str) -> None:
    """[153] A schedule survives a restart: another adapter, another engine."""
    first, second = (World(SQLiteStorage(tmp_path / "app.db", durability="process")) for _ in range(2))
    async with Client(first.storage, clock=first.clock) as client:
        await client.schedule("tidy", {"folder": {"path": "tmp"}}, every="10m", key="k")
    await second.storage.initialize()
    counts = await passes(second, second.engine(tidy), "10m")
    await second.storage.close()

    assert [1] == counts


async def test_several_engines(world: World) -> None:
    """[153] Several engines on one storage create one run for each occurrence."""
    engines = [world.engine(tidy) for _ in range(4)]
    await engines[0].schedule(tidy(TMP), every="10m")
    for _ in range(5):
        world.clock.advance("10m")
        async with create_task_group() as tasks:
            for engine in engines:
                tasks.start_soon(engine.drain)

    assert 5 == len(await ids(world)) == len(began)


async def test_an_unknown_workflow(world: World) -> None:
    """[153] An engine leaves the schedules of workflows alone that it does not know."""
    await world.engine(tidy).schedule(tidy(TMP), every="10m")
    before = await world.engine().list_schedules()

    assert [0, 0] == await passes(world, world.engine(slow), "10m", "1h")
    assert before == await world.engine().list_schedules()


async def test_one_transaction(world: World) -> None:
    """[154] Advancing a schedule and creating its runs is one verb of the storage: where it fails nothing has happened,
    and the next look does it."""
    tapped = TappedStorage(world.storage)
    engine = world.engine(tidy, storage=tapped)
    await engine.schedule(tidy(TMP), every="10m")
    tapped.fail("fire_schedule", 1)
    counts = await passes(world, engine, "10m", "0s", "0s")

    assert [0, 1, 1] == counts
    assert (1, 0) == (tapped.log.count("fire_schedule"), tapped.log.count("create_runs"))


# ---- missed and overlapping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", ["15:56:40"]),
        ("once", ["15:16:40"]),
        ("all", ["15:16:40", "15:26:40", "15:36:40", "15:46:40", "15:56:40"]),
    ],
)
async def test_missed_occurrences(world: World, missed: Any, expected: list[str]) -> None:
    """[155] Missed occurrences are skipped: one firing on return, then the normal cadence; on request one for all, or
    each."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m", key="k", missed=missed)
    await passes(world, engine, "55m", "0s")
    fired = await ids(world)
    await passes(world, engine, "4m59s", "1s")

    assert [f"k@2025-06-15T{time}Z" for time in expected] == fired
    assert [*fired, "k@2025-06-15T16:06:40Z"] == await ids(world)


async def test_many_missed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[155] Making up for what was missed is bounded, and what is skipped is reported."""
    engine = world.engine(slow)
    await engine.schedule(slow(), every="1s", key="k", missed="all")
    world.clock.advance("1500s")
    with caplog.at_level(logging.WARNING, "reflow"):
        started = await engine._scheduler.fire_due()

    assert 1_000 == started
    assert "schedule 'k': 500 occurrences were missed, and are skipped" in caplog.text


async def test_overlap(world: World) -> None:
    """With `overlap="skip"` an occurrence is left out while the last run has not ended, else the next starts beside
    it."""
    engine = world.engine(slow)
    await engine.schedule(slow(), every="10h", key="allowed")
    await engine.schedule(slow(), every="10h", key="skipped", overlap="skip")
    await passes(world, engine, *["5h"] * 10)
    hours = [
        (key, (datetime.fromisoformat(at) - datetime(2025, 6, 15, 15, 6, 40, tzinfo=UTC)) / timedelta(hours=1))
        for key, at in (run_id.split("@") for run_id in await ids(world))
    ]

    assert [10, 20, 30, 40, 50] == [hour for key, hour in hours if key == "allowed"]
    # The first one ends at 34.
    assert [10, 40] == [hour for key, hour in hours if key == "skipped"]


async def test_overlap_of_what_was_missed(world: World) -> None:
    """With `overlap="skip"` several missed occurrences are one run, as they would overlap."""
    engine = world.engine(slow)
    await engine.schedule(slow(), every="10m", key="k", missed="all", overlap="skip")
    await passes(world, engine, "55m")

    assert ["k@2025-06-15T15:56:40Z"] == await ids(world)


# ---- registering again -----------------------------------------------------------------------------------------------


async def test_the_same_again(world: World) -> None:
    """[156] Registering again unchanged keeps the cadence, so that redeploys do not starve it; the input is updated."""
    counts = []
    for number in range(4):
        engine = world.engine(tidy)
        await engine.schedule(tidy(Folder(str(number))), every="10m", key="k")
        counts += await passes(world, engine, "6m")

    # Due after 10 and after 20 minutes.
    assert [0, 1, 1, 2] == counts
    assert ["1", "3"] == began


async def test_another_recurrence(world: World) -> None:
    """[156] A changed recurrence begins anew, from the time of its registration."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m", key="k")
    await passes(world, engine, "6m")
    await engine.schedule(tidy(TMP), every="5m", key="k")

    assert [0, 1] == await passes(world, engine, "4m", "1m")


# ---- removing and pausing --------------------------------------------------------------------------------------------


async def test_unschedule(world: World) -> None:
    """[158] `unschedule` is True once, then False, and holds for every engine; the runs stay."""
    engine, other = world.engine(tidy), world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m", key="k")
    await passes(world, engine, "10m")
    removed = [await other.unschedule("k"), await engine.unschedule("k")]

    assert [True, False] == removed
    assert [1, 1] == await passes(world, engine, "10m", "1h")


async def test_the_list(world: World) -> None:
    """[158] `list_schedules` is ordered by key, with the next time and the last run; stopping an engine leaves
    schedules in place."""
    async with world.engine(tidy) as engine:
        for key in ("b", "c", "a"):
            await engine.schedule(tidy(TMP), every="10m", key=key)
    await passes(world, world.engine(tidy), "10m")
    infos = await Client(world.storage).list_schedules()

    assert ["a", "b", "c"] == [info.key for info in infos]
    assert [from_micros(world.clock.now()) + timedelta(minutes=10)] * 3 == [info.next_at for info in infos]
    assert "a@2025-06-15T15:16:40Z" == infos[0].last_run_id


async def test_pause(world: World) -> None:
    """A paused schedule rests, also when it is registered again; when it goes on, what has passed was missed."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), every="10m", key="k")
    found = [await engine.pause_schedule("k")]
    await engine.schedule(tidy(TMP), every="10m", key="k")
    counts = await passes(world, engine, "35m")
    [info] = await engine.list_schedules()
    found.append(await engine.resume_schedule("k"))
    counts += await passes(world, engine, "0s", "5m")

    assert [True, True] == found
    assert info.is_paused
    assert [0, 1, 2] == counts


async def test_a_resumed_schedule_fires_at_once(world: World) -> None:
    """An engine that runs hears that a schedule goes on: the clock stands still."""
    async with world.engine(tidy) as engine:
        await engine.schedule(tidy(TMP), every="10m", key="k")
        await engine.pause_schedule("k")
        world.clock.advance("15m")
        await wait_all_tasks_blocked()
        before = list(began)
        await engine.resume_schedule("k")
        run = await engine.handle(await first_id(world))
        result = await run.result()

    assert ([], "tmp") == (before, result)


async def first_id(world: World) -> str:
    """The id of the first run there is, as soon as there is one."""
    while not (found := await ids(world)):
        await wait_all_tasks_blocked()
    return found[0]


@pytest.mark.parametrize("verb", ["unschedule", "pause_schedule", "resume_schedule"])
async def test_keys_of_nothing(world: World, verb: str) -> None:
    """An unknown key is False, and what is no key a `ConfigError`."""
    engine = world.engine()

    assert not await getattr(engine, verb)("nobody")
    with pytest.raises(ConfigError, match="key is 7"):
        await getattr(engine, verb)(7)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


async def test_a_failing_schedule(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[159] A schedule that cannot be fired is reported, once, and stops neither other schedules nor runs."""
    engine = world.engine(tidy)
    now = world.clock.now()
    data = world.codec.encode({"folder": {"path": "broken"}})
    broken = ScheduleRow("a", "tidy", 1, data, "every now and then", "skip", "allow", now, now, now, now)
    await world.storage.put_schedule(broken)
    await engine.schedule(tidy(TMP), every="10m", key="k")
    with caplog.at_level(logging.ERROR, "reflow"):
        counts = await passes(world, engine, "10m", "10m")

    assert [1, 2] == counts
    assert ["schedule 'a' could not be fired"] == [record.message.partition(":")[0] for record in caplog.records]


async def test_a_storage_that_fails(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """[120][159] A storage that fails is asked again; the engine goes on."""
    tapped = TappedStorage(world.storage)
    async with world.engine(tidy, storage=tapped) as engine:
        await engine.schedule(tidy(TMP), every="10m", key="k")
        tapped.fail("fire_schedule", 3)
        world.clock.advance("10m")
        while not began:
            world.clock.advance("1s")
            await wait_all_tasks_blocked()

    assert "schedule 'k' could not be fired: StorageError" in caplog.text
    assert 0 == tapped.failures["fire_schedule"]


# ---- calendars -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cron", "tz", "expected"),
    [
        ("0 3 * * *", "UTC", ["2025-06-16T03:00", "2025-06-17T03:00"]),
        ("30 2 * * mon-fri", "Europe/Berlin", ["2025-06-16T00:30", "2025-06-17T00:30"]),
        ("0 0 31 * *", "UTC", ["2025-07-31T00:00", "2025-08-31T00:00"]),
        ("0 0 29 feb *", "UTC", ["2028-02-29T00:00"]),
        ("0 0 17 * tue", "UTC", ["2025-06-17T00:00", "2025-06-24T00:00"]),
        ("0 12 * * 7", "UTC", ["2025-06-22T12:00", "2025-06-29T12:00"]),
        ("@monthly", "UTC", ["2025-07-01T00:00", "2025-08-01T00:00"]),
    ],
)
async def test_cron(world: World, cron: str, tz: str, expected: list[str]) -> None:
    """[160][161] Runs come at the times of the calendar, at second 0, and carry their occurrence in the id."""
    engine = world.engine(tidy)
    await engine.schedule(tidy(TMP), cron=cron, tz=tz, key="k")
    for _ in expected:
        [info] = await engine.list_schedules()
        assert info.next_at is not None
        world.clock.turn_to(int(info.next_at.timestamp()) * 1_000_000)
        await engine.drain()

    assert [f"k@{time}:00Z" for time in expected] == await ids(world)


async def test_the_days_on_which_clocks_change(world: World) -> None:
    """[163] A daily time in a zone fires once on each day, also on those on which its clocks change."""
    engine = world.engine(tidy)
    berlin = ZoneInfo("Europe/Berlin")
    for month, day in ((3, 29), (10, 25)):
        world.clock.turn_to(int(datetime(2026, month, day - 1, 12, tzinfo=berlin).timestamp()) * 1_000_000)
        await engine.schedule(tidy(TMP), cron=f"{month} 2 * * *", tz="Europe/Berlin", key=f"{month}")
        for _ in range(72):
            world.clock.advance("1h")
            await engine.drain()
        await engine.unschedule(f"{month}")
    days = [datetime.fromisoformat(run_id.split("@")[1]).astimezone(berlin).day for run_id in await ids(world)]

    assert [29, 30, 31, 25, 26, 27] == days
