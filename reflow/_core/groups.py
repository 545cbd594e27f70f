"""`gather` and `race`: commands and branches side by side."""

from __future__ import annotations

from types import GeneratorType
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, overload

from msgspec import Struct

from reflow._core.command import Branch, Command
from reflow._core.forgotten import noted
from reflow._core.misuse import discard, explain_member
from reflow.errors import ConfigError

__all__ = ["Gather", "Race", "Winner", "gather", "race"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")


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
