"""The journal of a run: entries in the order in which outcomes arrived, timers of what is still open, and the mailbox.

Positions say where in the program a command was yielded: `0`, `1`, ... in the body; `4.2` for member 2 of the gather
at 4; `4.2.0`, `4.2.1` for the commands of the branch there. An entry is final: it is never changed, and only `resume`
takes it out again. A timer belongs to an open command and is replaced as attempts are used; it goes when the command
gets its entry, or when the command is cancelled. A message came from outside; it goes when an entry records that it was
taken. All are what storage keeps: bytes, text and integers only.

Two kinds of entries belong to no command. A cancel, at the empty position, says that the run was cancelled here. A
mark, at `~change`, says that the run takes the new way through that change (`patched`).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from reflow._core.status import RunStatus

__all__ = [
    "CANCEL",
    "ENTRIES_AT_ONCE",
    "NEVER",
    "PATCHED",
    "Entry",
    "Journal",
    "Message",
    "MessageKind",
    "Timer",
    "cancel_entry",
    "describe",
    "patch_entry",
]

CANCEL = "cancel"
"""The kind of the entry that says that the run was cancelled."""

PATCHED = "patched"
"""The kind of the entries that say which changes of the code a run takes part in."""

NEVER = 2**63 - 1
"""The instant at which what has no limit is due."""

ENTRIES_AT_ONCE = 2_000
"""So many entries are gone over before others are given a turn."""


class Entry(Struct, frozen=True, gc=False):
    """The outcome of one command.

    `payload` is the encoded value or, where `failed`, the encoded `Failure`. Instants are microseconds since 1970 UTC.
    `digest` is a short one of the arguments of a step or a child, where they are data, so that a change shows.
    """

    position: str
    kind: str
    name: str
    failed: bool
    payload: bytes
    attempts: int
    started_at: int
    recorded_at: int
    digest: bytes | None = None

    def __str__(self) -> str:
        return describe(self.kind, self.name)


class Timer(Struct, frozen=True, gc=False):
    """What an open command must remember over a restart.

    For a sleep, when it wakes. For a step between two attempts, when the next one is due, how many are used, and the
    encoded `Failure` of the last one. For a wait, its deadline, and for a child, that it was started: due `NEVER` where
    there is no limit.
    """

    position: str
    kind: str
    name: str
    due_at: int
    attempts: int
    started_at: int
    failure: bytes | None = None

    def __str__(self) -> str:
        return describe(self.kind, self.name)


class MessageKind(StrEnum):
    """Where a message comes from."""

    EVENT = "event"
    CHILD = "child"


class Message(Struct, frozen=True, gc=False):
    """Something in the mailbox of a run, to be taken once; those of one kind and name oldest first.

    An event has its own name, and what was sent as payload. A child has as name the position at which the run started
    it, and says how it ended: `status`, and its output or error as payload. Where its status is None there is no child:
    its id belongs to another run, and nothing was started.
    """

    seq: int
    kind: MessageKind
    name: str
    payload: bytes
    status: RunStatus | None = None


class Journal(Struct, frozen=True):
    """All that replay reads of a run, and what it has been sent and not taken yet."""

    entries: list[Entry]
    timers: list[Timer]
    messages: list[Message] = []


def cancel_entry(recorded_at: int) -> Entry:
    """The entry that cancels a run."""
    return Entry("", CANCEL, CANCEL, False, b"", 0, recorded_at, recorded_at)


def patch_entry(change: str, recorded_at: int) -> Entry:
    """The entry that says that the run takes part in `change`."""
    return Entry(f"~{change}", PATCHED, change, False, b"", 0, recorded_at, recorded_at)


def describe(kind: str, name: str) -> str:
    """A command in words: `step 'charge'`, `sleep`."""
    return kind if kind == name else f"{kind} {name!r}"
