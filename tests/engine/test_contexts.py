"""Awaiting within another context: variables are apart, and everything else of the task is as ever."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar, copy_context
from types import coroutine

import anyio
import pytest
import sniffio
from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class, sleep_forever, to_thread
from anyio.lowlevel import checkpoint

from reflow._engine.contexts import within

pytestmark = pytest.mark.anyio

colour: ContextVar[str] = ContextVar("colour", default="none")


async def test_variables_are_apart(anyio_backend: str) -> None:
    """What is set inside is seen inside, after waiting too and by tasks and threads that are started there, and nowhere
    else; what is set outside meanwhile is not seen."""
    seen: list[str] = []

    async def look() -> None:
        seen.append(colour.get())

    async def body() -> str:
        seen.append(colour.get())
        colour.set("red")
        await checkpoint()
        async with create_task_group() as tasks:
            tasks.start_soon(look)
        seen.append(await to_thread.run_sync(colour.get))
        return colour.get()

    token = colour.set("blue")
    context = copy_context()
    colour.reset(token)

    assert "red" == await within(context, body())
    assert ["blue", "red", "red"] == seen
    assert ("none", "red") == (colour.get(), context[colour])


async def test_the_event_loop_is_known(anyio_backend: str) -> None:
    """Inside, the task and the library are what they are outside."""

    async def body() -> tuple[str, object]:
        await checkpoint()
        return sniffio.current_async_library(), anyio.get_current_task().id

    assert await body() == await within(copy_context(), body())
    assert anyio_backend == sniffio.current_async_library()


async def test_scopes_reach_inside(anyio_backend: str) -> None:
    """A scope around it cancels what is inside; scopes inside end where they are, also by time."""
    log: list[str] = []

    async def body() -> None:
        with anyio.move_on_after(0.001):
            await sleep_forever()
        log.append("moved on")
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await sleep_forever()
        with CancelScope(shield=True):
            outer.cancel()
            await checkpoint()
        log.append("shielded")
        try:
            await sleep_forever()
        except get_cancelled_exc_class():
            log.append("cancelled")
            raise

    with CancelScope() as outer:
        await within(copy_context(), body())

    assert outer.cancelled_caught
    assert ["moved on", "shielded", "cancelled"] == log


async def test_groups_inside(anyio_backend: str) -> None:
    """A task group inside that fails cancels what its host waits for, and gives the error alone."""

    async def fail() -> None:
        raise ValueError("no")

    async def body() -> None:
        async with create_task_group() as tasks:
            tasks.start_soon(fail)
            await sleep_forever()

    with pytest.raises(BaseExceptionGroup) as group:
        await within(copy_context(), body())

    assert ["ValueError('no')"] == [repr(error) for error in group.value.exceptions]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_s_own_means() -> None:
    """asyncio's timeouts, task groups and cancellation work inside."""

    async def child() -> str:
        await asyncio.sleep(0)
        return "ended"

    async def body() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(child())
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return task.result()
        return "not cancelled"

    begun = asyncio.Event()
    context = copy_context()
    running = asyncio.ensure_future(_awaiting(lambda: within(context, body())))
    await begun.wait()
    running.cancel()

    assert "ended" == await running


async def _awaiting(make: Callable[[], Awaitable[str]]) -> str:
    return await make()


async def test_what_is_raised_inside(anyio_backend: str) -> None:
    """An error comes out as it was raised; one that is raised after a cancellation has been dealt with does not have
    that as its context, and nothing is kept alive by it."""
    kept: list[weakref.ref[object]] = []
    contexts: list[BaseException | None] = []

    class Noted(Exception):
        """Can be referred to weakly."""

    async def body() -> None:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except get_cancelled_exc_class():
                pass
        raise Noted("no")

    gc.collect()
    gc.disable()
    try:
        try:
            await within(copy_context(), body())
        except Noted as error:
            kept.append(weakref.ref(error))
            contexts.append(error.__context__)
        alive = kept[0]()
    finally:
        gc.enable()

    assert ([None], None) == (contexts, alive)


def test_closed_from_outside() -> None:
    """What is never gone on with is closed inside, where its blocks see its variables."""
    seen: list[str] = []

    @coroutine
    def waits() -> Generator[str, None, None]:
        yield "waits"

    async def body() -> None:
        colour.set("red")
        try:
            await waits()
        finally:
            seen.append(colour.get())

    async def outer() -> None:
        await within(copy_context(), body())

    awaited = outer()
    yielded = awaited.send(None)
    awaited.close()

    assert ("waits", ["red"]) == (yielded, seen)


async def test_side_by_side(anyio_backend: str) -> None:
    """Two that wait for one another keep their variables apart."""
    seen: list[tuple[str, str]] = []
    both = Event()

    async def body(name: str) -> None:
        colour.set(name)
        if name == "second":
            both.set()
        await both.wait()
        seen.append((name, colour.get()))

    async def run(name: str) -> None:
        await within(copy_context(), body(name))

    async with create_task_group() as tasks:
        tasks.start_soon(run, "first")
        tasks.start_soon(run, "second")

    assert [("first", "first"), ("second", "second")] == sorted(seen)
