"""Whatever stands in a storage, reading it gives a value that fits, or an error of Reflow's that says what and where:
no crash, no hang, no foreign exception, and no more memory than what was read."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow import (
    Client,
    Codec,
    ConfigError,
    Flow,
    MemoryStorage,
    ReflowError,
    SerializationError,
    SQLiteStorage,
    WaitTimeoutError,
    gather,
    sleep,
    step,
    wait_event,
    workflow,
)
from reflow._core.schedule import Recurrence, due_occurrences
from reflow.testing import Sandbox, Transcript, assert_replays, record
from tests.crash.ledger import fired
from tests.crash.random_cases import both, law
from tests.support.hostile import BOMBS, DEEP, NUMBERS, TEXTS, mangled, mangled_text
from tests.support.payloads import exact, payloads

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patience")]


_files = count()

# ---- the codecs ------------------------------------------------------------------------------------------------------


@both
@law(200, long=10_000)
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


# ---- texts -----------------------------------------------------------------------------------------------------------


async def give(name: str) -> Held:
    """A result."""
    return Held([name, 0.5])


async def decline() -> None:
    """A failure that is rebuilt."""
    raise LookupError("no", 5)


@workflow
def flow(held: Held) -> Flow[list[Any]]:
    """Has several kinds of entries, and ends with something open."""
    seen = [(yield step(give, "a"))]
    try:
        yield step(decline).options(raises=LookupError)
    except LookupError as error:
        seen.append(error.args)
    try:
        yield gather(step(give, "b"), sleep(5), wait_event("never", timeout=9))
    except WaitTimeoutError as error:
        seen.append(error.event)
    yield gather(sleep("100000d"), wait_event("never"))
    return seen


@pytest.fixture(scope="module")
def transcript() -> Transcript:
    """What a run has left that is not over yet."""

    async def main() -> Transcript:
        async with Sandbox([flow]) as sandbox:
            run = await sandbox.enqueue(flow(Held([1])), run_id="r")
            await sandbox.clock.sleep("1d")
            return await record(run)

    return anyio.run(main)


def parsed(kind: Any, text: str, *said: str) -> Any:
    """What `text` is; None where it is refused, which must be in one of these ways."""
    try:
        return kind.parse(text)
    except ConfigError as error:
        message = str(error)
    assert any(part in message for part in said), message
    return None


@law(250, long=10_000)
@given(data=st.data())
def test_damaged_transcripts_are_read_or_refused(transcript: Transcript, data: st.DataObject) -> None:
    """[19][193] A damaged transcript is refused by its line; where it can be read, it can be written and read again,
    and the code replays it or an error of Reflow's says why not."""
    lines = str(transcript).split("\n")
    at = data.draw(st.integers(0, len(lines) - 1))
    damaged = data.draw(mangled(lines[at].encode()) | mangled_text(lines[at]))
    lines[at] = damaged if isinstance(damaged, str) else damaged.decode("utf-8", "surrogateescape")
    fired("hostile bytes", "in a transcript")
    read = parsed(Transcript, "\n".join(lines), "is no line of a transcript", "this Reflow reads format")
    if read is None:
        return

    assert str(read) == str(Transcript.parse(str(read)))
    with suppress(ReflowError, AssertionError):
        assert_replays(flow, read)


@law(300, long=20_000)
@given(data=st.data(), at=NUMBERS, now=NUMBERS)
def test_damaged_recurrences_are_read_or_refused(data: st.DataObject, at: int, now: int) -> None:
    """[162] The text of a recurrence is one, which has occurrences before and after any instant of the calendar, or it
    is a ConfigError that quotes it."""
    text = data.draw(st.sampled_from(RECURRENCES).flatmap(mangled_text))
    fired("hostile bytes", "as a recurrence")
    recurrence = parsed(Recurrence, text, repr(text), "every is '", "cron is '", "tz is '")
    if recurrence is None:
        return

    assert recurrence == Recurrence.parse(recurrence.to_text())
    due = due_occurrences(recurrence, next_at=min(at, now), now=now, anchor=at, missed="all")
    assert list(due.fire) == sorted(due.fire)
    assert due.next_at is None or due.next_at > now


RECURRENCES = ["every 1h30m", "every 1s", "cron 30 2 * * MON-FRI Europe/Berlin", "cron */5 0-23/7 1,15 * 2 UTC"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@law(40, long=1_500)
@given(cursors=st.lists(st.sampled_from(["1", "3", "17"]).flatmap(mangled_text) | TEXTS, min_size=5, max_size=20))
def test_cursors_are_read_or_refused(backend: str, tmp_path_factory: Any, cursors: list[str]) -> None:
    """Whatever stands in the place of a cursor is a place in the list of runs, or an error of Reflow's, in every
    storage."""
    path = tmp_path_factory.getbasetemp() / f"cursors-{next(_files)}.db"

    async def main() -> None:
        for storage in (MemoryStorage(), SQLiteStorage(path, durability="process")):
            async with Client(storage) as client:
                newest_first = [run.run_id for run in await client.enqueue_many("flow", [{}] * 3)][::-1]
                pages = [newest_first[at : at + 2] for at in range(4)]
                for cursor in cursors:
                    fired("hostile bytes", "as a cursor")
                    with suppress(ReflowError):
                        page = await client.list_runs(limit=2, cursor=cursor)
                        assert [run.run_id for run in page.runs] in pages

    anyio.run(main, backend=backend)
    path.unlink()
