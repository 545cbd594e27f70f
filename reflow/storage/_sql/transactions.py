"""Transactions that steps share with the storage.

Each takes a session of its own, for as long as the body of its step runs: on the lane, everybody else would wait for
it. Sessions are kept for the next ones.

A body may be called twice at the same time, by an engine that has lost its lease and does not know, and by the one
that has taken over. Both may write; before the outcome is stored the run is locked, and the second to come finds the
outcome of the first, undoes what it has written, and gives that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from reflow.errors import ConfigError, StorageError
from reflow.storage._sql.session import Session, named_by
from reflow.storage._sql.verbs.outcomes import get_outcome, put_outcome
from reflow.storage.records import Lease

__all__ = ["Transactions"]

_MOST_IDLE = 4


class Transactions:
    """Opens sessions when they are needed, and keeps a few."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        self._idle: list[Session] = []
        self._is_closed = False

    def perform(self, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
        """See `Transactional.transact`."""
        session = self._idle.pop() if self._idle else self._open_session()
        try:
            outcome = _performed(session, lease, position, name, body)
        except BaseException:
            session.rollback()
            with suppress(Exception):
                session.close()
            raise
        if self._is_closed or len(self._idle) >= _MOST_IDLE:
            session.close()
        else:
            self._idle.append(session)
        return outcome

    def close(self) -> None:
        """Close the sessions that nobody uses; others close when their bodies have ended."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()


def _performed(session: Session, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
    with named_by(session.named, "transact"):
        db = session.begin((), 0)
        known = get_outcome(db, lease.run_id, position, name)
    if known is None:
        payload = body(session.connection)
        if not session.is_open:
            raise ConfigError(f"the body of transaction {name!r} has ended the transaction; leave that to Reflow")
        with named_by(session.named, "transact"):
            session.lock([lease.run_id])
            known = get_outcome(db, lease.run_id, position, name)
            if known is None:
                if not put_outcome(db, lease, position, name, payload):
                    raise StorageError("transact", f"run {lease.run_id!r} was taken over by another engine")
                session.commit()
                return payload
    session.rollback()
    return known
