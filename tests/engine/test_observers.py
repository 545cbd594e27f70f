"""Hooks are told everything in order, are waited for, and are never felt by who tells them."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import pytest
from anyio import CancelScope, Event, create_task_group, fail_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import ConfigError, HookError, MsgpackCodec, ReflowError
from reflow._engine.observers import Observers
from reflow.events import LifecycleEvent, RunFailed, StepCompleted
from tests.support.lifecycle import completed, failed

pytestmark = pytest.mark.anyio


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str, str]]:
    """Level, message and cause of what was logged; such lines are no bugs here, so they are taken out."""
    lines = [
        (record.levelno, record.getMessage(), repr(record.exc_info and record.exc_info[1]))
        for record in caplog.records
        if record.name == "reflow"
    ]
    caplog.clear()
    return lines


class Told:
    """A hook, or an error handler, that keeps what it was told."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, told: object) -> None:
        self.all.append(told)


async def test_nobody_looks_on() -> None:
    """Without hooks and streams, observers are idle, and no event is made."""
    observers, made = Observers(), Told()
    await observers.emit(lambda: made(1) or completed(1))

    assert (True, []) == (observers.is_idle, made.all)


async def test_who_looks_on() -> None:
    """Observers are not idle while there is a hook, or an open stream."""
    observers = Observers()
    with_hook = Observers([Told()])
    stream = observers.stream()
    with_stream = observers.is_idle
    stream.close()

    assert (False, False, True) == (with_hook.is_idle, with_stream, observers.is_idle)


async def test_hooks_are_told_in_order() -> None:
    """[164] Hooks are told one after the other, in the order in which they were given, sync and async ones alike."""
    told: list[str] = []

    async def second(event: LifecycleEvent) -> None:
        await checkpoint()
        told.append(f"second {event.run_id}")

    observers = Observers([lambda event: told.append(f"first {event.run_id}"), second, lambda _: told.append("third")])
    await observers.emit(partial(completed, 1, run_id="a"))
    await observers.emit(partial(completed, 2, run_id="b"))

    assert ["first a", "second a", "third", "first b", "second b", "third"] == told


async def test_an_async_hook_is_awaited() -> None:
    """[166] Whoever tells goes on only when an async hook has returned."""
    may_return, went_on = Event(), Event()

    async def slow(event: LifecycleEvent) -> None:
        await may_return.wait()

    async def tell() -> None:
        await observers.emit(partial(completed, 1))
        went_on.set()

    observers = Observers([slow])
    async with create_task_group() as tasks:
        tasks.start_soon(tell)
        await wait_all_tasks_blocked()
        before = went_on.is_set()
        may_return.set()

    assert (False, True) == (before, went_on.is_set())


async def test_a_slow_hook_holds_up_one_run() -> None:
    """[136] While a hook keeps one run waiting, it can be told of others."""
    told = Told()

    async def hangs_for_a(event: LifecycleEvent) -> None:
        told(event.run_id)
        if event.run_id == "a":
            await Event().wait()

    observers = Observers([hangs_for_a])
    async with create_task_group() as tasks:
        tasks.start_soon(observers.emit, partial(completed, 1, run_id="a"))
        await wait_all_tasks_blocked()
        await observers.emit(partial(completed, 1, run_id="b"))
        tasks.cancel_scope.cancel()

    assert ["a", "b"] == told.all


async def test_each_has_a_copy() -> None:
    """[167] What a hook does to a payload reaches neither another hook, nor a stream, nor what the event was made
    of."""
    payload = MsgpackCodec().encode([1])
    told = Told()

    def spoil(event: LifecycleEvent) -> None:
        assert isinstance(event, StepCompleted)
        event.value.append(2)

    observers = Observers([spoil, told, spoil])
    stream = observers.stream()
    await observers.emit(lambda: completed(MsgpackCodec().decode(payload, list[int])))
    streamed = await anext(stream)

    assert ([[1]], completed([1])) == ([event.value for event in told.all], streamed)
    assert MsgpackCodec().encode([1]) == payload


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_throwing_hook(is_async: bool) -> None:
    """[166] What a hook raises, sync or async, is given to `on_error` as `HookError`, and the next hook is told all the
    same."""
    errors, told = Told(), Told()
    cause = ValueError("no connection")

    def throws(event: LifecycleEvent) -> None:
        raise cause

    async def throws_later(event: LifecycleEvent) -> None:
        await checkpoint()
        raise cause

    hook = throws_later if is_async else throws
    observers = Observers([hook, told], errors)
    await observers.emit(partial(completed, 1))
    [error] = errors.all

    assert [completed(1)] == told.all
    assert isinstance(error, HookError)
    assert (hook.__qualname__, "ValueError: no connection", cause) == (error.source, error.cause, error.__cause__)


async def test_the_name_of_a_hook() -> None:
    """[166] A hook that is an object is reported by its class, one that is a method by class and method."""

    class Metrics:
        def __call__(self, event: LifecycleEvent) -> None:
            raise KeyError(1)

        def note(self, event: LifecycleEvent) -> None:
            raise KeyError(2)

    errors = Told()
    await Observers([Metrics(), Metrics().note], errors).emit(partial(completed, 1))

    assert ["Metrics", "note"] == [error.source.rpartition(".")[2] for error in errors.all]


