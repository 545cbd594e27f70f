"""`step`: a function to be run once, durably."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import MethodType
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, overload
from weakref import ref

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from reflow._core.command import Command, checked_name
from reflow._core.definition import Workflow, annotations_of
from reflow._core.duration import Duration, to_positive_micros
from reflow._core.forgotten import noted, replaced
from reflow._core.misuse import discard
from reflow._core.retry import Retry
from reflow.errors import ConfigError

__all__ = ["Step", "StepBody", "step", "transaction"]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class StepBody(Struct, frozen=True):
    """What Reflow knows of a function that is used as a step."""

    name: str
    is_async: bool
    result_type: Any


class Step(Command[T_co], frozen=True, weakref=True, eq=False):
    """A function to be run once, durably; made by `step`."""

    kind: ClassVar[str] = "step"

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str  # type: ignore[misc]
    body: StepBody
    retry: Retry | None = None
    timeout_us: int | None = None
    raises: tuple[type[Exception], ...] = ()
    in_transaction: bool = False

    def options(
        self,
        *,
        name: str | UnsetType = UNSET,
        retry: Retry | UnsetType | None = UNSET,
        timeout: Duration | UnsetType | None = UNSET,
        raises: type[Exception] | tuple[type[Exception], ...] | UnsetType = UNSET,
    ) -> Step[T_co]:
        """A changed copy; what is not named stays as it is.

        `name` is what the journal keeps (default: the function's `__name__`). `retry`: without one there is a single
        attempt. `timeout` limits each attempt; an async body is cancelled, a thread cannot be and its late result is
        dropped. Exceptions of a class in `raises` are raised at the yield as themselves instead of as
        `StepFailedError`, where their arguments are plain data.

        Raises `ConfigError` for a wrong value, here and not when the step runs.
        """
        changes: dict[str, Any] = {}
        if name is not UNSET:
            changes["name"] = checked_name(name, "name")
        if retry is not UNSET:
            if not (retry is None or isinstance(retry, Retry)):
                raise ConfigError(f"retry is {retry!r}; write Retry(max_attempts=...)")
            changes["retry"] = retry
        if timeout is not UNSET:
            changes["timeout_us"] = None if timeout is None else to_positive_micros(timeout, what="timeout")
        if raises is not UNSET:
            changes["raises"] = _exception_classes(raises)
        changed = replace(self, **changes)
        replaced(self)
        noted(changed)
        return changed


@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Step[T]: ...
@overload
def step(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Step[T]: ...
def step(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Step[Any]:
    """A command that runs `fn(*args, **kwargs)` once, durably, and gives its return value.

    An `async def` runs on the event loop, a plain `def` in a worker thread. The result is stored before the next step
    starts, and is read back as the annotated return type. A crash between the side effect and the commit repeats the
    body: `current_step().idempotency_key` is the same each time.

    Raises `ConfigError` where `fn` is not a function to be called, or an argument is a command, and says what to write.
    """
    return _made(fn, args, kwargs)


def transaction(fn: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> Step[T]:
    """A step whose body is part of a database transaction: `fn(connection, *args, **kwargs)`.

    The connection is one of the storage (of psycopg for `PostgresStorage`, of sqlite3 for `SQLiteStorage`), with a
    transaction open. What `fn` writes through it is committed together with the result of the step, or not at all: a
    crash repeats nothing, on whichever side of the commit it comes. `fn` is a plain function, runs in a worker thread,
    and leaves it to Reflow to commit; an exception rolls back. In the journal it is a step.

    Raises `ConfigError` where `fn` is not such a function, or an argument is a command. Yielded where the storage has
    no transactions (`MemoryStorage`), the step fails with `ConfigError`; in tests, give it a stub.
    """
    made = _made(fn, args, kwargs, in_transaction=True)
    if made.body.is_async:
        raise ConfigError(f"{made.name!r} is async; the body of a transaction is a plain `def`, it runs in a thread")
    return made


def _made(fn: Callable[..., Any], args: Any, kwargs: dict[str, Any], in_transaction: bool = False) -> Step[Any]:
    for argument in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(argument, Command):
            raise ConfigError(f"a step's argument is the command {argument.name!r}; yield it first and pass its result")
    body = _body_of(fn)
    made: Step[Any] = Step(fn, args, kwargs, body.name, body, in_transaction=in_transaction)
    noted(made)
    return made


_bodies: dict[int, tuple[ref[Any], StepBody]] = {}


def _body_of(fn: Any) -> StepBody:
    """What is known of `fn`, by its identity: functions need not be hashable, and nothing is kept alive."""
    known = _bodies.get(id(fn))
    if known is not None and known[0]() is fn:
        return known[1]
    inner = fn
    while isinstance(inner, partial):
        inner = inner.func
    if isinstance(inner, MethodType):
        inner = inner.__func__
    if inner is not fn:
        return _body_of(inner)
    body = _read_body(fn)

    def forget(_: ref[Any], key: int = id(fn), bodies: dict[int, Any] = _bodies) -> None:
        bodies.pop(key, None)

    with suppress(TypeError):  # there are no weak references to some objects with slots
        _bodies[id(fn)] = ref(fn, forget), body
    return body


def _read_body(function: Any) -> StepBody:
    if isinstance(function, Workflow):
        raise ConfigError(f"{function.name!r} is a workflow, not a step; a step is a plain or async function")
    if not callable(function):
        discard(function)
        name = getattr(function, "__name__", "fn")
        raise ConfigError(f"step got {function!r}; give it the function and its arguments: step({name}, ...)")
    if not inspect.isroutine(function) and not isinstance(function, type):
        name, function = type(function).__name__, type(function).__call__
    else:
        name = getattr(function, "__name__", "<unnamed>")
    if inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{name!r} is an async generator function; consume it in an `async def` and make that the step"
        )
    if inspect.isgeneratorfunction(function):
        raise ConfigError(f"{name!r} is a generator function; a branch goes to gather, or `yield from {name}(...)`")
    hints = {} if isinstance(function, type) else annotations_of(function)
    return StepBody(name, inspect.iscoroutinefunction(function), hints.get("return", Any))


def _exception_classes(raises: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    classes = raises if isinstance(raises, tuple) else (raises,)
    if not all(isinstance(cls, type) and issubclass(cls, Exception) for cls in classes):
        raise ConfigError(f"raises is {raises!r}; write an exception class, or a tuple of them")
    return classes
