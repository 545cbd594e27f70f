"""Exceptions as plain data, and back where a step lists their class in `raises=`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from reflow._core.failure import capture, capture_for, raised_by
from reflow._core.journal import Entry
from reflow._core.steps import step
from reflow.codec import JsonCodec, MsgpackCodec
from reflow.errors import (
    ConfigError,
    Failure,
    RunFailedError,
    SerializationError,
    StepFailedError,
    StepTimeoutError,
    ValidationError,
    WaitTimeoutError,
)
from tests.support.driven import CODEC, line_of


class PaymentError(Exception):
    """The base of the errors here."""


class CardDeclined(PaymentError):
    """Takes whatever it is given."""


class Reworded(Exception):
    """Its arguments are not what it was made from."""

    def __init__(self, cents):
        super().__init__(f"{cents} cents")


class Picky(Exception):
    """Needs what its arguments do not tell."""

    def __init__(self, message, *, status):
        super().__init__(message)
        self.status = status


class Unreadable(Exception):
    """Has no message that can be read."""

    def __str__(self):
        raise RuntimeError("no")


class Unprintable(Exception):
    """Its traceback cannot be written."""

    __notes__ = property(lambda self: 1 / 0)


def caught(error, cause=None):
    """`error` after it was raised, with a traceback."""
    try:
        if cause is None:
            raise error  # here
        raise error from cause
    except BaseException as raised:
        return raised


def stored(failure, codec=CODEC):
    """`failure` as it is read back from storage."""
    return codec.decode(codec.encode(failure), Failure)


def through(error, raises=(CardDeclined,), codec=CODEC):
    """What is raised at the yield of a step that failed with `error`."""
    return raised(stored(capture_for(raises, error, codec), codec), raises, attempts=2)


def raised(failure, raises=(), *, attempts=1):
    """What is raised at the yield of the step 'charge' at position 3 whose recorded failure is `failure`."""
    return raised_by(Entry("3", "step", "charge", True, b"", attempts, 0, 0), failure, raises)


def test_a_failure_has_type_message_and_bases():
    """A failure keeps class name, message and the names of all base classes; no import path."""
    failure = capture(CardDeclined("no funds", 5))

    assert ("CardDeclined", "('no funds', 5)", ("CardDeclined", "PaymentError", "Exception", "BaseException")) == (
        failure.type,
        failure.message,
        failure.bases,
    )


def test_a_failure_has_a_traceback():
    """The traceback names file and line of the raise, and the exception."""
    path, line = line_of(caught).rsplit(":", 1)
    text = capture(caught(ValueError("x"))).traceback

    assert [True, True] == [f'File "{path}", line {line}, in caught' in text, text.endswith("ValueError: x\n")]


def test_a_traceback_begins_in_the_users_code():
    """Lines of Reflow and its event loop in front of the user's first line are left out."""
    engine: dict[str, Any] = {"__name__": "reflow._engine.perform"}
    exec(compile("def perform(body):\n    body()", "perform.py", "exec"), engine)
    with pytest.raises(ValueError, match="x") as raised:
        engine["perform"](lambda: int("x"))
    error = raised.value
    error.__traceback__ = error.__traceback__.tb_next
    text = capture(error).traceback

    assert [False, True] == ["perform.py" in text, "in <lambda>" in text]


def test_a_traceback_ends_in_the_users_code():
    """Where an error of Reflow's own was raised inside Reflow is left out, and a failed run does not tell its causes
    twice."""

    def flow():
        yield from step(print, step(print))

    with pytest.raises(ConfigError) as refused:
        next(flow())
    failure = capture(refused.value)
    run = capture(RunFailedError("r", "flow", failure))

    assert "yield from step(print, step(print))" in failure.traceback
    assert "steps.py" not in failure.traceback
    assert ("own traceback" in run.traceback, 1) == (False, run.causes[0].full_traceback.count("ConfigError: "))


def test_a_traceback_has_an_end():
    """A traceback of deep recursion keeps its last 20,000 characters: those next to the error."""

    def down(depth):
        if not depth:
            raise ValueError("bottom")
        return (lambda: down(depth - 1))()

    with pytest.raises(ValueError, match="bottom") as raised:
        down(300)
    text = capture(raised.value).traceback

    assert (True, True) == (len(text) <= 20_000, text.endswith("ValueError: bottom\n"))


