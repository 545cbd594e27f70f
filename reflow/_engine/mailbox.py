"""The mailbox of a run as its engine sees it: messages that were read and not taken, and commands that wait for one.

Messages of one kind and name are taken oldest first, by whoever has waited longest. What is taken goes from the storage
in the same write that records it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from reflow._core.journal import Message, MessageKind

__all__ = ["Mailbox"]


class Mailbox:
    """`seen` is the number of the last message that was read."""

    def __init__(self) -> None:
        self.seen = 0
        self._messages: dict[tuple[MessageKind, str], deque[Message]] = {}
        # The positions that wait for each, in order; and what each waits for, so that none is looked for among many.
        self._waiting: dict[tuple[MessageKind, str], OrderedDict[str, None]] = {}
        self._awaited: dict[str, tuple[MessageKind, str]] = {}

    @property
    def awaits(self) -> tuple[tuple[MessageKind, str], ...]:
        """What is waited for, by kind and name."""
        return tuple(self._waiting)

    def put(self, messages: Iterable[Message]) -> None:
        """Add what was read."""
        for message in messages:
            if message.seq > self.seen:
                self.seen = message.seq
                self._messages.setdefault((message.kind, message.name), deque()).append(message)

    def take(self, kind: MessageKind, name: str) -> Message | None:
        """The oldest message of this kind and name, if one is here."""
        messages = self._messages.get((kind, name))
        if messages is None:
            return None
        message = messages.popleft()
        if not messages:
            del self._messages[kind, name]
        return message

    def expect(self, kind: MessageKind, name: str, position: str) -> None:
        """Have the command at `position` wait for one."""
        self._awaited[position] = kind, name
        self._waiting.setdefault((kind, name), OrderedDict())[position] = None

    def forget(self, position: str) -> None:
        """Let the command there wait no more."""
        if key := self._awaited.pop(position, None):
            positions = self._waiting[key]
            del positions[position]
            if not positions:
                del self._waiting[key]

    def deliveries(self) -> Iterator[tuple[str, Message]]:
        """Each message that somebody waits for, taken for the position that has waited longest."""
        for key in [key for key in self._waiting if key in self._messages]:
            # A delivery may change who waits.
            while key in self._messages and key in self._waiting:
                position = next(iter(self._waiting[key]))
                self.forget(position)
                message = self.take(*key)
                assert message is not None, "there is one"
                yield position, message
