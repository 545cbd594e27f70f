"""Transcripts: recorded, written, read, and held against code that has changed."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow import (
    Client,
    ConfigError,
    Engine,
    Flow,
    JsonCodec,
    NonDeterminismError,
    RunFailedError,
    RunNotFoundError,
    RunParked,
    SQLiteStorage,
    Workflow,
    is_replaying,
    sleep,
    step,
    workflow,
)
from reflow._core.journal import Entry, Timer
from reflow._core.status import RunStatus
from reflow._core.transcript import CODEC
from reflow.testing import Finished, Sandbox, Transcript, assert_replays, difference, record, run_workflow


@dataclass
class Money:
    """A value."""

    cents: int
    at: datetime | None = None


async def charge(cents: int) -> Money:
    """A body."""
    return Money(cents, datetime(2026, 1, 2, tzinfo=UTC))


async def decline(cents: int) -> Money:
    """A body that fails."""
    raise ValueError(f"no {cents} cents")


def order(body: Any) -> Workflow[..., Any]:
    """A workflow called `order`, with this code."""
    return workflow(name="order")(body)


def original(cents: int) -> Flow[int]:
    """What was recorded."""
    money = yield from step(charge, cents)
    yield sleep("1d")
    more = yield from step(charge, money.cents + 1).options(name="charge again")
    return more.cents


def renamed(cents: int) -> Flow[int]:
    """A step with another name."""
    money = yield from step(charge, cents).options(name="bill")  # here
    return money.cents


def other_kind(cents: int) -> Flow[int]:
    """A step where there was a sleep."""
    money = yield from step(charge, cents)
    money = yield from step(charge, cents)  # here
    return money.cents


def other_arguments(cents: int) -> Flow[int]:
    """The same steps, with other arguments."""
    money = yield from step(charge, cents)
    yield sleep("1d")
    more = yield from step(charge, money.cents + 2).options(name="charge again")  # here
    return more.cents


def shorter(cents: int) -> Flow[int]:
    """It returns too early."""
    money = yield from step(charge, cents)
    return money.cents  # here


def longer(cents: int) -> Flow[int]:
    """It does more than was done."""
    more = yield from original(cents)
    yield step(charge, more)  # here
    return more


def otherwise(cents: int) -> Flow[int]:
    """It returns something else."""
    more = yield from original(cents)
    return more + 1


def raising(cents: int) -> Flow[int]:
    """It fails in the end."""
    yield from original(cents)
    raise ValueError("no")


@pytest.fixture
def recorded() -> Transcript:
    """The transcript of a run of `original`."""
    return run_workflow(order(original)(5)).transcript


def test_the_same_code_replays(recorded: Transcript) -> None:
    """[193] Against the code with which it was recorded a transcript replays, and performs nothing."""
    assert_replays(order(original), recorded)
    assert_replays([order(original)], Transcript.parse(str(recorded)))


@pytest.mark.parametrize(
    ("changed", "position", "then", "now"),
    [
        (renamed, "0", "step 'charge'", "step 'bill'"),
        (other_kind, "1", "sleep", "step 'charge'"),
        (other_arguments, "2", "step 'charge again'", "step 'charge again' with other arguments"),
        (shorter, "1", "sleep", "the workflow 'shorter' has ended"),
        (longer, "3", "that the run completed", "step 'charge'"),
    ],
)
def test_changed_code_is_found(recorded: Transcript, changed: Any, position: str, then: str, now: str) -> None:
    """[193] A divergence names position, recorded and yielded command, and file and line."""
    with pytest.raises(NonDeterminismError) as caught:
        assert_replays(order(changed), recorded)

    lines, first = inspect.getsourcelines(changed)
    line = next(number for number, text in enumerate(lines, first) if "# here" in text)
    error = caught.value
    assert (position, then, now, f"{__file__}:{line}") == (
        error.position,
        error.recorded,
        error.yielded,
        error.location,
    )


@pytest.mark.parametrize(
    ("changed", "end"), [(otherwise, "now completed with 7"), (raising, "now failed with ValueError: no")]
)
def test_another_end_is_found(recorded: Transcript, changed: Any, end: str) -> None:
    """[193] Code that does the same and ends in another way does not replay."""
    with pytest.raises(AssertionError, match=f"recorded completed with 6, {end}"):
        assert_replays(order(changed), recorded)


def test_failures_replay() -> None:
    """[193] A run that failed has to fail with the same error."""

    def failing(cents: int) -> Flow[Money]:
        return (yield from step(decline, cents))

    def forgiving(cents: int) -> Flow[Money | None]:
        try:
            return (yield from step(decline, cents))
        except Exception:
            return None

    transcript = run_workflow(order(failing)(5)).transcript

    assert_replays(order(failing), transcript)
    with pytest.raises(AssertionError, match=r"recorded failed with StepFailedError: .* now completed with None"):
        assert_replays(order(forgiving), transcript)


def test_what_a_body_makes_of_a_failed_child_replays() -> None:
    """What a failed child says at its yield is the same wherever the code lies: it may go into a result, or on to a
    step, and replays without tracebacks."""

    async def note(text: str) -> None:
        """A body."""

    async def fail() -> None:
        raise ValueError("no")

    @workflow
    def child() -> Flow[None]:
        yield step(fail)

    @workflow
    def parent() -> Flow[str]:
        try:
            yield child()
        except RunFailedError as error:
            yield step(note, str(error))
            return str(error)
        return ""

    finished = run_workflow(parent())

    assert_replays(parent, Transcript.parse(str(finished.transcript)))
    assert finished.result.endswith("failed: StepFailedError: step 'fail' failed after 1 attempt: ValueError: no")


def test_an_error_of_the_rules_replays() -> None:
    """A run that failed by a misuse replays where it still does."""

    def misusing(cents: int) -> Flow[None]:
        yield [step(charge, cents)]  # type: ignore[misc]

    async def main() -> Transcript:
        async with Sandbox([order(misusing)]) as sandbox:
            return (await sandbox.finished(await sandbox.enqueue("order", {"cents": 5}))).transcript

    assert_replays(order(misusing), anyio.run(main))


def test_a_transcript_of_another_workflow(recorded: Transcript) -> None:
    """A transcript is of a workflow in a version; where that is not given, the error says what was."""
    second = workflow(name="order", version=2)(original)

    with pytest.raises(ConfigError, match="is of version 1 of 'order', and given was version 2 of 'order'"):
        assert_replays(second, recorded)


def test_nothing_is_told_while_it_replays(recorded: Transcript) -> None:
    """The body believes that it is being replayed, so it logs nothing."""
    seen: list[bool] = []

    def looking(cents: int) -> Flow[int]:
        seen.append(is_replaying())
        result = yield from original(cents)
        return result

    assert_replays(order(looking), recorded)

    assert [True] == seen


@pytest.mark.anyio
@pytest.mark.parametrize("codec", [None, JsonCodec()])
async def test_runs_of_a_file_are_recorded(tmp_path: Path, anyio_backend: str, codec: JsonCodec | None) -> None:
    """[193] Any run in any storage can be recorded, before it ends too; what was stored as JSON as well."""
    flow = order(original)
    async with Engine(SQLiteStorage(tmp_path / "app.db"), [flow], codec=codec) as engine:
        run = await engine.enqueue(flow(5), run_id="r")
        async with engine.stream() as events:
            async for event in events:
                if isinstance(event, RunParked):
                    break
    async with Client(SQLiteStorage(tmp_path / "app.db"), codec=codec) as client:
        transcript = await record(await client.handle("r"))
    assert_replays(flow, transcript)

    assert ("sleeping", ["charge"], ["sleep"]) == (
        transcript.status,
        [entry.name for entry in transcript.entries],
        [timer.name for timer in transcript.timers],
    )
    with pytest.raises(NonDeterminismError, match="recorded sleep, now step 'charge'"):
        assert_replays(order(other_kind), transcript)
    assert "r" == run.run_id


@pytest.mark.anyio
async def test_a_run_that_was_stored_as_json(anyio_backend: str) -> None:
    """[193] A run stored as JSON, where bytes and keys are text, is recorded and replayed with its types."""

    async def give() -> dict[int, bytes]:
        return {1: b"a"}

    @workflow
    def flow(sizes: dict[float, bytes]) -> Flow[tuple[dict[float, bytes], dict[int, bytes]]]:
        given = yield from step(give)
        return sizes, given

    async with Sandbox([flow], codec=JsonCodec()) as sandbox:
        run = await sandbox.enqueue(flow({0.5: b"b"}))
        await run.result()

        assert_replays(flow, Transcript.parse(str(await record(run))))


@pytest.mark.anyio
async def test_a_run_that_is_gone(anyio_backend: str) -> None:
    """A run that was pruned cannot be recorded."""
    async with Sandbox([order(original)]) as sandbox:
        run = await sandbox.enqueue("order", {"cents": 5})
        await sandbox.finished(run)
        await sandbox.clock.sleep("1d")
        await sandbox.prune(older_than=0)
        with pytest.raises(RunNotFoundError):
            await record(run)


# ---- the text -------------------------------------------------------------------------------------------------------


def test_a_transcript_can_be_read() -> None:
    """[193] Each entry is a line of JSON, without times and tracebacks."""

    def plain(number: int) -> Flow[int]:
        try:
            yield step(decline, number)
        except Exception:
            number += 1
        return number

    run: Finished[Any] = run_workflow(order(plain)(5))
    head, entry, *rest = str(run.transcript).split("\n")

    assert [""] == rest
    assert (
        '{"transcript":1,"rules":1,"workflow":"order","version":1,"run_id":"test","status":"completed",'
        '"input":{"number":5},"output":6}' == head
    )
    assert entry.endswith(
        '"failure":{"type":"ValueError","message":"no 5 cents","bases":["ValueError","Exception","BaseException"]}}'
    )


def test_a_difference_shows_the_lines(recorded: Transcript) -> None:
    """The difference of two transcripts is a diff of their lines, and empty where they are the same."""
    other = run_workflow(order(original)(6)).transcript
    lines = difference(recorded, other).split("\n")

    assert "" == difference(recorded, recorded)
    assert ["--- recorded", "+++ now"] == lines[:2]
    assert {"-", "+", " ", "@"} == {line[0] for line in lines}


HEAD = '{"transcript":1,"rules":1,"workflow":"a","version":1,"run_id":"r","status":"failed"}'
# An integer of 65 bits, which is JSON, and nothing that a run could have stored.
LINE = '{"position":"0","kind":"step","name":"a","value":[1,18446744073709551616]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is no line of a transcript"),
        ("{}", "line 1 is no line of a transcript"),
        (
            '{"transcript":2,"rules":1,"workflow":"a","version":1,"run_id":"r","status":"failed"}',
            "a transcript of format 2; this Reflow reads format 1",
        ),
        (
            '{"transcript":1,"rules":1,"workflow":"a","version":1,"run_id":"r","status":"failed"}\n{"kind":1}',
            "line 2 is no line of a transcript",
        ),
        ('{"input":' + "[" * 5_000, "line 1 is no line of a transcript: maximum recursion depth"),
        ('{"workflow":"\ud800"}', "line 1 is no line of a transcript: .* surrogates not allowed"),
        (f"{HEAD}\n{LINE}", r"line 2 is no line of a transcript: .* \(at \$\.value\[1\]\)"),
    ],
    ids=lambda part: part[:40].encode("ascii", "replace").decode(),
)
def test_what_is_no_transcript(text: str, message: str) -> None:
    """Text that is no transcript is refused, by its line."""
    with pytest.raises(ConfigError, match=message):
        Transcript.parse(text)


floats = st.floats(allow_nan=False, allow_infinity=False)
as_json = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | st.text()
data = st.recursive(
    as_json | st.binary() | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=3),
    max_leaves=5,
)
keys = st.tuples(st.integers(0, 9)) | st.none() | st.booleans()
# Also what JSON has no keys for, and what nobody can read.
payloads = data.map(CODEC.encode) | st.dictionaries(keys, data, max_size=2).map(CODEC.encode) | st.binary(min_size=1)
words = st.text(min_size=1, max_size=5)
digests = st.none() | st.binary(min_size=8, max_size=8)
entries = st.builds(
    Entry, words, words, words, st.booleans(), payloads, st.integers(0, 9), st.just(0), st.just(0), digests
)
timers = st.builds(Timer, words, words, words, st.integers(0, 2**63 - 1), st.integers(0, 9), st.just(0))


@given(payloads, st.none() | payloads, st.lists(entries, max_size=2), st.lists(timers, max_size=2))
def test_text_says_all(input: bytes, output: bytes | None, entries: list[Entry], timers: list[Timer]) -> None:
    """[193] A transcript that was written and read is the same, byte for byte, whatever the values are."""
    transcript = Transcript(
        workflow="w",
        version=1,
        rules=1,
        run_id="r",
        generation=2,
        status=RunStatus.COMPLETED,
        input=input,
        output=output,
        error=None,
        entries=tuple(entries),
        timers=tuple(timers),
    )

    assert transcript == Transcript.parse(str(transcript))
