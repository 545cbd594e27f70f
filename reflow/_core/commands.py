"""Commands: what a workflow body yields. Immutable values; making one does nothing, yielding it performs it.

    yielded            kind    performed by                                     gives
    step(...)          step    the engine: runs the body, records its outcome   the body's return value
    sleep, sleep_until sleep   the engine: a stored timer                       None
    now()              now     the engine: reads the clock, once                datetime
    new_uuid()                 replay itself, from run id and position          UUID
    new_random()               replay itself                                    random.Random
    gather(...)                replay itself: opens its members                 tuple in argument order
    race(...)                  replay itself: opens its members                 Winner

Only kinds that the engine performs leave entries in the journal (`Performed`); the others follow from them.

`x = yield command` and `x = yield from command` do the same. In the second form type checkers know the type of `x`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from datetime import datetime
from functools import partial
from random import Random
from types import GeneratorType, MethodType
from typing import Any, ClassVar, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload
from uuid import UUID
from weakref import ref

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from reflow._core.definition import Workflow, annotations_of
from reflow._core.duration import Duration, to_instant, to_micros
from reflow._core.forgotten import noted, replaced
from reflow._core.misuse import discard, explain_member
from reflow._core.retry import Retry
from reflow.errors import ConfigError

__all__ = [
    "Branch",
    "Command",
    "Flow",
    "Gather",
    "NewRandom",
    "NewUuid",
    "Now",
    "Performed",
    "Race",
    "Sleep",
    "Step",
    "StepBody",
    "Winner",
    "gather",
    "new_random",
    "new_uuid",
    "now",
    "race",
    "sleep",
    "sleep_until",
    "step",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")


class Command(Struct, Generic[T_co], frozen=True, weakref=True, eq=False):
    """What a workflow body may yield; `T` is what the yield gives back."""

    kind: ClassVar[str]
    name: ClassVar[Any]

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        value: T_co = yield self
        return value


Flow: TypeAlias = Generator[Command[Any], Any, T]
"""The return annotation of a workflow or branch whose result is a `T`."""

Branch: TypeAlias = Command[T] | Generator[Command[Any], Any, T]
"""What gather and race take: a command, or an undecorated generator with several of them in sequence."""


# ---- step ------------------------------------------------------------------------------------------------------------


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
            if not isinstance(name, str) or not name:
                raise ConfigError(f"name is {name!r}; write a text that is not empty")
            changes["name"] = name
        if retry is not UNSET:
            if not (retry is None or isinstance(retry, Retry)):
                raise ConfigError(f"retry is {retry!r}; write Retry(max_attempts=...)")
            changes["retry"] = retry
        if timeout is not UNSET:
            changes["timeout_us"] = None if timeout is None else _positive(timeout, "timeout")
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
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Command):
            raise ConfigError(f"a step's argument is the command {argument.name!r}; yield it first and pass its result")
    made: Step[Any] = Step(fn, args, kwargs, (body := _body_of(fn)).name, body)
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


def _positive(duration: Duration, what: str) -> int:
    micros = to_micros(duration, what=what)
    if micros == 0:
        raise ConfigError(f"{what} is {duration!r}; it must be longer than nothing")
    return micros


# ---- time, identity, randomness --------------------------------------------------------------------------------------


class Sleep(Command[None], frozen=True, weakref=True, eq=False):
    """A durable timer; made by `sleep`, which sets a duration, and `sleep_until`, which sets an instant."""

    kind: ClassVar[str] = "sleep"
    name: ClassVar[str] = "sleep"

    duration_us: int = 0
    until: int | None = None

    def wakes_at(self, arrived_at: int) -> int:
        """The instant at which it is over, where the run arrived at it at `arrived_at`."""
        return arrived_at + self.duration_us if self.until is None else self.until


class Now(Command[datetime], frozen=True, weakref=True, eq=False):
    """The time, read once and recorded; made by `now`."""

    kind: ClassVar[str] = "now"
    name: ClassVar[str] = "now"


class NewUuid(Command[UUID], frozen=True, weakref=True, eq=False):
    """A UUID that follows from run id and position; made by `new_uuid`."""

    kind: ClassVar[str] = "new_uuid"
    name: ClassVar[str] = "new_uuid"


class NewRandom(Command[Random], frozen=True, weakref=True, eq=False):
    """A seeded random generator that follows from run id and position; made by `new_random`."""

    kind: ClassVar[str] = "new_random"
    name: ClassVar[str] = "new_random"


def sleep(duration: Duration) -> Sleep:
    """A command that waits for `duration`, durably: the wake time is stored on first arrival, and the process need not
    stay alive. `ConfigError` for a duration that is none."""
    made = Sleep(duration_us=to_micros(duration, what="the duration of sleep"))
    noted(made)
    return made


def sleep_until(moment: datetime) -> Sleep:
    """A command that waits until `moment`, an aware datetime (a naive one is a `ConfigError`)."""
    made = Sleep(until=to_instant(moment, what="the moment of sleep_until"))
    noted(made)
    return made


def now() -> Now:
    """A command that gives the time (an aware UTC datetime), the same on every replay."""
    made = Now()
    noted(made)
    return made


def new_uuid() -> NewUuid:
    """A command that gives a UUID, the same on every replay and different for every place and run."""
    made = NewUuid()
    noted(made)
    return made


def new_random() -> NewRandom:
    """A command that gives a `random.Random` of its own, seeded the same on every replay."""
    made = NewRandom()
    noted(made)
    return made


# ---- side by side ----------------------------------------------------------------------------------------------------


class Winner(Struct, Generic[T_co], frozen=True):
    """What `race` gives: which member settled first, and its value."""

    index: int
    value: T_co


class Gather(Command[T_co], frozen=True, weakref=True, eq=False):
    """Members performed side by side until all have settled; made by `gather`."""

    kind: ClassVar[str] = "gather"
    name: ClassVar[str] = "gather"

    members: tuple[Branch[Any], ...]
    limit: int | None
    return_exceptions: bool


class Race(Command[T_co], frozen=True, weakref=True, eq=False):
    """Members performed side by side until the first has settled; made by `race`."""

    kind: ClassVar[str] = "race"
    name: ClassVar[str] = "race"

    members: tuple[Branch[Any], ...]


_Limit: TypeAlias = int | None
_Raise: TypeAlias = Literal[False]
_Return: TypeAlias = Literal[True]


# fmt: off
@overload
def gather(*, limit: _Limit = None, return_exceptions: bool = False) -> Gather[tuple[()]]: ...
@overload
def gather(a: Branch[T1], /, *, limit: _Limit = None, return_exceptions: _Raise = False) -> Gather[tuple[T1]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], /, *, limit: _Limit = None, return_exceptions: _Raise = False
) -> Gather[tuple[T1, T2]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], c: Branch[T3], /, *, limit: _Limit = None, return_exceptions: _Raise = False
) -> Gather[tuple[T1, T2, T3]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], c: Branch[T3], d: Branch[T4], /, *,
    limit: _Limit = None, return_exceptions: _Raise = False,
) -> Gather[tuple[T1, T2, T3, T4]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], c: Branch[T3], d: Branch[T4], e: Branch[T5], /, *,
    limit: _Limit = None, return_exceptions: _Raise = False,
) -> Gather[tuple[T1, T2, T3, T4, T5]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], c: Branch[T3], d: Branch[T4], e: Branch[T5], f: Branch[T6], /, *,
    limit: _Limit = None, return_exceptions: _Raise = False,
) -> Gather[tuple[T1, T2, T3, T4, T5, T6]]: ...
@overload
def gather(*members: Branch[T], limit: _Limit = None, return_exceptions: _Raise = False) -> Gather[tuple[T, ...]]: ...
@overload
def gather(a: Branch[T1], /, *, limit: _Limit = None, return_exceptions: _Return) -> Gather[tuple[T1 | Exception]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], /, *, limit: _Limit = None, return_exceptions: _Return
) -> Gather[tuple[T1 | Exception, T2 | Exception]]: ...
@overload
def gather(
    a: Branch[T1], b: Branch[T2], c: Branch[T3], /, *, limit: _Limit = None, return_exceptions: _Return
) -> Gather[tuple[T1 | Exception, T2 | Exception, T3 | Exception]]: ...
@overload
def gather(*members: Branch[T], limit: _Limit = None, return_exceptions: bool) -> Gather[tuple[T | Exception, ...]]: ...
# fmt: on
def gather(*members: Branch[Any], limit: int | None = None, return_exceptions: bool = False) -> Gather[Any]:
    """A command that performs all members side by side and gives their values as a tuple, in argument order.

    At most `limit` members are under way at once (default: all). The first failure cancels the others and is raised
    once all have settled; with `return_exceptions=True` all members finish, and failures stand in their places.

    Raises `ConfigError` for a member that is neither a command nor a branch, and for a `limit` below 1.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit is {limit!r}; write a whole number from 1 up, or None")
    made: Gather[Any] = Gather(_checked(members, "gather"), limit, bool(return_exceptions))
    noted(made)
    return made


