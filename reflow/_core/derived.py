"""Identifiers and randomness that follow from the run and a position.

Nothing is recorded: the same place in the same run always gives the same value, and no two places share a stream, so
drawing more numbers in one place disturbs no other.

`stem` stands for the run. It is the run id, until `continue_as_new` starts the positions of the run afresh.
"""

from __future__ import annotations

from hashlib import sha256
from random import Random
from uuid import UUID

__all__ = ["child_id", "random_at", "stem_of", "uuid_at"]


def stem_of(run_id: str, generation: int) -> str:
    """What derived values begin with: the run id; after `generation` times `continue_as_new`, something else each time,
    as the same positions come again."""
    return f"{run_id}+{generation}" if generation else run_id


def child_id(stem: str, position: str) -> str:
    """The id of the run that is started by this place in this run: there is one, however often that is tried."""
    return f"{stem}:{position}"


def uuid_at(stem: str, position: str) -> UUID:
    """The UUID of this place in this run (version 4 in form, RFC 9562)."""
    return UUID(bytes=_digest("uuid", stem, position)[:16], version=4)


def random_at(stem: str, position: str) -> Random:
    """A generator of random numbers seeded by this place in this run."""
    return Random(_digest("random", stem, position))


def _digest(purpose: str, stem: str, position: str) -> bytes:
    return sha256(f"{purpose}\0{stem}\0{position}".encode()).digest()
