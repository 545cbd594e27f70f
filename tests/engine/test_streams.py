"""Streams: what their buffers hold, whom they pause, how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import anyio
import pytest
from anyio import CancelScope, create_task_group, wait_all_tasks_blocked
from anyio.abc import TaskGroup
from hypothesis import given
from hypothesis import strategies as st

from reflow import ConfigError
from reflow._engine.observers import Observers
from reflow._engine.streams import Stream
from tests.support.lifecycle import completed

pytestmark = pytest.mark.anyio


class Runs:
    """Runs that tell of their steps, side by side, and how far each has come."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.observers = Observers()
        self.told: list[Any] = []
        self._tasks = tasks

    def tell(self, *values: Any) -> None:
        """A run that tells of all of these, one after the other."""
        self._tasks.start_soon(self._tell, values)

    async def have_told(self) -> list[Any]:
        """What was told when nobody can go on."""
        await wait_all_tasks_blocked()
        return self.told

    async def _tell(self, values: tuple[Any, ...]) -> None:
        for value in values:
            await self.observers.emit(partial(completed, value))
            self.told.append(value)


@pytest.fixture
async def runs(anyio_backend: str) -> AsyncIterator[Runs]:
    """Runs that end with the test."""
    async with create_task_group() as tasks:
        yield Runs(tasks)
        tasks.cancel_scope.cancel()


async def read(stream: Stream) -> Any:
    """The value of the next event."""
    event: Any = await anext(stream)
    return event.value


async def rest(stream: Stream) -> list[Any]:
    """The values of all events that are still to come."""
    return [event.value async for event in stream]  # type: ignore[union-attr]


# ---- buffers ---------------------------------------------------------------------------------------------------------


async def test_a_stream_sees_what_comes(runs: Runs) -> None:
    """[169] A stream is given everything from when it was made, in order, and as often as it was told."""
    await runs.observers.emit(partial(completed, "before"))
    stream = runs.observers.stream()
    runs.tell(1, 2, 2, 3)
    await runs.have_told()
    runs.observers.end()

    assert [1, 2, 2, 3] == await rest(stream)


async def test_streams_are_independent(runs: Runs) -> None:
    """[169] Each stream is given all events, whatever another one has read."""
    one, other = runs.observers.stream(), runs.observers.stream(buffer=9)
    runs.tell(1, 2)
    first = [await read(one), await read(one)]

    assert ([1, 2], [1, 2]) == (first, [await read(other), await read(other)])


@pytest.mark.parametrize("buffer", [0, 1, 3, None])
async def test_order_with_many_runs(runs: Runs, buffer: int | None) -> None:
    """[169] With many runs and a small buffer, each run's events come in order, and none is missing."""
    stream = runs.observers.stream(buffer)
    for run in range(20):
        runs.tell(*((run, number) for number in range(5)))
    seen = [await read(stream) for _ in range(100)]

    assert [[(run, number) for number in range(5)] for run in range(20)] == [
        [value for value in seen if value[0] == run] for run in range(20)
    ]


async def test_the_latest_are_kept(runs: Runs) -> None:
    """[170] Without `buffer`, the latest 10,000 events are kept, what is lost is counted, and nobody is paused."""
    stream = runs.observers.stream()
    runs.tell(*range(10_003))
    told = len(await runs.have_told())
    runs.observers.end()
    kept = await rest(stream)

    assert (10_003, 3, list(range(3, 10_003))) == (told, stream.dropped, kept)


@pytest.mark.parametrize("buffer", [1, 2, 5])
async def test_a_full_buffer_pauses(runs: Runs, buffer: int) -> None:
    """[170] With `buffer=n`, whoever tells is paused when n events are not read; each that is read lets one more in."""
    stream = runs.observers.stream(buffer)
    runs.tell(*range(9))
    before = list(await runs.have_told())
    await read(stream)
    after = list(await runs.have_told())

    assert (list(range(buffer)), list(range(buffer + 1)), 0) == (before, after, stream.dropped)


async def test_one_by_one(runs: Runs) -> None:
    """[170] With `buffer=0`, whoever tells goes on when the event is being read."""
    stream = runs.observers.stream(buffer=0)
    runs.tell("a", "b")
    told = [list(await runs.have_told())]
    for _ in range(2):
        await read(stream)
        told.append(list(await runs.have_told()))

    assert [[], ["a"], ["a", "b"]] == told


async def test_one_by_one_to_a_waiting_reader(runs: Runs) -> None:
    """[170] With `buffer=0`, a reader that waits already is handed the event at once."""
    stream, seen = runs.observers.stream(buffer=0), []

    async def reading() -> None:
        seen.append(await read(stream))

    async with create_task_group() as tasks:
        tasks.start_soon(reading)
        await wait_all_tasks_blocked()
        await runs.observers.emit(partial(completed, "a"))

    assert ["a"] == seen


