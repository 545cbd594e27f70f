"""Real workers on a real Postgres server: the command `reflow worker`, and a connection that sees what they did."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from reflow.storage.postgres import PostgresStorage
from tests.crash.fleet import Fleet
from tests.support.postgres import Pooler, Server

SCHEMA = "fleet"
# The connections of workers and clients are called so; those that look on are not, and are spared.
MEMBER = "member"
_JOBS = "tests.crash.postgres_jobs"


class ServerFleet(Fleet):
    """Workers on a server, perhaps by way of a pooler, on asyncio and on trio in turn; `serves` says which workflows
    the next ones know."""

    def __init__(self, folder: Path, server: Server | Pooler, serves: str = "WORKFLOWS") -> None:
        super().__init__(folder, "asyncio")
        self.serves = serves.split()
        self.dsn = _url(server.dsn)
        self._backends = cycle(["asyncio", "trio"])

    def storage(self) -> PostgresStorage:
        """What their runs are in."""
        return PostgresStorage(self.dsn, schema=SCHEMA)

    def _command(self, lease: str) -> list[str]:
        workflows = [f"{_JOBS}:{name}" for name in self.serves]
        where = ["--storage", self.dsn, "--schema", SCHEMA, "--backend", next(self._backends)]
        # As a member of several it stops when its standard input ends.
        return ["reflow", "worker", *workflows, *where, "--lease", lease, "--concurrency", "20", "--member"]


class Beside:
    """A connection that looks at the tables of a fleet; a new one where the server was stopped."""

    def __init__(self, server: Server) -> None:
        self._dsn = server.dsn
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def __call__(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a statement gives; `psycopg.OperationalError` while the server is down."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._dsn, autocommit=True, application_name="beside", options=f"-c search_path={SCHEMA},public"
                )
            cursor = self._connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:
            self.close()
            raise

    def open_shop(self) -> None:
        """Make the table of a user's that transactions write to."""
        self("create table public.bought (run_id text not null, cents bigint not null)")

    def clear(self) -> None:
        """Drop it, and the tables of the fleet."""
        self(f"drop schema if exists {SCHEMA} cascade")
        self("drop table public.bought")

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _url(dsn: str) -> str:
    known = conninfo_to_dict(dsn)
    place = {"host": known["host"], "port": known["port"], "application_name": MEMBER}
    return f"postgresql://{known['user']}@/{known['dbname']}?{urlencode(place)}"
