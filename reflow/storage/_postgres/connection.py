"""Connecting to a server, and saying the driver's errors in Reflow's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg import Connection, Cursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ProtocolViolation
from psycopg.rows import tuple_row
from psycopg.sql import Identifier

from reflow.errors import StorageAccessError, StorageError, StorageValueError
from reflow.storage._postgres.arrays import OVER_ARRAYS, columns
from reflow.storage._postgres.pooler import is_direct
from reflow.storage._postgres.values import register

__all__ = ["Durability", "Server", "ServerDatabase"]

Durability: TypeAlias = Literal["full", "process"]

_OLDEST = 150_000
# Unless the connection string says otherwise. Of a machine that has vanished we hear within half a minute, as long as a
# lease is by default; the system would take a quarter of an hour, or two hours where nothing is sent.
_PATIENCE = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_PREPARED_AFTER = 5
_TABLE = re.compile(r"\breflow_(run|tag|entry|cut_entry|timer|message|message_id|outcome|schedule|schema)\b")
# Classes of SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_NO_ACCESS = ("28", "42501", "3D000", "25006")
_NO_VALUE = ("22", "54")
# An internal error, says the server, of whatever has no code of its own.
# A message of a gigabyte is refused: MaxAllocSize in the server's memutils.h, less what is around the values.
_LARGEST_MESSAGE = 2**30 - 10_000
_TOO_MUCH = "invalid memory alloc request size"


class Server:
    """Where the tables are, and how to get there.

    `schema` holds them. Where `prepares` is False no statement is prepared; nor is one through a pooler, which may hand
    each transaction to another connection, where there is no such statement, or somebody else's of that name.
    """

    def __init__(self, dsn: str, schema: str, prepares: bool) -> None:
        self._dsn = make_conninfo("", **(_PATIENCE | conninfo_to_dict(dsn)))
        self._prepares = prepares
        self.schema = schema
        self.name = _described(dsn, schema)

    def connect(self) -> Connection[tuple[Any, ...]]:
        """A new connection, on which each statement is its own transaction unless one is opened."""
        connection = psycopg.connect(
            self._dsn,
            autocommit=True,
            client_encoding="utf8",
            fallback_application_name="reflow",
            prepare_threshold=None,
        )
        try:
            if self._prepares and is_direct(connection):
                connection.prepare_threshold = _PREPARED_AFTER
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self, connection: Connection[tuple[Any, ...]]) -> None:
        """Raise `StorageAccessError` for a server that cannot be used."""
        info = connection.info
        if info.server_version < _OLDEST:
            raise StorageAccessError("open", f"{self.name} runs Postgres {info.server_version // 10_000}; 15 is needed")
        encoding = info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StorageAccessError(
                "open", f"the database of {self.name} has the encoding {encoding}; create one with UTF8"
            )
        try:
            with connection.transaction():
                pass
        except ProtocolViolation as error:
            raise StorageAccessError(
                "open", f"{self.name} has no transactions ({error}); have the pooler pool by transaction or by session"
            ) from error

    def named(self, verb: str, error: Exception) -> Exception:
        """What `error` is called outside: itself, unless it comes from the driver."""
        named: StorageError
        text = f"{self.name}: {str(error).strip()}"
        # What fails before there is a connection has no code.
        is_unreachable = verb == "open" and isinstance(error, psycopg.OperationalError)
        if is_unreachable or (isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(_NO_ACCESS)):
            named = StorageAccessError(verb, text)
        elif _is_of_value(error):
            named = StorageValueError(verb, text)
        elif isinstance(error, psycopg.Error):
            named = StorageError(verb, text)
        else:
            return error
        named.__cause__ = error
        return named


class ServerDatabase:
    """Performs statements on a connection: question marks and table names become what Postgres calls them.

    `attempt` is how often the verbs of the transaction were tried before. Where the connection is shared, values travel
    in our way in our statements only.
    """

    def __init__(self, connection: Connection[tuple[Any, ...]], schema: str, is_shared: bool = False) -> None:
        self._connection = connection
        self._is_shared = is_shared
        if not is_shared:
            register(connection.adapters)
        self._schema = Identifier(schema).as_string()
        self._texts: dict[str, bytes] = {}
        self.attempt = 0

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Cursor[tuple[Any, ...]]:
        """Perform a statement."""
        if self._is_shared:
            # What others have set on the connection is theirs.
            self._connection.row_factory = tuple_row
        cursor = self._connection.cursor(binary=True)
        if self._is_shared:
            register(cursor.adapters)
        try:
            return cursor.execute(self._text(statement), values)
        except psycopg.OperationalError as error:
            if self._connection.closed and (size := _size(values)) > _LARGEST_MESSAGE:
                # The server has hung up without a word, and would do so again.
                raise ValueError(f"{size} bytes are too many for one statement") from error
            raise

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Perform a statement for each of `rows`; those of our verbs, by one over arrays."""
        if many := OVER_ARRAYS.get(statement):
            if rows := list(rows):
                self.execute(many.statement, columns(rows, many.names))
        else:
            self._connection.cursor(binary=True).executemany(self._text(statement), rows)

    def _text(self, statement: str) -> bytes:
        text = self._texts.get(statement)
        if text is None:
            schema = self._schema.replace("%", "%%")
            there = _TABLE.sub(lambda found: f"{schema}.{found[1]}", statement.replace("?", "%b"))
            text = self._texts[statement] = there.encode()
        return text


def _is_of_value(error: Exception) -> bool:
    """Whether it is what driver or server say of values that no column takes, such as an integer of 65 bits, or a
    gigabyte."""
    if isinstance(error, psycopg.Error):
        return (error.sqlstate or "").startswith(_NO_VALUE) or _TOO_MUCH in str(error)
    return isinstance(error, (OverflowError, ValueError, TypeError))


def _size(value: Any) -> int:
    """How many bytes and characters there are, in arrays too."""
    if isinstance(value, (bytes, str)):
        return len(value)
    return sum(map(_size, value)) if hasattr(value, "__iter__") else 0


def _described(dsn: str, schema: str) -> str:
    """A server without its password, for messages."""
    known = conninfo_to_dict(dsn)
    place = ":".join(str(known[key]) for key in ("host", "port") if known.get(key))
    return f"postgresql://{place}/{known.get('dbname', '')} (schema {schema})"
