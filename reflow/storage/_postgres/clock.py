"""The clock of the server, which all engines share. No other statement asks for it: the time is an argument."""

from __future__ import annotations

from reflow.storage._sql.session import Database

__all__ = ["server_time"]

_TIME = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"


def server_time(db: Database) -> int:
    """Microseconds since 1970 UTC."""
    time: int = db.execute(_TIME).fetchone()[0]
    return time
