"""`PostgresStorage`: the same runs on a server, for engines on many machines. Needs psycopg: `reflow[postgres]`.

It has the verbs of SQLite, and its lanes: one connection that writes, where all that a process has to say shares
transactions, and one that reads. Two more hear of what other processes did and tell them (`listen=False` does without:
some poolers have no `listen`; new runs are then found by looking, once a second). A pooler may be between, as long as
it has transactions; what else it lacks is not used.

With `durability="full"`, the default, a commit is as durable as the server makes it (`synchronous_commit` stays as the
server has it). With `"process"` a crash of our process loses nothing, but one of the server may take back the last
acknowledged steps.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack, closing
from typing import get_args

from reflow.errors import ConfigError
from reflow.storage._sql.lane import Lane
from reflow.storage._sql.session import named_by
from reflow.storage._sql.storage import Lanes, SQLStorage, Writes
from reflow.storage._sql.transactions import Transactions

try:
    import psycopg
except ImportError as error:
    raise ImportError("PostgresStorage needs psycopg 3: pip install 'reflow[postgres]'") from error

from reflow.storage._postgres.claims import Claims, heartbeat
from reflow.storage._postgres.clock import server_time
from reflow.storage._postgres.connection import Durability, Server
from reflow.storage._postgres.notices import Notices
from reflow.storage._postgres.pooler import keeps_process
from reflow.storage._postgres.schema import migrate
from reflow.storage._postgres.session import ServerSession, begin_reading, begin_writing
from reflow.storage._postgres.writes import create_runs_of_each, save_progress

__all__ = ["PostgresStorage"]


class PostgresStorage(SQLStorage):
    """Runs kept in a schema of a Postgres database, created where it does not exist. Postgres 15 and later.

    `dsn` says how to get there, as a URL (`"postgresql://user@host/database"`) or as libpq's `key=value` pairs.
    `schema` holds the tables. `durability` is `"full"` or `"process"` (see the module). `listen=False` and
    `prepare=False` are for poolers that have neither `listen` nor prepared statements; through a pooler that lends a
    connection for each transaction the former is done without in any case, with a warning, and the latter through any.
    Raises `ConfigError` for other values; what cannot be reached shows on `initialize`, which entering an `Engine` does
    for you.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "reflow",
        durability: Durability = "full",
        listen: bool = True,
        prepare: bool = True,
    ) -> None:
        if durability not in get_args(Durability):
            raise ConfigError(f"durability is {durability!r}; write 'full' or 'process'")
        if not schema or "\0" in schema or len(f"reflow_{schema}".encode()) > 63:
            raise ConfigError(f"schema is {schema!r}; Postgres takes names of up to 56 bytes here")
        try:
            self.server = Server(dsn, schema, prepare)
        except (psycopg.Error, TypeError, AttributeError):
            # Not quoted: it may have a password in it.
            raise ConfigError(
                "dsn is no connection string; write a text like 'postgresql://user@host/database' or "
                "'host=... dbname=...'"
            ) from None
        self.schema = schema
        self.durability: Durability = durability
        self._may_listen = listen
        self._notices: Notices | None = None
        super().__init__(self.server.name, Writes(create_runs_of_each, Claims().claim_runs, heartbeat, save_progress))

    def __repr__(self) -> str:
        return f"PostgresStorage({self.server.name!r}, durability={self.durability!r})"

    async def time(self) -> int:
        """The time of the server: engines on all machines go by it, however their own clocks are set."""
        return await self._read("time", server_time)

    def _open_lanes(self) -> Lanes:
        with named_by(self._named, "open"), ExitStack() as opened:
            lone = save_progress if self.durability == "full" else None
            session = ServerSession(self.server, begin_writing(self.durability), self._tell, lone)
            writing = opened.enter_context(closing(session))
            self.server.check(writing.connection)
            migrate(self.server, writing.connection)
            reading = opened.enter_context(closing(ServerSession(self.server, begin_reading)))
            if self._may_listen and self._can_listen(writing, reading):
                self._notices = Notices(self.server, self._listeners.wake)
            opened.pop_all()
        return Lanes(Lane(writing, "writing"), Lane(reading, "reading"), Transactions(self._new_session))

    def _can_listen(self, writing: ServerSession, reading: ServerSession) -> bool:
        if keeps_process(writing.connection, reading.connection):
            return True
        warnings.warn(
            f"{self.server.name}: through this pooler nobody hears what other processes do; it is found by looking, "
            "once a second. Write PostgresStorage(..., listen=False, prepare=False), or connect to the server itself, "
            "or have the pooler pool by session",
            RuntimeWarning,
            stacklevel=2,
        )
        return False

    def _new_session(self) -> ServerSession:
        with named_by(self._named, "transact"):
            return ServerSession(self.server, begin_writing(self.durability), is_shared=True)

    def _close_lanes(self, lanes: Lanes) -> None:
        super()._close_lanes(lanes)
        if self._notices:
            self._notices.close()
            self._notices = None

    def _tell(self) -> None:
        if self._notices:
            self._notices.tell()

    def _named(self, verb: str, error: Exception) -> Exception:
        return self.server.named(verb, error)
