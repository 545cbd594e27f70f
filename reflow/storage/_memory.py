"""A run as `MemoryStorage` keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from reflow._core.journal import Entry, Message, MessageKind, Timer
from reflow._core.status import RunStatus
from reflow.storage.records import RunRow

__all__ = ["StoredRun"]


class StoredRun(Struct, eq=False):
    """A run with all that belongs to it. Its number says when it was created."""

    number: int
    row: RunRow
    entries: list[Entry] = []
    cut: list[Entry] = []
    timers: dict[str, Timer] = {}
    messages: dict[int, Message] = {}
    message_ids: set[str] = set()
    awaits: tuple[tuple[MessageKind, str], ...] = ()

    def change(self, **changes: Any) -> RunRow:
        """Change fields of the row."""
        self.row = replace(self.row, **changes)
        return self.row

    def wake(self, now: int) -> None:
        """Make it due, unless somebody holds it or it was due before."""
        if self.row.lease_id is None and (self.row.due_at is None or self.row.due_at > now):
            self.change(due_at=now)

    def put_message(self, now: int, kind: MessageKind, name: str, payload: bytes, status: RunStatus | None) -> None:
        """Put a message into its mailbox, and wake it where it awaits that."""
        seq = self.row.last_message + 1
        self.change(last_message=seq)
        self.messages[seq] = Message(seq, kind, name, payload, status)
        if (kind, name) in self.awaits:
            self.wake(now)

    def has_message(self, kind: MessageKind, name: str) -> bool:
        """Whether a message of this kind and name is in its mailbox."""
        return any((message.kind, message.name) == (kind, name) for message in self.messages.values())

    def has_any_message(self, names: Sequence[tuple[MessageKind, str]]) -> bool:
        """Whether a message of one of these kinds and names is in its mailbox."""
        there = {(message.kind, message.name) for message in self.messages.values()}
        return not there.isdisjoint(names)

    def forget_children(self) -> None:
        """Drop what its children have told it."""
        self.messages = {seq: each for seq, each in self.messages.items() if each.kind is not MessageKind.CHILD}
