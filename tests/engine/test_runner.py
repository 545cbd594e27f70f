"""The runner's three rules: feed, then write, then start; every write names the lease; a run leaves by a write."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after
from anyio.lowlevel import checkpoint

from reflow import Flow, Retry, RunStatus, current_step, gather, now, race, sleep, step, workflow
from reflow._core.replay import Replay
from reflow._engine.runner import Runner
from reflow.storage.records import Progress
from tests.support.bodies import a_cancellation
from tests.support.clock import HastyClock
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


class Log:
    """Storage and bodies write into one log."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tapped = TappedStorage(world.storage)
        self.lines = self.tapped.log

    async def body(self, name: str) -> str:
        """A body that notes when it begins, and that what was fed so far is stored by then."""
        self.lines.append(f"{name} begins")
        return name

    async def flaky(self, name: str) -> str:
        """Fails twice."""
        self.lines.append(f"{name} begins")
        if current_step().attempt < 3:
            raise ConnectionError
        return name

    async def run(self, call: Any) -> list[str]:
        """The log of a run from its claim on, without reads."""
        engine = self.world.engine(call.workflow, storage=self.tapped)  # type: ignore[arg-type]
        await engine.enqueue(call, run_id="r")
        self.lines.clear()
        await engine.drain()
        return [line for line in self.lines if line not in ("claim_runs", "get_run", "get_journal")]

    @property
    def writes(self) -> list[Progress]:
        """All writes, in order."""
        return self.tapped.named("save_progress")


@pytest.fixture
def log(world: World) -> Log:
    """See there."""
    return Log(world)


WRITE = "save_progress"


async def test_each_result_is_committed_before_the_next_body(log: Log) -> None:
    """[23] A result is committed before the next body begins; the last one shares a write with the completion."""

    @workflow
    def flow() -> Flow[str]:
        yield step(log.body, "a")
        yield step(log.body, "b")
        return (yield from step(log.body, "c"))

    lines = await log.run(flow())

    assert ["a begins", WRITE, "b begins", WRITE, "c begins", WRITE] == lines
    assert [["0"], ["1"], ["2"]] == [[entry.position for entry in write.entries] for write in log.writes]
    assert [None, None, RunStatus.COMPLETED] == [write.ending and write.ending.status for write in log.writes]


async def test_side_by_side_too(log: Log) -> None:
    """[23][53] Bodies side by side begin after one write; a body that follows in a branch begins after the write of the
    result before it."""

    def branch(name: str) -> Flow[None]:
        yield step(log.body, f"{name}0")
        yield step(log.body, f"{name}1")

    @workflow
    def flow() -> Flow[None]:
        yield step(log.body, "first")
        yield gather(branch("a"), branch("b"), sleep("1h"))

    lines = await log.run(flow())

    assert ["first begins", WRITE] == lines[:2]
    assert {"a0 begins", "b0 begins"} == set(lines[2:4])
    for name in "ab":
        between = lines[lines.index(f"{name}0 begins") : lines.index(f"{name}1 begins")]
        assert WRITE in between
    for write in log.writes:
        assert len({entry.position for entry in write.entries}) == len(write.entries)


async def test_a_result_and_the_sleep_after_it(log: Log) -> None:
    """A step's result and the sleep that follows it are one write, and so are what wakes the run and what it does
    next."""

    @workflow
    def flow() -> Flow[None]:
        yield step(log.body, "a")
        yield sleep("1h")
        yield step(log.body, "b")

    lines = await log.run(flow())
    [asleep] = log.writes
    log.world.clock.advance("1h")
    more = log.lines
    more.clear()
    await log.world.engine(flow, storage=log.tapped).drain()

    assert ["a begins", WRITE] == lines
    assert (["0"], ["1"], RunStatus.SLEEPING) == (
        [entry.position for entry in asleep.entries],
        [timer.position for timer in asleep.timers],
        asleep.ending and asleep.ending.status,
    )
    assert ["claim_runs", "get_journal", WRITE, "b begins", WRITE] == [line for line in more if line != "get_run"][:5]
    assert (["1"], ["1"]) == ([entry.position for entry in log.writes[1].entries], log.writes[1].settled)


