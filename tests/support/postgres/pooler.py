"""PgBouncer in front of a server, in a temporary directory; it ends with this process, however that ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, Self, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.postgres.held import Held
from tests.support.postgres.programs import find_pooler

Mode: TypeAlias = Literal["transaction", "session", "statement"]

_PORT = 6432
_LIMIT_S = 20
# Whoever is let in comes to the server as the user that is named here.
_ANYBODY = "any"


class Pooler:
    """Runs when made; ends with `close`, with its `with` block, or with this process.

    `dsn` leads through it to the server that the one given names. `mode` says how long it lends a connection;
    `settings` are more of pgbouncer.ini. There is a socket in its directory, which is made `within` a folder, and no
    port.
    """

    def __init__(
        self,
        dsn: str,
        mode: Mode = "transaction",
        *,
        settings: Mapping[str, str] | None = None,
        within: str = "/tmp",
    ) -> None:
        program = find_pooler()
        # Whatever signals mean to this version, it has nothing to keep.
        self._held = Held("kill -KILL $!", within)
        folder = self._held.directory
        known = conninfo_to_dict(dsn)
        server = " ".join(f"{key}={known[key]}" for key in ("host", "port", "user", "password") if known.get(key))
        written = {
            "listen_addr": "",
            "unix_socket_dir": folder,
            "listen_port": _PORT,
            "pidfile": folder / "pid",
            "auth_type": _ANYBODY,
            "pool_mode": mode,
            "max_client_conn": 500,
            **(settings or {}),
        }
        lines = [f"{name} = {value}\n" for name, value in written.items()]
        try:
            (folder / "pooler.ini").write_text(f"[databases]\n* = {server}\n[pgbouncer]\n{''.join(lines)}")
            (folder / "pooler.ini").chmod(0o644)
            self.dsn = self.through(dsn)
            self._held.perform(program, "pooler.ini", aside=True)
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process, which is not a child of this one."""
        return int((self._held.directory / "pid").read_text())

    @property
    def log(self) -> str:
        """What it had to say."""
        return self._held.log

    def through(self, dsn: str) -> str:
        """The same place on the server, through the pooler."""
        return make_conninfo(dsn, host=str(self._held.directory), port=_PORT)

    def close(self) -> None:
        """End it, and remove its directory; again is nothing."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _wait(self) -> None:
        until = time.monotonic() + _LIMIT_S
        while True:
            try:
                psycopg.connect(self.dsn).close()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    raise RuntimeError(f"pgbouncer does not answer; its log ends with:\n{self.log[-2000:]}") from error