# fmt: off
@overload
def race(a: Branch[T1], /) -> Race[Winner[T1]]: ...
@overload
def race(a: Branch[T1], b: Branch[T2], /) -> Race[Winner[T1 | T2]]: ...
@overload
def race(a: Branch[T1], b: Branch[T2], c: Branch[T3], /) -> Race[Winner[T1 | T2 | T3]]: ...
@overload
def race(a: Branch[T1], b: Branch[T2], c: Branch[T3], d: Branch[T4], /) -> Race[Winner[T1 | T2 | T3 | T4]]: ...
@overload
def race(*members: Branch[T]) -> Race[Winner[T]]: ...
# fmt: on
def race(*members: Branch[Any]) -> Race[Winner[Any]]:
    """A command that performs all members side by side; the first to settle wins and the others are cancelled.

    Gives `Winner(index, value)`; if the first to settle failed, its failure is raised. The body goes on at once; the
    run does not end before the losers' clean-up steps have settled.

    Raises `ConfigError` for no member at all (it could never end), or one that is neither a command nor a branch.
    """
    if not members:
        raise ConfigError("race() of nothing would never end; give it at least one command")
    made: Race[Winner[Any]] = Race(_checked(members, "race"))
    noted(made)
    return made


def _checked(members: tuple[Any, ...], group: str) -> tuple[Branch[Any], ...]:
    for index, member in enumerate(members):
        if not isinstance(member, (Command, GeneratorType)):
            discard(member)
            raise ConfigError(explain_member(member, index, group))
        if isinstance(member, GeneratorType) and member.gi_code.co_name == "<genexpr>":
            raise ConfigError(f"argument {index} of {group} is a generator expression; unpack it: {group}(*(...))")
    return members


Performed: TypeAlias = Step[Any] | Sleep | Now
"""Commands that the engine performs, and that leave entries."""
