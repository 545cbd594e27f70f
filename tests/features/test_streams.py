"""Streams of an engine: what they give, whom they pause, how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked

from reflow import ConfigError, Engine, Flow, LifecycleEvent, RunCancelledError, RunStatus, gather, step, workflow
from reflow._engine.streams import Stream
from reflow.events import RunCompleted, RunFailed, StepCompleted, StepFailed, StepStarted
from tests.support.bodies import Steps
from tests.support.lifecycle import OF_PAIR, Watcher, brief, give, pair
from tests.support.tapped import TappedStorage
from tests.support.world import World

pytestmark = pytest.mark.anyio


@workflow
def wide(width: int) -> Flow[int]:
    """Steps side by side."""
    yield gather(*(step(give, number) for number in range(width)))
    return width


async def rest(stream: Stream) -> list[str]:
    """All that is still to come, in a line each."""
    return [brief(event) async for event in stream]


async def until_paused(engine: Engine, run_id: str = "r") -> None:
    """Wait until a run waits for room in a stream, or has ended. (That everybody is blocked does not say so: a thread
    may be writing.)"""
    while not any(stream._paused for stream in engine._observers._streams):
        info = await engine.get_run(run_id)
        if info is not None and info.status.is_terminal:
            break
    await wait_all_tasks_blocked()


@pytest.fixture
async def paused(world: World, anyio_backend: str) -> AsyncIterator[tuple[Engine, Stream]]:
    """An engine with one slot, whose run `r` is paused by a stream that nobody reads."""
    async with world.engine(pair, concurrency=1, grace=0) as engine:
        stream = engine.stream(buffer=1)
        await engine.enqueue(pair("r"), run_id="r")
        await until_paused(engine)
        yield engine, stream


# ---- what they give --------------------------------------------------------------------------------------------------


async def test_the_same_as_hooks(world: World) -> None:
    """[169] A stream gives what hooks are told, in the same order."""
    told = Watcher()
    engine = world.engine(pair, hooks=[told])
    stream, seen = engine.stream(), list[LifecycleEvent]()
    await engine.enqueue(pair(1), run_id="r")
    await engine.drain()
    async for event in stream:
        seen.append(event)
        if isinstance(event, RunCompleted):
            break

    assert told.events == seen
    assert OF_PAIR == told.lines()


async def test_streams_are_independent(world: World) -> None:
    """[169] Each stream gives all events from the moment in which it was made, whatever others have read."""
    async with world.engine(pair) as engine:
        first = engine.stream()
        await engine.execute(pair(1))
        # Who waits for the result may hear of it before those who look on are told.
        read = [brief(await anext(first)) for _ in OF_PAIR]
        second = engine.stream(buffer=100)
        await engine.execute(pair(2))

    assert OF_PAIR * 2 == [*read, *await rest(first)]
    assert OF_PAIR == await rest(second)


@pytest.mark.parametrize("buffer", [0, 1, 3, None])
async def test_many_runs(world: World, buffer: int | None) -> None:
    """[169] With many runs at once and a small buffer, the events of each run come in order, and none is missing."""
    seen: dict[str, list[str]] = {f"{number}": [] for number in range(20)}
    async with world.engine(pair, concurrency=7) as engine:
        stream = engine.stream(buffer=buffer)
        for run_id in seen:
            await engine.enqueue(pair(run_id), run_id=run_id)
        async for event in stream:
            seen[event.run_id].append(brief(event))
            if all("RunCompleted" in lines for lines in seen.values()):
                break

    assert [OF_PAIR] * 20 == list(seen.values())


async def test_the_payloads_are_copies(world: World) -> None:
    """[167][169] What is done to a payload reaches neither the workflow nor another stream."""
    async with world.engine(pair) as engine:
        streams = [engine.stream(buffer=2), engine.stream()]
        run = await engine.enqueue(pair([1]), run_id="r")
        async for event in streams[0]:
            match event:
                case StepCompleted(value=value) | RunCompleted(output=value):
                    value.append("spoiled")
                case _:
                    pass
            if isinstance(event, RunCompleted):
                break
        result = await run.result()

    assert [1] == result
    assert [[1], [1]] == [event.value async for event in streams[1] if isinstance(event, StepCompleted)]


async def test_two_engines(world: World) -> None:
    """[169] A stream gives the events of its own engine only."""
    one, other = world.engine(pair), world.engine(wide)
    stream, stream_other = one.stream(), other.stream()
    await one.enqueue(pair(1))
    await other.enqueue(wide(1))
    for engine in (one, other):
        async with engine:
            await engine.drain()

    assert OF_PAIR == await rest(stream)
    assert ["RunStarted", "StepStarted give 1", "StepCompleted give 1", "RunCompleted"] == await rest(stream_other)


async def test_a_stream_that_comes_late(world: World) -> None:
    """[169] A stream that is made while a body runs gives the end of its step, with its true duration."""
    steps = Steps("work")

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(steps, "work").options(name="work"))

    async with world.engine(flow) as engine:
        run = await engine.enqueue(flow(), run_id="r")
        await steps.until("work begins")
        world.clock.advance("2s")
        stream = engine.stream()
        steps.held["work"].set()
        await run.result()

    seen = [event async for event in stream]

    assert ["StepCompleted work 1", "RunCompleted"] == [brief(event) for event in seen]
    assert [2_000_000, 2_000_000] == [event.duration_us for event in seen]  # type: ignore[union-attr]


async def test_what_was_before_is_not_told(world: World) -> None:
    """[169] Nothing that happened before a stream was made is told to it, though nobody was told of it either."""
    tapped = TappedStorage(world.storage)
    steps = Steps("second")

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "first").options(name="first")
        yield step(steps, "second").options(name="second")

    gate = tapped.hold("save_progress")
    async with world.engine(flow, storage=tapped) as engine:
        stream = engine.stream()
        run = await engine.enqueue(flow(), run_id="r")
        await gate.arrived.wait()
        stream.close()
        gate.open()
        await steps.until("second begins")
        late = engine.stream()
        steps.held["second"].set()
        await run.result()

    assert ["StepCompleted second 1", "RunCompleted"] == await rest(late)


# ---- whom they pause -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, 1, 2, 3, 4])
async def test_back_pressure(world: World, buffer: int) -> None:
    """[170] At most `buffer` events are held, and the run pauses at the next one: with 0, at the first; a body begins
    when its start was taken in."""
    steps = Steps()

    @workflow
    def flow() -> Flow[None]:
        yield step(steps, "a")
        yield step(steps, "b")

    begun: list[list[str]] = []
    async with world.engine(flow) as engine:
        stream = engine.stream(buffer=buffer)
        run = await engine.enqueue(flow(), run_id="r")
        await until_paused(engine)
        for _ in OF_PAIR:
            begun.append(steps.begun)
            await anext(stream)
            await until_paused(engine)
        await run.result()
    by_events = [[], [], ["a"], ["a"], ["a", "b"], ["a", "b"], ["a", "b"]]

    assert [by_events[min(taken + buffer, 6)] for taken in range(6)] == begun


async def test_no_buffer(world: World) -> None:
    """[170] Without `buffer` nothing pauses, and `dropped` counts nothing while there is room."""
    async with world.engine(pair) as engine:
        stream = engine.stream()
        await engine.execute(pair(1))

    assert (0, OF_PAIR) == (stream.dropped, await rest(stream))


@pytest.mark.slow
async def test_what_is_dropped(world: World) -> None:
    """[170] Without `buffer` the latest 10,000 are kept, what was dropped is counted, and the run is not paused."""
    async with world.engine(wide) as engine:
        stream = engine.stream()
        await engine.execute(wide(5_010))
    lines = await rest(stream)

    assert (22, 10_000) == (stream.dropped, len(lines))
    assert "RunStarted" not in lines
    assert "RunCompleted" == lines[-1]


@pytest.mark.parametrize("buffer", [-1, 1.5, "9", True])
async def test_what_is_no_buffer(world: World, buffer: Any) -> None:
    """[170] A buffer that is no number from 0 up is a `ConfigError`."""
    with pytest.raises(ConfigError, match="buffer is"):
        world.engine(pair).stream(buffer=buffer)


async def test_a_dead_stream(world: World) -> None:
    """[172] A stream that nobody reads holds up runs, and no other stream: that gives what was told last."""
    async with world.engine(pair, grace=0) as engine:
        dead = engine.stream(buffer=0)
        reading = engine.stream(buffer=0)
        for number in range(3):
            await engine.enqueue(pair(number), run_id=f"{number}")
        seen = {(await anext(reading)).run_id for _ in range(3)}
        dead.close()

    assert {"0", "1", "2"} == seen


async def test_a_slow_stream(world: World) -> None:
    """[172] Runs are as fast as the slowest stream with a buffer; the others give all events in time."""
    async with world.engine(pair) as engine:
        slow, quick = engine.stream(buffer=0), engine.stream(buffer=0)
        await engine.enqueue(pair(1), run_id="r")
        seen = [brief(await anext(quick))]
        await until_paused(engine)
        seen += [brief(await anext(slow)), brief(await anext(quick))]
        await until_paused(engine)
        slow.close()
        quick.close()

    assert ["RunStarted", "RunStarted", "StepStarted first 1"] == seen


# ---- who lets go -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "break", "block", "forget"])
async def test_leaving_releases(world: World, how: str) -> None:
    """[171] Closing a stream, leaving its loop or its block, or forgetting it, releases the runs that it has paused."""
    async with world.engine(pair) as engine:
        stream = engine.stream(buffer=0)
        runs = [await engine.enqueue(pair(number), run_id=f"{number}") for number in range(3)]
        for run in runs:
            await until_paused(engine, run.run_id)
        match how:
            case "close":
                stream.close()
                stream.close()
            case "break":
                async for _ in stream:
                    break
            case "block":
                async with stream:
                    pass
            case _:
                del stream
        results = [await run.result() for run in runs]

    assert [0, 1, 2] == results


async def test_cancelling_releases(paused: tuple[Engine, Stream]) -> None:
    """[136][172] Cancelling releases a run that a full stream has paused; it ends as cancelled, and its clean-up and
    end are told as there is room."""
    engine, stream = paused
    found = await engine.cancel("r")
    with pytest.raises(RunCancelledError):
        await (await engine.handle("r")).result()
    seen = [brief(await anext(stream)), brief(await anext(stream))]

    assert found
    assert ["RunStarted", "RunCancelled"] == seen


async def test_losing_the_lease_releases(world: World, paused: tuple[Engine, Stream]) -> None:
    """[172][176] Losing the lease releases a paused run without failing it: another engine completes it, and the first
    tells nothing more of it."""
    engine, stream = paused
    await world.lease_ends()
    await world.engine(pair).drain()
    await world.clock.has_timer("11s")
    world.clock.advance("11s")
    # There is one slot, so it was free.
    run = await engine.enqueue(pair(2), run_id="second")
    async for event in stream:
        if event.run_id == "second" and isinstance(event, RunCompleted):
            break
    result = await run.result()

    assert (RunStatus.COMPLETED, 2) == ((await world.info()).status, result)


async def test_shutdown_releases(world: World) -> None:
    """[172][173][176] Shutdown releases a paused run without failing it: it is given back, and what the stream holds
    can still be read."""
    with fail_after(30):
        async with world.engine(pair, grace=0) as engine:
            stream = engine.stream(buffer=1)
            await engine.enqueue(pair(1), run_id="r")
            await until_paused(engine)
    lines = await rest(stream)

    assert await world.given_back()
    assert ["RunStarted"] == lines
    assert 1 == (await world.continued(pair)).output


async def test_shutdown_ends_streams(world: World) -> None:
    """[173] When the engine is left all its streams end, also those that are being read; a new stream gives what an
    engine tells that is entered again."""
    engine, ended = world.engine(pair), list[list[str]]()

    async def read(stream: Stream) -> None:
        ended.append(await rest(stream))

    async with create_task_group() as tasks:
        async with engine:
            for stream in (engine.stream(), engine.stream(buffer=1)):
                tasks.start_soon(read, stream)
            unread = engine.stream()
            await engine.execute(pair(1))
    async with engine:
        again = engine.stream()
        await engine.execute(pair(2))

    assert [OF_PAIR] * 4 == [*ended, await rest(unread), await rest(again)]


async def test_several_readers(world: World) -> None:
    """[173] Several readers of one stream share its events, and are served in the order in which they came."""
    served: list[tuple[str, str]] = []
    async with world.engine(pair) as engine:
        stream = engine.stream(buffer=0)

        async def read(name: str) -> None:
            for _ in range(2):
                served.append((name, brief(await anext(stream))))

        async with create_task_group() as tasks:
            for name in ("one", "two", "three"):
                tasks.start_soon(read, name)
                await wait_all_tasks_blocked()
            await engine.enqueue(pair(1), run_id="r")

    assert list(zip(["one", "two", "three"] * 2, OF_PAIR, strict=True)) == served


async def test_failures_are_told(world: World) -> None:
    """[169] A run that fails is told with its step, as to hooks."""

    async def fail() -> None:
        raise ValueError("wrong")

    @workflow
    def flow() -> Flow[None]:
        yield step(fail)

    engine = world.engine(flow)
    async with engine:
        stream = engine.stream()
        await engine.enqueue(flow(), run_id="r")
        await engine.drain()
    seen = [event async for event in stream]

    assert ["wrong"] == [event.error.message for event in seen if isinstance(event, StepFailed)]
    assert [1, 1] == [len([event for event in seen if isinstance(event, kind)]) for kind in (StepStarted, RunFailed)]
