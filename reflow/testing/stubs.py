"""What stands in for step bodies in a test."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
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

# How much alike names have to be, where one counts as misspelt.
_ALIKE = 0.75


class After(Struct, frozen=True):
    """A stub that takes its time, in virtual time: after `duration` the step does what the stub `then` says."""

    duration: Duration
    then: Any = None


class StandIns:
    """Performs steps: those that have a stub by that, all others for real, while the clock stands still; or, where they
    must not be `real`, not at all.

    In the end `check` says which stub was meant for a step that has run without one.
    """

    def __init__(self, stubs: Stubs | None, clock: VirtualClock, *, real: bool = True) -> None:
        self._stubs: dict[Any, Any] = dict(stubs or {})
        self._clock = clock
        self._real = real
        self._used: set[Any] = set()
        # Those without a stub, by their names.
        self._unstubbed: dict[str, Step[Any]] = {}
        for key, stub in self._stubs.items():
            if isinstance(key, Workflow) or not (callable(key) or isinstance(key, str)):
                raise ConfigError(f"stubs has the key {key!r}; write the function of a step, or its name")
            if isinstance(stub, After):
                to_micros(stub.duration, what="the duration of After")

    async def perform(self, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock) -> Attempt:
        """One attempt, as an engine asks for it."""
        for key in _keys(step):
            if key in self._stubs:
                self._used.add(key)
                return await self._instead(self._stubs[key], step, info, threads, clock)
        self._unstubbed[step.name] = step
        if not self._real:
            return await self._instead(ConfigError(_lacks(step.name)), step, info, threads, clock)
        with self._clock.hold():
            return await attempt(step, info, threads, clock)

    async def _instead(
        self, stub: Any, step: Step[Any], info: StepInfo, threads: CapacityLimiter, clock: Clock
    ) -> Attempt:
        body = replace(step.body, is_async=True)
        return await attempt(
            replace(step, fn=partial(self._act, stub), body=body, in_transaction=False), info, threads, clock
        )

    def check(self, workflows: Iterable[Workflow[..., Any]]) -> None:
        """`ConfigError` where a step had no stub and needed one, or ran for real although a stub must have been meant
        for it.

        A stub that was not used is all right: the run has gone another way. But not, where a step of almost its name
        had none, and the workflows themselves know of nothing that is called so.
        """
        if self._unstubbed and not self._real:
            raise ConfigError(_lacks(next(iter(self._unstubbed))))
        for key in self._stubs:
            if key in self._used:
                continue
            names = self._unstubbed
            near = _misspelt(key, names, workflows) if isinstance(key, str) else _lookalike(key, names)
            if near is not None:
                raise ConfigError(
                    f"stubs has {key!r}, which no step used, and step {near!r} ran for real. Write the function that "
                    f"is given to step(), or the name of the step; to let {near!r} run for real, its function as its "
                    "own stub"
                )

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


def _lacks(name: str) -> str:
    return f"step {name!r} has no stub, and real=False lets no body run; add it to stubs"


def _misspelt(key: str, unstubbed: Iterable[str], workflows: Iterable[Workflow[..., Any]]) -> str | None:
    """Which step a name was meant for, where it is none that the workflows speak of."""
    for function in (workflow.function for workflow in workflows):
        code = function.__code__
        if key in function.__globals__ or key in code.co_freevars or key in code.co_consts:
            return None
    return next(iter(get_close_matches(key, unstubbed, 1, _ALIKE)), None)


def _lookalike(key: Any, unstubbed: Mapping[str, Step[Any]]) -> str | None:
    """Which step has another function of the same name in the same place: decorated, or a method of another object."""
    place = _place_of(key)
    for name, step in unstubbed.items():
        if place is not None and any(place == _place_of(other) for other in _keys(step)):
            return name
    return None


def _place_of(function: Any) -> tuple[str, str] | None:
    """Where a function is defined; None for a lambda, and what else has no name of its own."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return (module, name) if isinstance(module, str) and isinstance(name, str) and "<lambda>" not in name else None


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