async def test_no_error_handler(caplog: pytest.LogCaptureFixture) -> None:
    """[166] Without `on_error`, what a hook raises is logged with its traceback, as an error on the logger `reflow`."""

    def alert(event: LifecycleEvent) -> None:
        raise ValueError("no connection")

    await Observers([alert]).emit(partial(completed, 1))
    [(level, message, cause)] = logged(caplog)

    assert (logging.ERROR, "ValueError('no connection')") == (level, cause)
    assert "alert raised ValueError: no connection" in message


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_throwing_error_handler(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """[166] An error in the reporting of errors is logged, and goes no further."""

    def handle(error: ReflowError) -> None:
        raise RuntimeError("disk full")

    async def handle_later(error: ReflowError) -> None:
        await checkpoint()
        handle(error)

    await Observers(on_error=handle_later if is_async else handle).report(ConfigError("a reason"))

    assert [(logging.ERROR, "on_error raised when it was told: a reason", "RuntimeError('disk full')")] == logged(
        caplog
    )


async def test_an_event_that_cannot_be_made() -> None:
    """[166] Where no copy of a payload can be made, that is reported for each hook and for the streams, and goes no
    further."""
    errors, told = Told(), Told()

    def broken() -> LifecycleEvent:
        raise ValueError("no key")

    observers = Observers([told], errors)
    stream = observers.stream()
    await observers.emit(broken)
    stream.close()

    assert ([], ["Told", "stream"]) == (told.all, [error.source for error in errors.all])


@pytest.mark.parametrize("hangs", ["hook", "on_error"])
async def test_cancelling(hangs: str) -> None:
    """[168] Cancelling whoever tells interrupts a hook that never returns, and an error handler too; it is not
    reported as an error, and comes out."""
    told, entered = Told(), Event()

    async def hang(_: object) -> None:
        entered.set()
        await Event().wait()

    def throw(_: object) -> None:
        raise ValueError

    observers = Observers([hang], told) if hangs == "hook" else Observers([throw], hang)
    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(observers.emit, partial(completed, 1))
            await entered.wait()
            tasks.cancel_scope.cancel()

    assert [] == told.all


async def test_a_hook_that_absorbs_cancellation() -> None:
    """[168] A hook may cancel scopes of its own; that is nobody else's business."""
    told = Told()

    async def impatient(event: LifecycleEvent) -> None:
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        told(event)

    await Observers([impatient]).emit(partial(completed, 1))

    assert [completed(1)] == told.all


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hook_awaits_what_was_cancelled() -> None:
    """[166] On asyncio, a hook that awaits a cancelled future raises what looks like a cancellation; it is reported
    like any other error."""
    import asyncio

    errors = Told()

    async def unlucky(event: LifecycleEvent) -> None:
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    await Observers([unlucky], errors).emit(partial(completed, 1))

    assert ["CancelledError"] == [error.cause for error in errors.all]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation() -> None:
    """[168] A task that was cancelled by asyncio's own means comes out of a hook as cancelled."""
    import asyncio

    async def hang(event: LifecycleEvent) -> None:
        await Event().wait()

    errors = Told()
    telling = asyncio.ensure_future(Observers([hang], errors).emit(partial(completed, 1)))
    await wait_all_tasks_blocked()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling

    assert [] == errors.all


async def test_a_hook_that_exits() -> None:
    """[166] `sys.exit` within a hook is an error of the hook, as it is one of a step, and ends nothing."""
    errors = Told()

    def leave(event: LifecycleEvent) -> None:
        raise SystemExit(3)

    await Observers([leave], errors).emit(partial(completed, 1))

    assert ["SystemExit: 3"] == [error.cause for error in errors.all]


async def test_ctrl_c() -> None:
    """[166] Ctrl-C within a hook is not a hook's error: it comes out."""
    errors = Told()

    def interrupted(event: LifecycleEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Observers([interrupted], errors).emit(partial(completed, 1))

    assert [] == errors.all


async def test_any_event() -> None:
    """[164] A hook is told of events of every class, and tells them apart by `match`."""
    told: list[str] = []

    def alert(event: LifecycleEvent) -> None:
        match event:
            case StepCompleted(step=step, attempt=attempt):
                told.append(f"{step} took {attempt}")
            case RunFailed(error=error):
                told.append(str(error))
            case _:
                told.append("something else")

    observers = Observers([alert])
    await observers.emit(partial(completed, 1))
    await observers.emit(failed)

    assert ["charge took 2", "ValueError: wrong"] == told


@pytest.mark.parametrize(
    ("hooks", "on_error", "problem"),
    [
        (Told(), None, "write a list of functions: hooks="),
        (5, None, "write a list of functions: hooks="),
        ([Told(), "alert"], None, "'alert' is no hook"),
        ([], "log", "on_error is 'log'"),
    ],
)
async def test_what_is_no_hook(hooks: Any, on_error: Any, problem: str) -> None:
    """Hooks that are no list of functions, and an `on_error` that is no function, are refused in a sentence."""
    with pytest.raises(ConfigError, match=problem):
        Observers(hooks, on_error)
