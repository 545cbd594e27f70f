"""The base of all commands: what a workflow body yields. Immutable values; making one does nothing, yielding it
performs it.

`x = yield command` and `x = yield from command` do the same. In the second form type checkers know the type of `x`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from msgspec import Struct

from reflow.errors import ConfigError

__all__ = ["Branch", "Command", "Flow", "checked_name"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


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


def checked_name(name: object, what: str) -> str:
    """`name`, where it can stand in a journal: a text that is not blank and that every storage can keep.

    `what` names it in the message of the `ConfigError`.
    """
    if isinstance(name, str) and name.strip() and "\0" not in name:
        with suppress(UnicodeEncodeError):
            name.encode()
            return name
    raise ConfigError(f"{what} is {name!r}; write a text that is not empty")