@pytest.mark.parametrize("buffer", [-1, True, 1.5, "3"])
def test_what_is_no_buffer(buffer: Any) -> None:
    """[170] A buffer that is no whole number from 0 up is refused, and no stream is made."""
    observers = Observers()
    with pytest.raises(ConfigError, match="buffer is"):
        observers.stream(buffer)

    assert observers.is_idle


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(buffer=st.integers(0, 3), moves=st.lists(st.booleans(), max_size=30))
def test_no_buffer_holds_more(backend: str, buffer: int, moves: list[bool]) -> None:
    """[170] However telling and reading alternate: events come in order, at most n that are not read have been told,
    and nobody is paused without need."""

    async def alternate() -> None:
        async with create_task_group() as tasks:
            runs = Runs(tasks)
            stream, told, seen = runs.observers.stream(buffer), 0, 0
            for is_telling in moves:
                if is_telling:
                    runs.tell(told)
                    told += 1
                elif seen < told:
                    assert seen == await read(stream)
                    seen += 1
                assert list(range(min(seen + buffer, told))) == await runs.have_told()
            tasks.cancel_scope.cancel()

    anyio.run(alternate, backend=backend)


# ---- ends ------------------------------------------------------------------------------------------------------------


def leave_by_closing(stream: Stream) -> None:
    """Close the stream."""
    stream.close()


async def leave_by_aclosing(stream: Stream) -> None:
    """Leave `aclosing`."""
    async with aclosing(stream):
        pass


async def leave_the_block(stream: Stream) -> None:
    """Leave the stream's own block."""
    async with stream:
        pass


async def leave_the_block_by_an_error(stream: Stream) -> None:
    """Leave the stream's own block by an exception."""
    with suppress(ValueError):
        async with stream:
            raise ValueError


async def leave_the_loop(stream: Stream) -> None:
    """Leave a loop over the stream, which still has a name."""
    async for _ in stream:
        break


async def leave_the_loop_by_an_error(stream: Stream) -> None:
    """Leave a loop by an exception, which is kept."""
    try:
        async for _ in stream:
            raise ValueError
    except ValueError as error:
        kept.append(error)


async def leave_by_being_cancelled(stream: Stream) -> None:
    """A loop is cancelled while it waits for more."""
    with CancelScope() as scope:
        async for event in stream:
            if event == completed("last"):
                scope.cancel()


kept: list[BaseException] = []

WAYS_OUT = [
    leave_by_closing,
    leave_by_aclosing,
    leave_the_block,
    leave_the_block_by_an_error,
    leave_the_loop,
    leave_the_loop_by_an_error,
    leave_by_being_cancelled,
]


@pytest.mark.parametrize("buffer", [0, 1, None])
@pytest.mark.parametrize("leave", WAYS_OUT)
async def test_leaving(runs: Runs, leave: Callable[[Stream], Any], buffer: int | None) -> None:
    """[171] Leaving the loop or closing unsubscribes, drops what is buffered and releases whoever is paused."""
    stream = runs.observers.stream(buffer)
    for value in ("a", "b", "c", "last"):
        runs.tell(value)
        await runs.have_told()
    left = leave(stream)
    if left is not None:
        await left
    told = sorted(await runs.have_told())
    await runs.observers.emit(partial(completed, "later"))

    assert ["a", "b", "c", "last"] == told
    assert (True, []) == (runs.observers.is_idle, await rest(stream))


async def test_leaving_a_loop_without_a_name(runs: Runs) -> None:
    """[171] `async for event in engine.stream()` unsubscribes when it is left."""
    runs.tell("a", "b", "c")
    async for _ in runs.observers.stream(buffer=0):
        await wait_all_tasks_blocked()
        break

    assert (["a", "b", "c"], True) == (await runs.have_told(), runs.observers.is_idle)


async def test_letting_a_stream_go(runs: Runs) -> None:
    """[171] A stream that is let go without being read, or closed, pauses nobody any longer."""
    stream = runs.observers.stream(buffer=0)
    runs.tell("a", "b")
    before = list(await runs.have_told())
    del stream

    assert ([], ["a", "b"]) == (before, await runs.have_told())


async def test_closing_twice(runs: Runs) -> None:
    """[171] Closing a stream twice is fine, also after its end."""
    one, ended = runs.observers.stream(), runs.observers.stream()
    runs.tell("a")
    await runs.have_told()
    one.close()
    one.close()
    runs.observers.end()
    ended.close()

    assert ([], []) == (await rest(one), await rest(ended))


async def test_closing_while_somebody_reads(runs: Runs) -> None:
    """[171] A stream that is closed ends the loops that wait for more, all of them."""
    stream, ended = runs.observers.stream(), []

    async def reading(name: str) -> None:
        ended.append((name, await rest(stream)))

    async with create_task_group() as tasks:
        tasks.start_soon(reading, "one")
        tasks.start_soon(reading, "other")
        await wait_all_tasks_blocked()
        stream.close()

    assert [("one", []), ("other", [])] == sorted(ended)


