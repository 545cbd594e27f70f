"""Whether there is a pooler between us and the server, and what it takes away.

A pooler such as PgBouncer lends its own connections to the server: one for as long as ours lasts (session mode), for a
transaction, or for a statement. What a connection has beside its transactions - prepared statements, `listen` - stays
behind with the one that was lent. Reflow needs transactions, and can do without the rest.
"""

from __future__ import annotations

from typing import Any

from psycopg import Connection

__all__ = ["is_direct", "keeps_process", "process_of"]

_ROUNDS = 3
_PROCESS = b"select pg_backend_pid()"


def process_of(connection: Connection[tuple[Any, ...]]) -> int:
    """The process of the server that a connection has now."""
    [process] = connection.execute(_PROCESS).fetchone() or (0,)
    return int(process)


def is_direct(connection: Connection[tuple[Any, ...]]) -> bool:
    """Whether the server itself is at the other end: the process that a pooler says it is, it makes up."""
    return process_of(connection) == connection.info.backend_pid


def keeps_process(one: Connection[tuple[Any, ...]], other: Connection[tuple[Any, ...]]) -> bool:
    """Whether a connection has the same process of the server all the time.

    A pooler that lends one for each transaction gives `other` the one that `one` had just now, or `one` another one,
    because that is taken. Where many take turns that may fail to happen; not three times in a row.
    """
    if is_direct(one):
        return True
    process = process_of(one)
    for _ in range(_ROUNDS):
        with other.transaction():
            if process_of(other) == process or process_of(one) != process:
                return False
    return True
