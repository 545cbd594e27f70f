"""The tree that a program is while it runs: frames and groups, with open commands as its leaves.

These are records without behaviour of their own; replay.py moves them along and says how they settle.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from inspect import isgenerator
from types import GeneratorType
from typing import Any, TypeAlias

from reflow._core.commands import Command, Gather, Performed, Race
from reflow._core.journal import describe

__all__ = ["Frame", "Group", "Node", "Open", "frame_of", "innermost", "lingers", "location_of"]


class Frame:
    """A generator in progress: the workflow body or a branch."""

    __slots__ = (
        "cancel_due",
        "context",
        "count",
        "frame",
        "generator",
        "index",
        "parent",
        "prefix",
        "waits_for",
    )

    def __init__(
        self,
        generator: GeneratorType[Any, Any, Any],
        prefix: str,
        parent: Group | None,
        index: int,
        context: Context,
    ) -> None:
        self.generator = generator
        # A generator that has ended does not tell its line any more; this still does.
        self.frame = generator.gi_frame
        self.prefix = prefix
        self.parent = parent
        self.index = index
        self.context = context
        self.count = 0
        self.waits_for: Open | Group | None = None
        # Cancelled, but the generator has not been told yet.
        self.cancel_due = False


class Group:
    """A gather or race in progress."""

    __slots__ = (
        "active",
        "closing",
        "command",
        "error",
        "index",
        "members",
        "parent",
        "position",
        "remaining",
        "unstarted",
        "values",
        "won",
    )

    def __init__(self, command: Gather[Any] | Race[Any], position: str, parent: Frame | Group, index: int) -> None:
        size = len(command.members)
        self.command = command
        self.position = position
        self.parent = parent
        self.index = index
        self.values: list[Any] = [None] * size
        self.members: dict[int, Frame | Group | Open] = {}
        self.unstarted = deque(range(size))
        self.active = 0
        self.remaining = size
        # No member is started any more, and `error` is what the group will settle with.
        self.closing = False
        self.error: BaseException | None = None
        # A race that has its winner: what still settles only lingers.
        self.won = False


class Open:
    """A command that waits to be performed."""

    __slots__ = ("command", "index", "parent", "position")

    def __init__(self, command: Performed, position: str, parent: Frame | Group, index: int) -> None:
        self.command: Performed = command
        self.position = position
        self.parent = parent
        self.index = index

    def __str__(self) -> str:
        return describe(self.command.kind, self.command.name)


Node: TypeAlias = Frame | Group | Open


def frame_of(node: Node) -> Frame:
    """The generator that yielded `node`, directly or as a member of a group."""
    while not isinstance(node, Frame):
        node = node.parent
    return node


def innermost(generator: GeneratorType[Any, Any, Any]) -> GeneratorType[Any, Any, Any]:
    """The generator that `generator` stands in, by way of `yield from`: itself, a helper, or a helper's helper."""
    while isgenerator(inner := generator.gi_yieldfrom) and inner.gi_frame is not None:
        generator = inner
    return generator


def lingers(node: Node) -> bool:
    """Whether `node` belongs to a race that is decided: nothing waits for it any more but the end of the run."""
    above: Node | None = node
    while above is not None:
        if isinstance(above, Group) and above.won:
            return True
        above = above.parent
    return False


def location_of(node: Node) -> str:
    """`file:line` of the yield at which `node` stands, inside helper generators too; where it has ended, of its return
    or raise."""
    body = frame_of(node)
    generator = body.generator
    while isgenerator(inner := generator.gi_yieldfrom) and inner.gi_code is not _YIELD_FROM_COMMAND:
        generator = inner
    code, frame = generator.gi_code, generator.gi_frame or body.frame
    return f"{code.co_filename}:{frame.f_lineno if frame else code.co_firstlineno}"


# `x = yield from command` stands at the line of the workflow, not at the one in `Command.__iter__`.
_YIELD_FROM_COMMAND = vars(Command)["__iter__"].__code__
