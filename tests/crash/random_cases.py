"""How many random cases a property is tried with, and with which codecs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from reflow import Codec, JsonCodec, MsgpackCodec
from tests.crash.ledger import scaled

CODECS: list[Codec] = [MsgpackCodec(), JsonCodec()]
both = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)


def law(short: int, *, long: int) -> settings:
    """So many cases: in the short form always the same ones, in the long form other ones each time. A failure prints
    the smallest case that fails, and how to repeat it."""
    is_long = scaled(0, long=1) == 1
    return settings(
        max_examples=scaled(short, long=long),
        derandomize=not is_long,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
