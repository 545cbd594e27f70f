"""The tree that a program is while it runs: frames and groups, with open commands as its leaves.

These are records without behaviour of their own; replay.py moves them along and says how they settle.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from types import GeneratorType
from typing import Any, TypeAlias

from msgspec import Struct

from reflow._core.groups import Gather, Race
from reflow._core.journal import describe
from reflow._core.performed import Performed

__all__ = ["Frame", "Group", "Node", "Open", "frame_of", "lingers"]


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
        "run",
        "send",
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
        # Kept, and not made anew for each command.
        self.run = context.run
        self.send = generator.send
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


class Open(Struct, eq=False):
    """A command that waits to be performed. `digest` is of its arguments, once somebody has asked for it."""

    command: Performed
    position: str
    parent: Frame | Group
    index: int
    digest: bytes | None = None

    def __str__(self) -> str:
        return describe(self.command.kind, self.command.name)


Node: TypeAlias = Frame | Group | Open


def frame_of(node: Node) -> Frame:
    """The generator that yielded `node`, directly or as a member of a group."""
    while not isinstance(node, Frame):
        node = node.parent
    return node


def lingers(node: Node) -> bool:
    """Whether `node` belongs to a race that is decided: nothing waits for it any more but the end of the run."""
    above: Node | None = node
    while above is not None:
        if isinstance(above, Group) and above.won:
            return True
        above = above.parent
    return False
