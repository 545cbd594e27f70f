"""Short digests of arguments: they show that a call at an unchanged position is made with other arguments now.

A digest is of the arguments as data, not of what a codec makes of them, which may be different each time. It is the
same in every process: sets and keys are put in order. Where an argument is no data (a step may be given any object),
there is none.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from reflow._core.definition import Call
from reflow._core.runs import Spawn
from reflow._core.steps import Step

__all__ = ["digest_of"]

_SIZE = 8
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def digest_of(command: object) -> bytes | None:
    """A digest of the arguments of a step, a child or a spawned run; None for others, and where they are no data."""
    arguments: Any
    match command:
        case Step(args=args, kwargs=kwargs):
            arguments = (args, kwargs) if kwargs else args
        case Call(arguments=arguments) | Spawn(call=Call(arguments=arguments)):
            pass
        case _:
            return None
    try:
        data = _encode(arguments)
    except Exception:
        # Arguments are whatever the user has, so anything can be raised.
        return None
    return blake2b(data, digest_size=_SIZE).digest()
