"""Steps whose bodies are part of a transaction of the storage.

Model. The storage keeps the outcome of such a body in a place of its own, in the transaction of whatever the body
wrote; the entry follows it, as with any step. A crash between the two finds the outcome there: the body is not called
again. So the journal is written by its one writer, and the effect happens once.

Who performs a run says, in the run's own context, by which storage, lease and codec; the body's thread has a copy.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, NamedTuple

from reflow._core.steps import Step
from reflow.codec import Codec
from reflow.errors import ConfigError
from reflow.storage.contract import StorageAdapter, Transactional
from reflow.storage.records import Lease

__all__ = ["Here", "called_in_transaction", "here"]


class Here(NamedTuple):
    """For whom transactions are."""

    storage: StorageAdapter
    lease: Lease
    codec: Codec


here: ContextVar[Here | None] = ContextVar("reflow_transactions", default=None)
"""Who performs the run of this context."""


def called_in_transaction(step: Step[Any], position: str) -> Any:
    """What the body of the step at this position gave, now or before; in a worker thread."""
    place = here.get()
    if place is None or not isinstance(place.storage, Transactional):
        raise ConfigError(
            f"transaction({step.name}, ...) needs a storage with transactions: PostgresStorage or SQLiteStorage. "
            "In a test on MemoryStorage, give the step a stub"
        )

    def body(connection: Any) -> bytes:
        return place.codec.encode(step.fn(connection, *step.args, **step.kwargs))

    outcome = place.storage.transact(place.lease, position, step.name, body)
    return place.codec.decode(outcome, step.body.result_type)
