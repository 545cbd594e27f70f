"""What stands in for step bodies in a test."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any, TypeAlias

from anyio import CapacityLimiter
from msgspec import Struct
from msgspec.structs import replace

from reflow import Clock, ConfigError, Duration, StepInfo, Workflow
from reflow._core.duration import to_micros
from reflow._core.steps import Step
from reflow._engine.perform import Attempt, attempt
from reflow.testing.clock import VirtualClock

__all__ = ["After", "StandIns", "Stubs"]

# Keys of a mapping are invariant: a type that named functions and texts would refuse a dict of functions.
Stubs: TypeAlias = Mapping[Any, Any]
"""What steps do instead, by their function or their name: a value to give, a function to call, async or not, with the
arguments of the step, an exception to raise, or any of these `After` a while."""

_REAL: Any = object()


class After(Struct, frozen=True):
    """A stub that takes its time, in virtual time: after `duration` the step does what the stub `then` says."""

    duration: Duration
    then: Any = None


class StandIns:
    """Performs steps: those that have a stub by that, all others for real, while the clock stands still."""

    def __init__(self, stubs: Stubs | None, clock: VirtualClock) -> None:
        self._stubs: dict[Any, Any] = dict(stubs or {})
        self._clock = clock
        for key, stub in self._stubs.items():
            if isinstance(key, Workflow) or not (callable(key) or isinstance(key, str)):
                raise ConfigError(f"stubs has the key {key!r}; write the function of a step, or its name")
            if isinstance(stub, After):
                to_micros(stub.duration, what="the duration of After")

    async def perform(self, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
        """One attempt, as an engine asks for it."""
        stub = next((self._stubs[key] for key in _keys(step) if key in self._stubs), _REAL)
        if stub is not _REAL:
            body = replace(step.body, is_async=True)
            stubbed = replace(step, fn=partial(self._act, stub), body=body, in_transaction=False)
            return await attempt(stubbed, info, threads, clock)
        with self._clock.hold():
            return await attempt(step, info, threads, clock)

    async def _act(self, stub: Any, *args: Any, **kwargs: Any) -> Any:
        while isinstance(stub, After):
            await self._clock.sleep(stub.duration)
            stub = stub.then
        if isinstance(stub, BaseException) or _is_exception_class(stub):
            raise stub
        if not callable(stub):
            return stub
        with self._clock.hold():
            value = stub(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value


def _is_exception_class(stub: object) -> bool:
    return isinstance(stub, type) and issubclass(stub, BaseException)


def _keys(step: Step[Any]) -> Iterator[Any]:
    """Under what a stub for this step may be found."""
    yield step.name
    fn: Any = step.fn
    while isinstance(fn, partial):
        fn = fn.func
    for key in (step.fn, fn, fn.__func__ if isinstance(fn, MethodType) else fn):
        try:
            hash(key)
        except TypeError:
            continue
        yield key
