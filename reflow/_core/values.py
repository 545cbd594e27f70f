"""Values that are the same on every replay: `now`, `new_uuid`, `new_random`, and `patched`, which tells old runs from
new ones."""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import ClassVar
from uuid import UUID

from reflow._core.command import Command, checked_name
from reflow._core.forgotten import noted

__all__ = ["NewRandom", "NewUuid", "Now", "Patched", "new_random", "new_uuid", "now", "patched"]


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


class Patched(Command[bool], frozen=True, weakref=True, eq=False):
    """Whether the run takes the new way through a change of the code; made by `patched`."""

    kind: ClassVar[str] = "patched"

    name: str  # type: ignore[misc]


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


def patched(change: str, /) -> Patched:
    """A command that tells how far a run was when the code changed, so that both ways can stand side by side:
    `if (yield patched("ask twice")): ... else: ...`.

    Gives True to runs that come here first with the new code, False to runs that were already past this place. It is
    decided once for each run and `change`, and moves no position. When no run needs the old way any more, take the call
    out together with it.

    Raises `ConfigError` where `change` is no text, or empty.
    """
    made = Patched(checked_name(change, "the change"))
    noted(made)
    return made
