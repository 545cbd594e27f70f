"""wait_event and Event: what a run is sent from outside, checked by the sender where it can be, and at the yield."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from reflow._core.failure import capture
from reflow._core.groups import gather, race
from reflow._core.waits import Event, sleep, wait_event
from reflow.codec import JsonCodec
from reflow.errors import ConfigError, Failure, SerializationError, StepFailedError, ValidationError, WaitTimeoutError
from tests.support.driven import CODEC, Driven, do


@dataclass
class Approval:
    """What is sent."""

    approved: bool
    by: str = "nobody"


approval = Event("approval", Approval)


def outcomes(*commands):
    """A body that gives what came of each command, errors included."""

    def body():
        seen = []
        for command in commands:
            try:
                seen.append((yield command))
            except Exception as error:
                seen.append(error)
        return seen

    return body()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (wait_event("paid"), ("paid", Any, None)),
        (wait_event("paid", int), ("paid", int, None)),
        (wait_event("paid", type=list[int], timeout="1m"), ("paid", list[int], 60_000_000)),
        (wait_event("nothing", None), ("nothing", None, None)),
        (wait_event(approval), ("approval", Approval, None)),
        (wait_event(approval, timeout=0.5), ("approval", Approval, 500_000)),
        (wait_event(Event("any")), ("any", Any, None)),
    ],
)
def test_a_wait_has_a_name_a_type_and_a_limit(command, expected):
    """A wait has the name of the event, the type of its payload and the timeout in microseconds."""
    assert ("wait_event", *expected) == (command.kind, command.name, command.type, command.timeout_us)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: wait_event(""), "the name of an event is ''; write a text that is not empty"),
        (lambda: wait_event("  "), "the name of an event is '  '; write a text that is not empty"),
        (lambda: wait_event("a\0b"), "the name of an event is 'a\\x00b'; write a text"),
        (lambda: wait_event("\ud800"), "the name of an event is '\\ud800'; write a text"),
        (lambda: wait_event(5), "the name of an event is 5; write a text that is not empty"),
        (lambda: Event(""), "the name of an event is ''; write a text that is not empty"),
        (lambda: wait_event("paid", "48h"), "the type of an event is '48h'; write a type, and a limit by its name"),
        (lambda: wait_event("paid", 60), "the type of an event is 60; write a type"),
        (lambda: Event("paid", timedelta(1)), "the type of an event is datetime.timedelta(days=1); write a type"),
        (lambda: wait_event("paid", timeout=0), "timeout is 0; it must be longer than nothing"),
        (lambda: wait_event("paid", timeout=-1), "timeout is -1; write seconds"),
        (
            lambda: wait_event(approval, int),
            "Event('approval', Approval) has a type of its own; write wait_event(event)",
        ),
    ],
)
def test_wrong_waits_are_refused_where_they_are_written(make, problem):
    """A name that is none, a timeout that is nothing and a second type are a ConfigError when the command is made."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value).startswith(problem)


def test_a_payload_is_given_as_the_declared_type():
    """The payload comes back as the declared type, live and on replay alike."""
    live = Driven(outcomes(wait_event(approval))).complete("0", {"approved": True})

    assert [[Approval(True)]] * 2 == [live.value, Driven(outcomes(wait_event(approval)), live.journal).value]


def test_stored_bytes_are_read_as_the_declared_type():
    """What was sent is bytes: the wait reads them as its type, and refuses what does not fit, naming event and path."""
    wait = wait_event(approval)
    with pytest.raises(ValidationError) as caught:
        wait.decode(CODEC.encode({"approved": "yes"}), CODEC)

    assert Approval(False, "me") == wait.decode(CODEC.encode({"approved": False, "by": "me"}), CODEC)
    assert ("payload of event 'approval'", "$.approved") == (caught.value.subject, caught.value.path)


def test_a_sender_is_told_what_does_not_fit():
    """A declared event encodes what fits, and refuses to the sender what does not, naming event and path."""
    with pytest.raises(ValidationError) as unfit:
        approval.encode({"approved": 5}, JsonCodec())
    with pytest.raises(SerializationError) as no_data:
        approval.encode(Approval(approved=object()), JsonCodec())

    assert b'{"approved":true,"by":"me"}' == approval.encode(Approval(True, "me"), JsonCodec())
    assert ("payload of event 'approval'", "$.approved") == (unfit.value.subject, unfit.value.path)
    assert ("payload of event 'approval'", "$.approved") == (no_data.value.subject, no_data.value.path)


@pytest.mark.parametrize(
    "error",
    [
        WaitTimeoutError("approval", 5.0),
        ValidationError("payload of event 'approval'", "Expected `bool`", "$.approved"),
    ],
    ids=lambda error: error.code,
)
def test_a_failed_wait_raises_its_own_error(error):
    """A timeout and a payload that does not fit are raised at the yield as themselves, with the position; the body may
    wait again."""
    live = Driven(outcomes(wait_event(approval, timeout=5), wait_event(approval)))
    live.fail("0", error).complete("1", Approval(True))
    replayed = Driven(outcomes(wait_event(approval), wait_event(approval)), live.journal)

    for raised, value in (live.value, replayed.value):
        assert (type(error), str(error), "0") == (type(raised), str(raised), raised.raised_at)
        assert {**vars(error), "raised_at": "0"} == vars(raised)
        assert Approval(True) == value


def test_an_error_that_reflow_does_not_know_is_raised_all_the_same():
    """A failure of a wait that can be no outcome of one is raised as what it says."""
    driven = Driven(outcomes(wait_event("paid"))).fail("0", RuntimeError("of another version"))
    (raised,) = driven.value

    assert (StepFailedError, "RuntimeError", "0") == (type(raised), raised.error_type, raised.position)


def test_waits_stand_beside_other_commands():
    """Waits are members of gather and race like any command; the loser is cancelled."""
    driven = Driven(outcomes(race(wait_event("paid", int), sleep(60)), gather(wait_event("paid", int), do("a"))))
    driven.complete("0.0", 5).complete("1.1", "done").complete("1.0", 6)

    assert [(0, 5), (6, "done")] == [(driven.value[0].index, driven.value[0].value), driven.value[1]]
    assert ["0.1"] == driven.replay.cancelled


def test_an_uncaught_timeout_knows_where_it_was_raised():
    """A wait's error that ends the run is recorded with the position of the wait."""

    def body():
        yield do("a")
        yield wait_event("paid", timeout=5)

    driven = Driven(body()).complete("0").fail("1", WaitTimeoutError("paid", 5.0))
    failure = CODEC.decode(CODEC.encode(capture(driven.error, position="9")), Failure)

    assert ("1", "1", "wait_timeout") == (failure.raised_at, failure.position, failure.code)
