"""One attempt of a step: its body, its time limit, and what it can know of itself.

An async body runs on the event loop and is cancelled when its time is over. A plain function runs in a worker thread,
which nothing can interrupt: when its time is over, or its run lost a race, it is left alone and its result is dropped.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeAlias

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    create_task_group,
    get_cancelled_exc_class,
    to_thread,
)
from msgspec import Struct

from reflow._core.derived import stem_of
from reflow._core.steps import Step
from reflow._engine.clock import Clock
from reflow._engine.contexts import within
from reflow._engine.places import Place
from reflow._engine.scopes import checkpoint_if_cancelled
from reflow._engine.transactions import StorageTrouble, called_in_transaction
from reflow.errors import ConfigError, Failure, StepTimeoutError

__all__ = ["Attempt", "Perform", "StepInfo", "attempt", "current_step"]

_TIMEOUT_BASES = tuple(cls.__name__ for cls in StepTimeoutError.__mro__ if cls is not object)

_RETRY_STORAGE_US = 200_000

_log = logging.getLogger("reflow")

_current: ContextVar[StepInfo | None] = ContextVar("reflow_current_step", default=None)


class StepInfo(Struct, frozen=True, gc=False):
    """What a step body can know of itself, from `current_step()`.

    `attempt` counts from 1, `generation` how often the run has continued as new. `idempotency_key` is the same on every
    attempt and after every crash, and different for every step of every run: hand it to services that can ignore a
    request they have seen before.
    """

    run_id: str
    workflow: str
    step: str
    position: str
    attempt: int
    generation: int = 0

    @property
    def idempotency_key(self) -> str:
        """The run id and the position; where the run has continued as new, its generation too."""
        return f"{stem_of(self.run_id, self.generation)}:{self.position}"


class Attempt(Struct, frozen=True):
    """What came of one attempt: a value, or an error."""

    value: Any
    error: BaseException | None


Perform: TypeAlias = Callable[[Step[Any], StepInfo, CapacityLimiter, Clock], Awaitable[Attempt]]
"""How one attempt is made: `attempt`, or what tests put in its place."""


def current_step() -> StepInfo:
    """The step whose body is running here; `ConfigError` outside a step body."""
    info = _current.get()
    if info is None:
        raise ConfigError("current_step() was called outside a step body")
    return info


def attempt(step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Awaitable[Attempt]:
    """Run the body of `step` once, in a copy of this context, so that no other body sees what it sets. Only
    cancellation from outside comes out as an exception, and Ctrl-C."""
    context = copy_context()
    context.run(_current.set, info)
    if not step.body.is_async:
        made = _in_a_thread(step, info, threads, clock)
    elif step.timeout_us is None:
        made = _body(step, clock, None)
    else:
        made = _timed_body(step, info, clock, None)
    return within(context, made)


async def _in_a_thread(step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
    # Waiting for a free thread is not the body's time.
    async with Place(threads) as place:
        return await (_body(step, clock, place) if step.timeout_us is None else _timed_body(step, info, clock, place))


async def _body(step: Step[Any], clock: Clock, place: Place | None) -> Attempt:
    try:
        if place is None:
            return Attempt(await step.fn(*step.args, **step.kwargs), None)
        while True:
            try:
                # The caller holds its place among the threads; anyio's own limit is for others.
                limiter = CapacityLimiter(1)
                value = await to_thread.run_sync(place.call, _called, step, limiter=limiter, abandon_on_cancel=True)
                return Attempt(value, None)
            except StorageTrouble as trouble:
                _log.warning("transaction %r: %s; trying again", step.name, trouble)
                await clock.wait(Event(), clock.now() + _RETRY_STORAGE_US)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # What a body makes of being cancelled, such as a clean-up that fails, is no outcome of the step.
        await checkpoint_if_cancelled()
        if isinstance(error, get_cancelled_exc_class()):
            # Nobody cancelled us: the body awaited something that was cancelled.
            return Attempt(None, _said(RuntimeError("the step's body was cancelled from within"), error))
        return Attempt(None, error)


def _called(step: Step[Any]) -> Any:
    if step.in_transaction:
        return called_in_transaction(step, current_step().position)
    value = step.fn(*step.args, **step.kwargs)
    if inspect.iscoroutine(value):
        value.close()
        raise ConfigError(f"step {step.name!r} returned a coroutine; make it an `async def`")
    return value


async def _timed_body(step: Step[Any], info: StepInfo, clock: Clock, place: Place | None) -> Attempt:
    limit_us = step.timeout_us
    assert limit_us is not None, "called for a step with a limit"
    over = Event()
    result: Attempt | None = None
    with CancelScope() as scope:
        async with create_task_group() as watch:

            async def expire() -> None:
                while not over.is_set() and clock.now() < deadline:
                    await clock.wait(over, deadline)
                if not over.is_set():
                    scope.cancel()

            deadline = clock.now() + limit_us
            watch.start_soon(expire)
            result = await _body(step, clock, place)
            over.set()
    # A body that returned although it was cancelled was too late all the same.
    if result is not None and not scope.cancel_called:
        return result
    # The group swallows asyncio's own cancellation where it reached the other task first.
    await checkpoint_if_cancelled()
    limit_s = limit_us / 1_000_000
    failure = Failure(
        "StepTimeoutError",
        f"timed out after {limit_s:g} s",
        bases=_TIMEOUT_BASES,
        code=StepTimeoutError.code,
        position=info.position,
        args=(limit_s,),
    )
    return Attempt(None, StepTimeoutError(info.step, info.position, info.attempt, failure, limit_s))


def _said(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error
