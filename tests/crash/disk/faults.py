"""What can fail, and what came of it: the words of the test process and of the one whose disk fails."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

__all__ = ["OPERATIONS", "Fault", "Seen", "Trouble"]

Fault: TypeAlias = Literal["limit", "full", "write", "sync", "truncate", "read", "size", "lock", "open", "delete"]

OPERATIONS: dict[Fault, str] = {
    "full": "write",
    "write": "write",
    "sync": "sync",
    "truncate": "truncate",
    "read": "read",
    "size": "size",
    "lock": "lock",
    "open": "open",
    "delete": "delete",
}
"""The operation that fails; for "limit", which is set to the system, see `limit`."""


class Trouble(NamedTuple):
    """The operation that fails is number `at` (from 1) of its kind; if `lasts`, so do all later ones, until the disk is
    well again."""

    fault: Fault
    at: int
    lasts: bool


class Seen(Struct):
    """Rounds in which an operation failed, operations that did, and verbs that answered StorageError."""

    rounds: int = 0
    operations: int = 0
    refusals: int = 0
