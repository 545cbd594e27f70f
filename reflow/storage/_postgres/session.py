"""A connection to a server, as a lane uses it: opened when it is needed, opened again when it broke.

Locks. SQLite locks the file; here a transaction locks the rows of all runs that its verbs name, and of their parents,
before anything else, in order of their ids. Whoever locks in the same order never waits in a circle. After that, each
statement sees what was committed before it (READ COMMITTED), and nobody else changes these runs. What only adds entries
needs no lock: see `writes`.

What goes wrong. A transaction that failed before its commit was sent has changed nothing, so it is tried once more: on
a new connection where the old one is gone, with locks where an entry was there already, and in any case after a
deadlock or a failed serialization. So is that of a process that was frozen amid a transaction: the server has ended it,
for those who waited for its locks. When the connection breaks during a commit nobody knows what became of it: that is a
`StorageError`, and whoever asked asks again, by verbs that may be called twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation
from psycopg.pq import PipelineStatus, TransactionStatus

from reflow.storage._postgres.connection import Durability, Server, ServerDatabase
from reflow.storage._sql.session import Job, Verb

__all__ = ["LookAgain", "ServerSession", "begin_reading", "begin_writing"]


class LookAgain(Exception):
    """Something is not as it was expected without a look: the same jobs are to be done again, under locks."""


# Laterally, each with a limit, as in `writes`: where rows are wanted in order, a planner that may not sort reads the
# whole table in that order. They are locked in the order of the array.
_LOCK = """with named as materialized (
    select run.id, run.parent from unnest(?::text[]) as given (run_id)
    cross join lateral (select id, parent from reflow_run where run_id = given.run_id limit 1) as run
), wanted as materialized (
    select id from named
    union select parent.id from named
    cross join lateral (select id from reflow_run where run_id = named.parent limit 1) as parent
)
select 1 from unnest(array(select id from wanted order by id)) as wanted (id)
cross join lateral (select 1 from reflow_run where id = wanted.id limit 1 for no key update) as locked"""
_MOST_ATTEMPTS = 10
# So long may our process be silent within a transaction. Only one that is frozen as a whole is, and others, who wait
# for its locks, cannot know whether it will ever wake.
_FROZEN = "10s"

# Every statement has its index, in the order that it needs. A planner does not know that: of a table that is new, or
# has grown since it was looked at last, it knows little, and of a limit that is a parameter nothing.
_BY_INDEX = "; ".join(f"set local {way} = off" for way in ("enable_seqscan", "enable_bitmapscan", "enable_sort", "jit"))

begin_reading = f"begin isolation level repeatable read read only; {_BY_INDEX}"
"""What is read in one transaction belongs together."""


def begin_writing(durability: Durability) -> str:
    """What opens a transaction that writes. `full`, the server's own setting, is left alone."""
    begin = f"begin isolation level read committed; {_BY_INDEX}"
    return begin if durability == "full" else f"{begin}; set local synchronous_commit = off"


class ServerSession:
    """Transactions of one connection.

    `on_news` is called after the commit of what others may have to act upon. `lone` is a verb that is one statement as
    long as no runs are named: where there are only such jobs, that statement is the transaction. On a shared connection
    others find psycopg's own ways with values.
    """

    def __init__(
        self,
        server: Server,
        begin: str,
        on_news: Callable[[], object] | None = None,
        lone: Verb[Any, Any] | None = None,
        is_shared: bool = False,
    ) -> None:
        self._server = server
        self._is_shared = is_shared
        self._lone = lone
        self._has_transaction = False
        self._unless_frozen = f"set local idle_in_transaction_session_timeout = '{_FROZEN}'".encode()
        # What a body does between its statements may take its time.
        self._begin = begin.encode() if is_shared else b"%b; %b" % (begin.encode(), self._unless_frozen)
        self._on_news = on_news
        self._connection = server.connect()
        self._database = ServerDatabase(self._connection, server.schema, is_shared)
        self._is_news = False
        self._is_committing = False
        self.name = server.name

    @property
    def connection(self) -> Connection[tuple[Any, ...]]:
        """The connection that is used now."""
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open, in which nothing has failed."""
        return self._connection.info.transaction_status == TransactionStatus.INTRANS

    @property
    def is_lost(self) -> bool:
        """Whether the connection has broken; closed by whoever used it, it has not."""
        return self._connection.broken or (not self._connection.closed and self._is_amid_statements)

    @property
    def is_in_doubt(self) -> bool:
        """Whether the connection broke during the commit."""
        return self._is_committing and self._connection.closed

    def lock(self, runs: Sequence[str]) -> None:
        """Lock the rows of these runs and of their parents, in order of their ids."""
        if self._is_shared:
            self._connection.execute(self._unless_frozen)
        self._database.execute(_LOCK, ([*set(runs)],))

    def begin(self, jobs: Sequence[Job], attempt: int) -> ServerDatabase:
        """Open a transaction, and lock the runs that are named."""
        self._is_committing = False
        self._is_news = any(job.is_news for job in jobs)
        runs = [run for job in jobs for run in job.runs]
        if attempt:
            runs += [run for job in jobs for run in job.runs_again]
        self._has_transaction = attempt > 0 or bool(runs) or not jobs or any(job.verb is not self._lone for job in jobs)
        tries = 0
        while True:
            try:
                self._open(runs)
            except psycopg.Error as error:
                self.rollback()
                if not self.is_worth_another(tries, error):
                    raise
                tries += 1
            else:
                self._database.attempt = attempt
                return self._database

    def commit(self) -> None:
        """Commit the transaction, then tell of it."""
        if self._has_transaction:
            self._is_committing = True
            self._connection.execute(b"commit")
        if self._is_news and self._on_news:
            self._on_news()

    def rollback(self) -> None:
        """Undo the transaction; where the connection is gone, the server does. What is not idle then never will be."""
        if self._has_transaction:
            with suppress(psycopg.Error):
                self._connection.execute(b"rollback")
        if self._connection.info.transaction_status != TransactionStatus.IDLE:
            self._connection.close()

    def is_worth_another(self, attempt: int, error: Exception) -> bool:
        """Whether nothing was changed, and the next attempt may fare better."""
        if isinstance(error, (DeadlockDetected, SerializationFailure)):
            return attempt < _MOST_ATTEMPTS
        is_lost = isinstance(error, psycopg.Error) and self._connection.closed and not self._is_committing
        return attempt == 0 and (is_lost or isinstance(error, (UniqueViolation, LookAgain)))

    def named(self, verb: str, error: Exception) -> Exception:
        """What `error` is called outside."""
        return self._server.named(verb, error)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def _is_amid_statements(self) -> bool:
        # A connection that is lost while many are under way may not know it: then the driver can neither end them nor
        # take another one.
        return self._connection.info.pipeline_status != PipelineStatus.OFF

    def _open(self, runs: Sequence[str]) -> None:
        if self._connection.closed:
            self._connection = self._server.connect()
            self._database = ServerDatabase(self._connection, self._server.schema, self._is_shared)
        if self._has_transaction:
            self._connection.execute(self._begin)
        if runs:
            self.lock(runs)
