"""`step`: a function to be run once, durably."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType, FunctionType, MethodType
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar, overload
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

    Raises `ConfigError` where `fn` is not a function to be called, the arguments are not those that it takes, or one is
    a command, and says what to write.
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
    # The body of a transaction is given a connection first.
    given = (None, *args) if in_transaction else args
    body = _body_of(fn, (len(given), *kwargs) if kwargs else len(given), (fn, given, kwargs))
    made: Step[Any] = Step(fn, args, kwargs, body.name, body, in_transaction=in_transaction)
    noted(made)
    return made


class _Known(NamedTuple):
    """What is known of a function. Its `shapes` are those of calls whose arguments have been seen to fit: how many by
    position, and the names of the others. Nothing else decides it, so it need not be looked at again."""

    function: Callable[[], Any]
    body: StepBody
    shapes: set[object]


_Given: TypeAlias = "tuple[Any, tuple[Any, ...], dict[str, Any]]"
_MOST_SHAPES = 100
_OPTIONS = frozenset({"name", "retry", "timeout", "raises"})
_known: dict[int, _Known] = {}


def _body_of(fn: Any, shape: object, given: _Given) -> StepBody:
    """What is known of `fn`, by its identity: functions need not be hashable, and nothing is kept alive.

    `given` is what `step` was given, a call of this `shape`; `fn` is what is within.
    """
    known = _known.get(id(fn))
    if known is None or known.function() is not fn:
        if isinstance(fn, partial):
            return _body_of(fn.func, (len(fn.args), *fn.keywords, shape), given)
        if isinstance(fn, MethodType):
            return _body_of(fn.__func__, ("bound", shape), given)
        known = _read(fn)
    if shape not in known.shapes:
        # Where it has a `__signature__`, what that says need not be what a call is held to.
        if isinstance(fn, FunctionType) and not hasattr(fn, "__signature__"):
            _check_arguments(fn, *given)
        if len(known.shapes) < _MOST_SHAPES:
            known.shapes.add(shape)
    return known.body


def _read(fn: Any) -> _Known:
    body, shapes = _read_body(fn), set[object]()

    def forget(_: ref[Any], key: int = id(fn), known: dict[int, Any] = _known) -> None:
        known.pop(key, None)

    try:
        _known[id(fn)] = known = _Known(ref(fn, forget), body, shapes)
    except TypeError:
        # There are no weak references to some objects with slots.
        return _Known(lambda: None, body, shapes)
    return known


def _check_arguments(inner: FunctionType, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise where `fn`, a function written in Python or what has it within, does not take these arguments: now, and not
    when the body is called, where it would look like any failure, and be tried again."""
    try:
        inspect.signature(fn, follow_wrapped=False).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        # The latter of a partial that is wrong in itself.
        parameters = inspect.signature(inner, follow_wrapped=False).parameters
        takes = inspect.Signature([each.replace(annotation=each.empty) for each in parameters.values()])
        options = _OPTIONS & kwargs.keys() - parameters.keys()
        hint = f"; options of the step go to step(...).options({min(options)}=...)" if options else ""
        problem = f"{error.__cause__ or error}; it takes {takes}{hint} ({_written_at()})"
        raise ConfigError(f"step {inner.__name__!r}: {problem}") from None


def _written_at() -> str:
    """`file:line` of the call of `step`."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "?"


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
