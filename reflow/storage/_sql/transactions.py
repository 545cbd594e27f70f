"""Transactions that steps share with the storage.

Each takes a session of its own, for as long as the body of its step runs: on the lane, everybody else would wait for
it. Sessions are kept for the next ones.

A body may be called twice at the same time, by an engine that has lost its lease and does not know, and by the one
that has taken over. Both may write; before the outcome is stored the run is locked, and the second to come finds the
outcome of the first, undoes what it has written, and gives that.

What goes wrong. An exception of the body is the body's, but for one that it has because the connection broke: that is
trouble with the storage, like a commit that fails, or a connection that is not to be had. It is a `StorageError`, and
whoever asks again finds the outcome, or has the body called again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any

from reflow.errors import ConfigError, StorageError
from reflow.storage._sql.session import Session, named_by
from reflow.storage._sql.verbs.outcomes import get_outcome, is_held, put_outcome
from reflow.storage.records import Lease

__all__ = ["Transactions"]

_MOST_IDLE = 4


class Transactions:
    """Opens sessions when they are needed, and keeps a few. Used by many threads."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session
        self._changing = Lock()
        self._idle: list[Session] = []
        self._is_closed = False

    def perform(self, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
        """See `Transactional.transact`."""
        with self._changing:
            session = self._idle.pop() if self._idle else None
        session = session or self._open_session()
        try:
            outcome = _performed(session, lease, position, name, body)
        except BaseException:
            session.rollback()
            with suppress(Exception):
                session.close()
            raise
        self._keep(session)
        return outcome

    def _keep(self, session: Session) -> None:
        with self._changing:
            if not self._is_closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(session)
                return
        session.close()

    def close(self) -> None:
        """Close the sessions that nobody uses; others close when their bodies have ended."""
        with self._changing:
            self._is_closed = True
        while self._idle:
            self._idle.pop().close()


def _performed(session: Session, lease: Lease, position: str, name: str, body: Callable[[Any], bytes]) -> bytes:
    with named_by(session.named, "transact"):
        db = session.begin((), 0)
        known = get_outcome(db, lease.run_id, position, name)
        if known is None and not is_held(db, lease):
            raise _lost(lease)
    if known is None:
        payload = _result(session, name, body)
        with named_by(session.named, "transact"):
            session.lock([lease.run_id])
            known = get_outcome(db, lease.run_id, position, name)
            if known is None:
                if not put_outcome(db, lease, position, name, payload):
                    raise _lost(lease)
                session.commit()
                return payload
    session.rollback()
    return known


def _result(session: Session, name: str, body: Callable[[Any], bytes]) -> bytes:
    try:
        payload = body(session.connection)
    except Exception as error:
        if session.is_lost:
            raise StorageError("transact", f"{session.name}: the connection broke in {name!r}: {error}") from error
        raise
    if not session.is_open:
        raise ConfigError(
            f"the body of transaction {name!r} has ended the transaction, or gone on after an error of the database "
            "in it; leave commit and rollback to Reflow, and let such errors out"
        )
    return payload


def _lost(lease: Lease) -> StorageError:
    return StorageError("transact", f"run {lease.run_id!r} was taken over by another engine")
