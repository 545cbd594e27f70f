"""What the bodies of transactions gave."""

from __future__ import annotations

from reflow.storage._sql.session import Database
from reflow.storage.records import Lease

__all__ = ["get_outcome", "put_outcome"]

_GET = """select payload from reflow_outcome
    where run = (select id from reflow_run where run_id = ?) and position = ? and name = ?"""
_PUT = """insert into reflow_outcome (run, position, name, payload)
    select id, ?, ?, ? from reflow_run where run_id = ? and lease_id = ?
    on conflict (run, position) do update set name = excluded.name, payload = excluded.payload"""


def get_outcome(db: Database, run_id: str, position: str, name: str) -> bytes | None:
    """The outcome of the step of this name at this position, where there is one."""
    row = db.execute(_GET, (run_id, position, name)).fetchone()
    return bytes(row[0]) if row else None


def put_outcome(db: Database, lease: Lease, position: str, name: str, payload: bytes) -> bool:
    """Store an outcome; False where the lease is lost. That of another step, before a resume, is replaced."""
    return db.execute(_PUT, (position, name, payload, lease.run_id, lease.lease_id)).rowcount > 0
