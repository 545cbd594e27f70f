"""The base of all commands: what a workflow body yields. Immutable values; making one does nothing, yielding it
performs it.

`x = yield command` and `x = yield from command` do the same. In the second form type checkers know the type of `x`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Any, ClassVar, Generic, NoReturn, TypeAlias, TypeVar

from msgspec import Struct

from reflow.errors import ConfigError

__all__ = ["Branch", "Command", "Flow", "checked_name", "written"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Command(Struct, Generic[T_co], frozen=True, weakref=True, eq=False):
    """What a workflow body may yield; `T` is what the yield gives back."""

    kind: ClassVar[str]
    name: ClassVar[Any]

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        value: T_co = yield self
        return value

    def __bool__(self) -> NoReturn:
        # It would be true like any object, whatever the step or the change of the code says.
        code = written(self.kind, self.name)
        raise ConfigError(
            f"{code} is a command and neither true nor false; write `if (yield {code}):`, or `is not None` to ask "
            "whether it is there"
        )


Flow: TypeAlias = Generator[Command[Any], Any, T]
"""The return annotation of a workflow or branch whose result is a `T`."""

Branch: TypeAlias = Command[T] | Generator[Command[Any], Any, T]
"""What gather and race take: a command, or an undecorated generator with several of them in sequence."""


def written(kind: str, name: str) -> str:
    """How a command of this kind is made, in code."""
    match kind:
        case "step":
            return f"step({name}, ...)"
        case "child":
            return f"{name}(...)"
        case "spawn" | "continue_as_new":
            return f"{kind}({name}(...))"
        case "wait_event" | "patched":
            return f"{kind}({name!r})"
        case _:
            return f"{kind}(...)"


def checked_name(name: object, what: str) -> str:
    """`name`, where it can stand in a journal: a text that is not blank and that every storage can keep.

    `what` names it in the message of the `ConfigError`.
    """
    if isinstance(name, str) and name.strip() and "\0" not in name:
        with suppress(UnicodeEncodeError):
            name.encode()
            return name
    raise ConfigError(f"{what} is {name!r}; write a text that is not empty")
