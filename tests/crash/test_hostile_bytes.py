"""Whatever stands in a storage, reading it gives a value that fits, or an error of Reflow's that says what and where:
no crash, no hang, no foreign exception, and no more memory than what was read."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow import (
    Codec,
    JsonCodec,
    MsgpackCodec,
    SerializationError,
)
from tests.crash.ledger import fired
from tests.crash.random_cases import law
from tests.support.hostile import BOMBS, DEEP, mangled
from tests.support.payloads import exact, payloads

pytestmark = pytest.mark.slow

CODECS: list[Codec] = [MsgpackCodec(), JsonCodec()]
both = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)

# ---- the codecs ------------------------------------------------------------------------------------------------------


@both
@law(500, long=20_000)
@given(data=st.data())
def test_damaged_values_are_read_or_refused(codec: Codec, data: st.DataObject) -> None:
    """[19] Of damaged bytes comes a value that fits the annotation, and could be stored again as it is, or a
    SerializationError."""
    annotation, value = data.draw(payloads(codec))
    damaged = data.draw(mangled(codec.encode(value)))
    reading = type(codec)()
    try:
        again = reading.decode(damaged, annotation)
        # Bits may have become a NaN, which fits, and cannot be stored.
        stored = reading.encode(again)
    except SerializationError:
        again = stored = None
    fired("hostile bytes", f"read by {type(codec).__name__}")

    assert stored is None or exact(again) == exact(reading.decode(stored, annotation))


@both
@pytest.mark.parametrize("start", [*BOMBS, *(deep * 100_000 for deep in DEEP)], ids=lambda start: repr(start[:12]))
def test_memory_is_bounded_by_what_is_read(codec: Codec, start: bytes) -> None:
    """[19] A length that is not there takes no memory, and nesting without end not much more than the bytes of it."""
    types: list[Any] = [Any, list[Any], list[int], tuple[int, ...], set[str], dict[str, Any], str, bytes, Held, Deep]
    for annotation in types:
        codec_ = type(codec)()
        with pytest.raises(SerializationError):
            codec_.decode(b"\xc1", annotation)
        tracemalloc.start()
        try:
            with pytest.raises(SerializationError):
                codec_.decode(start, annotation)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        fired("hostile bytes", "that are expensive")

        assert most <= 1_000_000


@dataclass
class Held:
    """A dataclass."""

    a: list[Any]


@dataclass
class Deep:
    """A dataclass of itself."""

    a: Deep | None = None