async def test_the_count_of_attempts(log: Log) -> None:
    """[40] The count of attempts is committed before the next attempt begins."""

    @workflow
    def flow() -> Flow[None]:
        yield step(log.flaky, "a").options(retry=Retry(max_attempts=3, initial_delay=0))

    lines = await log.run(flow())

    assert ["a begins", WRITE, "a begins", WRITE, "a begins", WRITE] == lines
    assert [[1], [2], []] == [[timer.attempts for timer in write.timers] for write in log.writes]
    assert ["0"] == log.writes[2].settled


async def test_recorded_time(log: Log) -> None:
    """What `now()` gave is committed before a body begins that may have seen it."""

    @workflow
    def flow() -> Flow[None]:
        yield now()
        yield sleep(0)
        yield step(log.body, "a")

    lines = await log.run(flow())

    assert [WRITE, "a begins", WRITE] == lines
    assert [["0", "1"], ["2"]] == [[entry.position for entry in write.entries] for write in log.writes]


async def test_a_run_without_commands(log: Log) -> None:
    """A run that performs nothing is one write."""

    @workflow
    def flow() -> Flow[str]:
        return "done"
        yield

    assert [WRITE] == await log.run(flow())


async def test_nothing_begins_before_the_write(log: Log) -> None:
    """[23] As long as a write is on its way, nothing that follows begins."""

    @workflow
    def flow() -> Flow[None]:
        yield step(log.body, "a")
        yield gather(step(log.body, "b"), step(log.body, "c"))

    gate = log.tapped.hold_answer("save_progress")
    engine = log.world.engine(flow, storage=log.tapped)
    await engine.enqueue(flow(), run_id="r")
    async with create_task_group() as tasks:
        tasks.start_soon(engine.drain)
        await gate.arrived.wait()
        during = [line for line in log.lines if "begins" in line]
        gate.open()

    assert ["a begins"] == during
    assert {"a begins", "b begins", "c begins"} == {line for line in log.lines if "begins" in line}


# ---- when the storage fails ------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(world: World) -> World:
    """A world in which the runner's wait before it tries the storage again passes at once."""
    world.clock = HastyClock(passes_at_once="250ms")
    return world