def test_causes_are_kept():
    """The explicit cause, or what was being handled, is kept with its own causes."""
    failure = capture(caught(ValueError("a"), caught(KeyError("b"), OSError("c"))))

    assert ["ValueError", "KeyError", "OSError"] == [
        failure.type,
        failure.causes[0].type,
        failure.causes[0].causes[0].type,
    ]


def test_a_suppressed_context_is_left_out():
    """`raise ... from None` leaves out what was being handled."""
    error = ValueError("v")
    error.__context__ = KeyError("k")
    kept = capture(error).causes
    error.__cause__ = None  # as `from None` does

    assert (["KeyError"], ()) == ([cause.type for cause in kept], capture(error).causes)


def test_the_members_of_a_group_are_causes():
    """All exceptions of a group are kept, nested groups included."""
    failure = capture(ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b")])]))

    assert (True, True, False) == tuple(failure.is_caused_by(cls) for cls in (ValueError, KeyError, OSError))


def test_a_chain_of_causes_has_an_end():
    """Beyond ten causes deep, a chain is cut."""
    error = ValueError("0")
    for number in range(1, 50):
        error = caught(ValueError(str(number)), error)
    depth, failure = 0, capture(error)
    while failure.causes:
        depth, failure = depth + 1, failure.causes[0]

    assert 10 == depth


@pytest.mark.parametrize("codec", [MsgpackCodec(), JsonCodec()], ids=lambda codec: type(codec).__name__)
@pytest.mark.parametrize(
    "error",
    [Unreadable(), Unprintable("x"), ValueError("\ud800"), ValueError(object()), SystemExit(3), KeyError(b"\xff")],
    ids=lambda error: type(error).__name__,
)
def test_every_exception_can_be_stored(codec, error):
    """Whatever an exception's own code does, it becomes a failure that can be written and read."""
    failure = capture(caught(error))

    assert failure == stored(failure, codec)


@given(st.text())
def test_every_message_can_be_stored(message):
    """No text in a message keeps the failure from being written."""
    failure = capture(ValueError(message))

    assert failure == stored(failure)


def test_a_position_is_kept():
    """The place at which an error left the workflow is kept with it."""
    assert "4.2" == capture(ValueError("x"), position="4.2").position


def test_a_failed_step_passes_on_what_it_raised():
    """The failure of a StepFailedError has the step's own failure as cause, its code, and the step's position."""
    inner = capture(CardDeclined("no"))
    failure = capture(StepFailedError("charge", "3", 2, inner), position="9")

    assert ("step_failed", "3", (inner,)) == (failure.code, failure.position, failure.causes)


def test_without_raises_a_step_raises_step_failed():
    """An exception whose class is not listed arrives as StepFailedError with step, position, attempts and failure."""
    error = through(caught(CardDeclined("no")), raises=())

    assert (StepFailedError, "charge", "3", 2, "CardDeclined", "no") == (
        type(error),
        error.step,
        error.position,
        error.attempts,
        error.error_type,
        error.error_message,
    )


@pytest.mark.parametrize(
    "args", [(), ("no funds",), ("no funds", 5), ({"card": [1, None, 2.5]}, True), (b"\x00", "Grüße")], ids=repr
)
def test_a_listed_class_is_rebuilt(args):
    """[178] A listed exception with plain arguments keeps class, arguments and message."""
    error = CardDeclined(*args)
    again = through(caught(error))

    assert (CardDeclined, error.args, str(error)) == (type(again), again.args, str(again))


def test_a_rebuilt_exception_has_the_step_as_cause():
    """Where it came from is not lost: the cause of a rebuilt exception is the StepFailedError."""
    cause = through(CardDeclined("no")).__cause__

    assert (StepFailedError, "3") == (type(cause), cause.position)


def test_a_subclass_of_a_listed_class_is_rebuilt_as_the_listed_one():
    """Of what was raised, the nearest listed base class is built."""
    assert [PaymentError, CardDeclined, CardDeclined] == [
        type(through(CardDeclined("no"), raises))
        for raises in ((PaymentError,), (PaymentError, CardDeclined), (CardDeclined, PaymentError))
    ]


@pytest.mark.parametrize(
    "error",
    [Reworded(5), Picky("no", status=4), ValueError(object()), ValueError((1, 2)), ValueError(float("nan")),
     FileNotFoundError(2, "No such file", "a.txt"), Unreadable("x")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_cannot_be_rebuilt_arrives_as_step_failed(error):
    """[178] A listed exception that its arguments do not give again arrives as StepFailedError with the message."""
    raises = (Reworded, Picky, ValueError, OSError, Unreadable)
    again = through(caught(error), raises)

    assert (StepFailedError, type(error).__name__, capture(error).message) == (
        type(again),
        again.error_type,
        again.error_message,
    )


def test_another_class_of_the_same_name_is_not_rebuilt():
    """A listed class stands for itself: another one that happens to have its name is not taken for it."""
    other = type("CardDeclined", (Exception,), {})

    assert StepFailedError is type(through(other("no")))


def test_a_class_that_changed_since_arrives_as_step_failed():
    """[178] An exception that the class of today can no longer be built from arrives as StepFailedError."""
    failure = capture_for((CardDeclined,), CardDeclined("no", 5), CODEC)
    changed = type("CardDeclined", (Exception,), {"__init__": lambda self, only: None})
    again = raised(stored(failure), (changed,))

    assert (StepFailedError, "CardDeclined") == (type(again), again.error_type)


def test_a_class_no_longer_listed_arrives_as_step_failed():
    """Taking a class out of raises= turns its recorded failures into StepFailedError."""
    failure = capture_for((CardDeclined,), CardDeclined("no"), CODEC)

    assert StepFailedError is type(raised(stored(failure)))


def test_a_failure_names_no_code():
    """[21] A class is built only where the code lists it, whatever the stored failure says."""
    failure = Failure(type="SystemExit", message="3", bases=("SystemExit", "BaseException"), args=(3,))

    assert StepFailedError is type(raised(failure, (CardDeclined,)))


def test_a_timeout_keeps_its_limit():
    """[45] A timed-out step arrives as StepTimeoutError with the limit."""
    failure = capture_for((), StepTimeoutError("charge", "3", 2, Failure(type="TimeoutError", message=""), 2.5), CODEC)
    error = raised(stored(failure), attempts=2)

    assert (StepTimeoutError, 2.5, 2) == (type(error), error.limit_s, error.attempts)


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary()
data = st.recursive(plain, lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner))


@given(st.lists(data, max_size=3))
def test_an_exception_arrives_faithful_or_as_step_failed(args):
    """[178] Whatever its arguments are: it arrives with the same arguments and message, or as StepFailedError."""
    error = CardDeclined(*args)
    again = through(error)

    assert isinstance(again, StepFailedError) or (type(again), again.args, str(again)) == (
        CardDeclined,
        error.args,
        str(error),
    )


@pytest.mark.parametrize("odd", ["\ud800", object(), float("nan"), 2**64], ids=["surrogate", "object", "nan", "big"])
def test_an_error_of_reflow_with_anything_in_it_can_be_stored(odd):
    """An error of Reflow's own that somebody raises with what is no data inside is recorded all the same."""
    failure = stored(capture(ValidationError("a file", "unreadable", odd)))

    assert ("validation", None) == (failure.code, failure.args)


@pytest.mark.parametrize(
    ("error", "args"),
    [
        (WaitTimeoutError("approval", 5.0), ()),
        (WaitTimeoutError("approval", 5.0), ("approval", "soon")),
        (ValidationError("a", "b"), (1, 2, 3, 4)),
        (RunFailedError("r", "flow", Failure("E", "")), ("r", "flow", "more")),
    ],
    ids=str,
)
def test_a_failure_that_makes_no_error_is_refused(error, args):
    """[19] A stored failure whose arguments do not make the error that it says it is, is a SerializationError."""
    entry = Entry("3", "wait_event", "approval", True, b"", 1, 0, 0)
    with pytest.raises(SerializationError) as refused:
        raised_by(entry, replace(capture(error), args=args))

    assert ("$.args", True) == (refused.value.path, type(error).__name__ in refused.value.reason)
