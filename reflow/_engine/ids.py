"""New identifiers, of runs and leases.

They begin with the time, like UUIDs of version 7 (RFC 9562, section 5.7): what is made later sorts later, so that an
index of a million runs is written at its end and not all over.
"""

from __future__ import annotations

from secrets import token_hex

__all__ = ["new_id"]


def new_id(now: int) -> str:
    """32 hexadecimal digits: `now` (microseconds since 1970 UTC) in milliseconds, then 80 random bits."""
    return f"{now // 1_000:012x}{token_hex(10)}"
