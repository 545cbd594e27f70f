"""The verbs of a storage, as the contract names them."""

from __future__ import annotations

from inspect import iscoroutinefunction

from reflow import StorageAdapter

# Opening and closing are no events in the life of a run, nor is an engine's look for due schedules.
VERBS = frozenset(name for name, verb in vars(StorageAdapter).items() if iscoroutinefunction(verb)) - {
    "initialize",
    "close",
    "due_schedules",
}