async def test_leaving_one_of_several_loops(runs: Runs) -> None:
    """[171] With several loops over one stream, leaving one leaves the stream to the others."""
    stream, seen = runs.observers.stream(), []

    async def reading() -> None:
        seen.extend(await rest(stream))

    async with create_task_group() as tasks:
        tasks.start_soon(reading)
        await wait_all_tasks_blocked()
        runs.tell("a", "b")
        await leave_the_loop(stream)
        await runs.have_told()
        runs.observers.end()

    assert 1 == len(seen)


async def test_a_slow_stream(runs: Runs) -> None:
    """[172] A stream that nobody reads holds up its runs, and no other stream: that has the event already."""
    full, one, other = (runs.observers.stream(buffer) for buffer in (0, 0, None))
    runs.tell("a")
    await runs.have_told()
    seen = [await read(one), await read(other)]

    assert (["a", "a"], []) == (seen, await runs.have_told())
    assert "a" == await read(full)


async def test_cancelling_a_paused_run(runs: Runs) -> None:
    """[172] A run that is paused by full streams is released by cancellation; what it could not tell is told to none
    of them."""
    streams = [runs.observers.stream(buffer=1) for _ in range(2)]
    runs.tell("a")
    await runs.have_told()
    with CancelScope() as scope:
        async with create_task_group() as tasks:
            tasks.start_soon(runs.observers.emit, partial(completed, "cancelled"))
            await wait_all_tasks_blocked()
            scope.cancel()
    runs.tell("b")
    await runs.have_told()

    assert [["a", "b"], ["a", "b"]] == [[await read(stream), await read(stream)] for stream in streams]


@pytest.mark.parametrize("buffer", [0, 2, None])
async def test_the_engine_stops(runs: Runs, buffer: int | None) -> None:
    """[173] When the engine stops, what was told can still be read, whether held or paused; then streams end."""
    stream = runs.observers.stream(buffer)
    for value in range(4):
        runs.tell(value)
        await runs.have_told()
    runs.observers.end()
    told = sorted(await runs.have_told())

    assert ([0, 1, 2, 3], [0, 1, 2, 3], []) == (told, await rest(stream), await rest(stream))


async def test_the_engine_stops_while_somebody_reads(runs: Runs) -> None:
    """[173] A loop that waits for more when the engine stops ends."""
    stream, seen = runs.observers.stream(), ["nothing yet"]

    async def reading() -> None:
        seen[:] = await rest(stream)

    async with create_task_group() as tasks:
        tasks.start_soon(reading)
        await wait_all_tasks_blocked()
        runs.observers.end()

    assert ([], True) == (seen, runs.observers.is_idle)


async def test_an_engine_starts_again(runs: Runs) -> None:
    """[173] Streams that are made after the others have ended see what comes then."""
    ended = runs.observers.stream()
    runs.observers.end()
    stream = runs.observers.stream()
    await runs.observers.emit(partial(completed, "a"))

    assert ("a", []) == (await read(stream), await rest(ended))


# ---- readers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [0, 1, None])
async def test_several_readers(runs: Runs, buffer: int | None) -> None:
    """[173] Several readers of one stream are served in the order in which they came, each event to one of them."""
    stream, seen = runs.observers.stream(buffer), []

    async def reading(name: str) -> None:
        seen.append((name, await read(stream)))

    async with create_task_group() as tasks:
        for name in ("first", "second", "third"):
            tasks.start_soon(reading, name)
            await wait_all_tasks_blocked()
        for value in (1, 2, 3):
            await runs.observers.emit(partial(completed, value))

    assert [("first", 1), ("second", 2), ("third", 3)] == seen


@pytest.mark.parametrize("is_told_before", [True, False])
async def test_a_reader_is_cancelled(runs: Runs, is_told_before: bool) -> None:
    """[173] A reader that is cancelled takes nothing with it, though it was just about to be served: what it does not
    get, the next one does."""
    stream, seen = runs.observers.stream(), []

    async def reading(scope: CancelScope) -> None:
        with scope:
            async for event in stream:
                seen.append(event)

    scopes = [CancelScope(), CancelScope()]
    async with create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(reading, scope)
            await wait_all_tasks_blocked()
        if is_told_before:
            await runs.observers.emit(partial(completed, "a"))
        scopes[0].cancel()
        if not is_told_before:
            await runs.observers.emit(partial(completed, "a"))
        runs.observers.end()

    assert [completed("a")] == seen


async def test_a_loop_that_always_has_more(runs: Runs) -> None:
    """Reading lets others run, also where there is always something to read, and can be cancelled."""
    stream = runs.observers.stream()
    runs.tell(*range(100))
    await runs.have_told()
    seen = []
    with CancelScope() as scope:
        async for event in stream:
            seen.append(event)
            scope.cancel()

    assert 1 == len(seen)
