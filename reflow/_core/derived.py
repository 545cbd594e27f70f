"""Identifiers and randomness that follow from the run id and a position.

Nothing is recorded: the same place in the same run always gives the same value, and no two places share a stream, so
drawing more numbers in one place disturbs no other.
"""

from __future__ import annotations

from hashlib import sha256
from random import Random
from uuid import UUID

__all__ = ["random_at", "uuid_at"]


def uuid_at(run_id: str, position: str) -> UUID:
    """The UUID of this place in this run (version 4 in form, RFC 9562)."""
    return UUID(bytes=_digest("uuid", run_id, position)[:16], version=4)


def random_at(run_id: str, position: str) -> Random:
    """A generator of random numbers seeded by this place in this run."""
    return Random(_digest("random", run_id, position))


def _digest(purpose: str, run_id: str, position: str) -> bytes:
    return sha256(f"{purpose}\0{run_id}\0{position}".encode()).digest()
