"""What resume keeps of a journal: everything before the entry that the run's error stems from."""

from contextlib import suppress

import pytest

from reflow._core.command import Flow
from reflow._core.cut import cut_of
from reflow._core.definition import workflow
from reflow._core.failure import capture
from reflow._core.groups import gather
from reflow._core.waits import wait_event
from reflow.errors import (
    ConfigError,
    Failure,
    MisuseError,
    NonDeterminismError,
    RunCancelledError,
    RunFailedError,
    SerializationError,
    StepFailedError,
    ValidationError,
    WaitTimeoutError,
)
from tests.support.driven import CODEC, Driven, do


class Declined(Exception):
    """What a step raises."""


class Own(Exception):
    """What the workflow raises."""


@workflow
def child() -> Flow[None]:
    """A child run."""
    yield do("a")


def cut(driven):
    """How many entries are kept of a run that has failed, its error stored and read back."""
    failure = CODEC.decode(CODEC.encode(capture(driven.error, position=driven.replay.position)), Failure)
    return cut_of(driven.journal, failure)


def chained(error):
    """Another error, from this one."""
    try:
        raise Own("own") from error
    except Own as own:
        return own


def context(error):
    """Another error, raised while this one was handled."""
    try:
        try:
            raise error
        except Exception:
            raise Own("own")  # noqa: B904
    except Own as own:
        return own


def severed(error):
    """Another error, said to have no cause."""
    try:
        try:
            raise error
        except Exception:
            raise Own("own") from None
    except Own as own:
        return own


def grouped(error):
    """A group with this error in it."""
    return ExceptionGroup("several", [ValueError("another"), error])


def same(error):
    """The error itself."""
    return error


@pytest.mark.parametrize("wrap", [same, chained, context, grouped], ids=lambda wrap: wrap.__name__)
@pytest.mark.parametrize("raised", [OSError("no"), Declined("no", 5)], ids=["as StepFailedError", "as itself"])
def test_a_failed_run_is_cut_at_the_step_that_failed(wrap, raised):
    """The failed step and everything after it goes, clean-up included; also where its error was wrapped, and where it
    was raised as itself."""

    def body():
        yield do("before")
        try:
            yield do("fails", raises=Declined)
        except Exception as error:
            failed = error
        yield do("clean")
        raise wrap(failed)

    driven = Driven(body()).complete("0").fail("1", raised).complete("2")

    assert (1, 3) == (cut(driven), len(driven.journal))


@pytest.mark.parametrize(
    "make",
    [lambda: Own("own"), lambda: severed(StepFailedError("fails", "1", 1, Failure("OSError", "no")))],
    ids=["another error", "an error without a cause"],
)
def test_an_error_of_the_code_cuts_nothing(make):
    """An error that stems from no step keeps the whole journal, also where a step failed before and was caught."""

    def body():
        yield do("before")
        with suppress(StepFailedError):
            yield do("fails")
        raise make()

    driven = Driven(body()).complete("0").fail("1", OSError("no"))

    assert 2 == cut(driven)


def test_the_last_of_several_failures_counts():
    """Where a failure was handled and the handling failed, the run is cut at the second one."""

    def body():
        try:
            yield do("fails")
        except StepFailedError:
            yield do("handles")

    driven = Driven(body()).fail("0", OSError("no")).fail("1", OSError("no"))

    assert 1 == cut(driven)


def test_of_several_side_by_side_the_first_counts():
    """A group of failures is cut at the one that was recorded first."""

    def body():
        results = yield gather(do("a"), do("b"), do("c"), return_exceptions=True)
        raise ExceptionGroup("several", [result for result in results if isinstance(result, Exception)])

    driven = Driven(body()).complete("0.2").fail("0.1", OSError("no")).fail("0.0", OSError("no"))

    assert 1 == cut(driven)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: wait_event("paid", timeout=5), WaitTimeoutError("paid", 5.0)),
        (lambda: wait_event("paid", int), ValidationError("payload of event 'paid'", "Expected `int`", "$")),
        (child, RunFailedError("run-1:1", "child", Failure("ValueError", "no", position="0", raised_at="0"))),
        (child, RunCancelledError("run-1:1", "child")),
    ],
    ids=lambda part: getattr(part, "code", ""),
)
def test_waits_and_children_are_cut_like_steps(make, error):
    """A timeout, a payload that does not fit and a child that failed are cut at their own entry; where a child failed
    is the child's affair."""

    def body():
        yield do("before")
        try:
            yield make()
        finally:
            yield do("clean")

    driven = Driven(body()).complete("0").fail("1", error).complete("2")

    assert 1 == cut(driven)


@pytest.mark.parametrize(
    "error",
    [
        NonDeterminismError("1", "step 'fails'", "step 'other'", "app.py:12"),
        MisuseError("a generator was yielded", "app.py:12"),
        SerializationError("the return value of workflow 'flow'", "nan is not data"),
        ValidationError("something of one's own", "is wrong"),
    ],
    ids=lambda error: error.code,
)
def test_a_parked_run_keeps_all(error):
    """What is no outcome of a command cuts nothing, even where the body stood at one that had failed."""

    def body():
        try:
            yield do("before")
        except StepFailedError:
            yield do("fails")

    driven = Driven(body()).fail("0", OSError("no"))

    with driven:
        assert 1 == cut_of(driven.journal, capture(error, position="0"))


def test_a_cancelled_run_is_cut_at_the_cancel():
    """Of a cancelled run, the cancel entry and its clean-up go."""

    def body():
        yield do("a")
        try:
            yield do("b")
        finally:
            yield do("clean")

    driven = Driven(body()).complete("0").cancel().complete("2")

    assert (1, 3) == (cut_of(driven.journal, None), len(driven.journal))


def test_a_cancelled_run_whose_clean_up_failed_is_cut_there():
    """A run that failed while it was being cancelled goes on with its clean-up."""

    def body():
        try:
            yield do("a")
        finally:
            yield do("clean")

    driven = Driven(body()).cancel().fail("1", OSError("no"))

    assert 1 == cut(driven)


def test_a_position_can_be_named():
    """`at` cuts at the entry of that position, whatever the run failed with; a position without one is refused."""

    def body():
        for _ in range(3):
            yield do("a")

    entries = Driven(body()).complete("0").complete("1").complete("2").journal
    with pytest.raises(ConfigError, match="at is '7'; write the position of an entry of this run"):
        cut_of(entries, None, at="7")

    assert [1, 0] == [cut_of(entries, failure, at=at) for failure, at in ((None, "1"), (capture(Own()), "0"))]


def test_what_is_not_there_cuts_nothing():
    """An error whose entry is not in the journal, and a cancellation without its entry, keep all."""
    failure = capture(StepFailedError("a", "7", 1, Failure("OSError", "no")))

    assert [0, 0] == [cut_of([], failure), cut_of([], None)]
