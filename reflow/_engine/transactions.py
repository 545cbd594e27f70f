"""Steps whose bodies are part of a transaction of the storage.

Model. The storage keeps the outcome of such a body in a place of its own, in the transaction of whatever the body
wrote; the entry follows it, as with any step. A crash between the two finds the outcome there: the body is not called
again. So the journal is written by its one writer, and the effect happens once.

Trouble with the storage fails no step: it is asked again, until an answer comes or the run is dropped. A result that it
cannot keep does: that attempt has failed.

Who performs a run says, in the run's own context, by which storage, lease and codec; the body's thread has a copy.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from msgspec import Struct

from reflow._core.steps import Step
from reflow.codec import Codec
from reflow.errors import ConfigError, StorageError, StorageValueError
from reflow.storage.contract import StorageAdapter, Transactional
from reflow.storage.records import Lease

__all__ = ["Here", "StorageTrouble", "called_in_transaction", "here"]


class StorageTrouble(Exception):
    """The storage failed, not the body: nothing was changed, or the outcome is found the next time."""


class Here(Struct, frozen=True):
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

    raised: StorageError | None = None

    def body(connection: Any) -> bytes:
        nonlocal raised
        try:
            return place.codec.encode(step.fn(connection, *step.args, **step.kwargs))
        except StorageError as error:
            # Of whatever storage: it is the body's.
            raised = error
            raise

    try:
        outcome = place.storage.transact(place.lease, position, step.name, body)
    except StorageError as error:
        if error is raised or isinstance(error, StorageValueError):
            raise
        raise StorageTrouble(str(error)) from error
    return place.codec.decode(outcome, step.body.result_type)