@pytest.mark.parametrize("verb", ["save_progress", "get_journal"])
@pytest.mark.parametrize("times", [1, 7])
async def test_a_storage_error_fails_no_run(
    hasty: World, verb: str, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """[120] A storage error never fails a run: the verb is tried again, no body runs twice, and a warning is logged."""
    log = Log(hasty)

    @workflow
    def flow() -> Flow[list[Any]]:
        first = yield from step(log.body, "a")
        yield sleep("1h")
        both = yield from gather(step(log.body, "b"), step(log.body, "c"))
        return [first, *both]

    log.tapped.fail(verb, times)
    with caplog.at_level(logging.WARNING, logger="reflow"):
        await log.run(flow())
        hasty.clock.advance("1h")
        await hasty.engine(flow, storage=log.tapped).drain()  # type: ignore[arg-type]

    info = await hasty.info()
    assert (RunStatus.COMPLETED, ["a", "b", "c"]) == (info.status, info.output)
    assert ["a begins", "b begins", "c begins"] == sorted(line for line in log.lines if "begins" in line)[-3:]
    assert [f"run r: storage could not {verb}: it was told to fail; trying again"] * times == caplog.messages


async def test_a_storage_that_is_away_for_long(world: World) -> None:
    """[118][120] A storage that stays away until the lease can no longer be trusted: the generator is dropped without a
    failure, and the next claim replays."""
    log = Log(world)
    bodies: list[str] = []

    begun = Event()

    async def body(name: str) -> str:
        bodies.append(name)
        begun.set()
        return name

    @workflow
    def flow() -> Flow[list[str]]:
        first = yield from step(body, "a")
        second = yield from step(body, "b")
        return [first, second]

    async def turn_the_clock() -> None:
        """Never beyond the end of the lease."""
        await begun.wait()
        for _ in range(147):
            world.clock.advance("200ms")
            for _ in range(10):
                await checkpoint()

    engine = world.engine(flow, storage=log.tapped, lease="30s")
    run = await engine.enqueue(flow(), run_id="r")
    for verb in ("save_progress", "heartbeat"):
        log.tapped.fail(verb, 10_000)
    with fail_after(30):
        async with create_task_group() as tasks:
            tasks.start_soon(turn_the_clock)
            await engine.drain()
    attempts = len(log.writes)
    dropped = await world.info()
    for verb in ("save_progress", "heartbeat"):
        log.tapped.fail(verb, 0)
    world.clock.advance("30s")
    await engine.drain()

    assert 100 < attempts
    assert (RunStatus.RUNNING, None, ()) == (dropped.status, dropped.error, dropped.entries)
    assert ["a", "b"] == await run.result()
    assert ["a", "a", "b"] == bodies
    assert 2 == (await world.info()).executions


@pytest.mark.parametrize("raises", ["an error", "a cancellation"])
async def test_an_error_of_the_adapter(world: World, caplog: pytest.LogCaptureFixture, raises: str) -> None:
    """An adapter that breaks its contract costs the run its lease and nothing else: it is taken up when that is over,
    and not again and again until then."""
    broken: list[int] = []
    error = KeyError("a bug") if raises == "an error" else await a_cancellation()

    class Broken(TappedStorage):
        async def save_progress(self, progress: Progress) -> bool:
            broken.append(1)
            if len(broken) == 1:
                raise error
            return bool(await self._storage.save_progress(progress))

    log = Log(world)

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(log.body, "a"))

    engine = world.engine(flow, storage=Broken(world.storage), lease="30s")  # type: ignore[arg-type]
    await engine.enqueue(flow(), run_id="r")
    await engine.drain()
    held = await world.info()
    world.clock.advance("30s")
    await engine.drain()
    # What the engine logs as its own error would fail this test.
    [record] = [record for record in caplog.records if record.exc_info]
    caplog.clear()

    assert "run r: dropped; it will be taken up again when its lease is over" == record.getMessage()
    assert (RunStatus.RUNNING, 1) == (held.status, held.executions)
    assert (RunStatus.COMPLETED, 2) == ((await world.info()).status, (await world.info()).executions)


# ---- what is left behind ---------------------------------------------------------------------------------------------


async def test_runners_are_freed(world: World) -> None:
    """A run that has left an engine leaves no object of the engine behind, however it left."""

    async def give(value: Any) -> Any:
        return value

    @workflow
    def flow(kind: str) -> Flow[None]:
        yield gather(step(give, 1), race(step(give, 2), sleep("1h")))
        if kind == "parks":
            yield sleep("1h")
        if kind == "fails":
            raise ValueError

    def things() -> list[object]:
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) in (Runner, Replay)]

    # Other tests may have left some, in tracebacks that are kept to be shown.
    before = things()
    engine = world.engine(flow)
    for kind in ("ends", "parks", "fails"):
        await engine.enqueue(flow(kind))
    await engine.drain()

    assert [] == [thing for thing in things() if not any(thing is other for other in before)]


async def test_no_task_is_left_behind(world: World) -> None:
    """After `drain` nobody waits for any time: all tasks of all runs have ended."""

    async def give(value: Any) -> Any:
        return value

    @workflow
    def flow() -> Flow[None]:
        yield race(step(give, 1).options(timeout="1h"), sleep("2h"))
        yield step(give, 2).options(timeout="3h")
        yield gather(step(give, 1), sleep("4h"))

    info = await world.settle(flow())

    assert RunStatus.SLEEPING == info.status
    assert world.clock.next_timer is None
