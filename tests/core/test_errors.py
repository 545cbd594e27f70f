"""The tree of errors: codes, fields, messages, pickling, plain data."""

import pickle
import re
from copy import copy

import pytest

from reflow import errors
from reflow.codec import JsonCodec
from reflow.errors import Failure, ReflowError, WorkflowCancelled

FAILURE = Failure(
    type="CardDeclined",
    message="no funds",
    traceback="Traceback ...",
    bases=("CardDeclined", "PaymentError", "Exception", "BaseException"),
    causes=(Failure(type="TimeoutError", message="", bases=("TimeoutError", "OSError", "Exception")),),
    position="3",
    args=("no funds", 5),
)

EXAMPLES = [
    errors.ReflowError("anything"),
    errors.ConfigError("limit is 0; write a whole number from 1 up"),
    errors.DuplicateWorkflowError("signup", 2),
    errors.MisuseError("a generator was yielded", "app.py:12"),
    errors.NonDeterminismError("4.2", "step 'charge'", "step 'refund'", "app.py:12"),
    errors.ValidationError("input of workflow 'signup'", "Expected `int`, got `str`", "$.user.age"),
    errors.SerializationError("result of step 'charge'", "nan is not data", "$.items[3].price"),
    errors.StepFailedError("charge", "3", 2, FAILURE),
    errors.StepTimeoutError("charge", "3", 1, FAILURE, 10.0),
    errors.WaitTimeoutError("approval", 172_800.0),
    errors.RunFailedError("run-1", "signup", FAILURE),
    errors.RunCancelledError("run-1", "signup"),
    errors.PoisonError("run-1", 11),
    errors.ResultTimeoutError("run-1", "signup", 5.0),
    errors.RunConflictError("run-1", "another input"),
    errors.IdempotencyConflictError("signup", "signup:a@b.c"),
    errors.RunNotFoundError("run-1"),
    errors.WorkflowNotFoundError("signup", ("billing", "import")),
    errors.HookError("Metrics.step_started", "ValueError: no connection"),
    errors.TestRunIncompleteError("run-1", "waiting", "run 'run-1' of 'signup' waits for wait_event 'approval'"),
    errors.StorageError("claim a run", "disk I/O error"),
    errors.StorageAccessError("initialize", "unable to open database file"),
    errors.StorageFormatError("initialize", "file is not a database"),
    errors.StorageSchemaError("initialize", "version 7"),
    errors.StorageValueError("save_progress", "string or blob too big"),
]
each_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def subclasses(cls):
    """`cls` and everything below it in reflow.errors."""
    below = [sub for sub in cls.__subclasses__() if sub.__module__ == errors.__name__]
    return [cls, *(found for sub in below for found in subclasses(sub))]


def test_every_class_has_an_example_here():
    """The tests of this file cover every class of the tree."""
    assert set(subclasses(ReflowError)) == {type(error) for error in EXAMPLES}


def test_the_tree_in_the_docstring_is_the_tree():
    """The drawing at the top of errors.py names every class, each below its base."""
    drawn, path = {}, []
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ((?:\|   |    )*)(\+-- )?([A-Z]\w+)(  .*)?$", line):
            depth = len(match[1]) // 4 + bool(match[2])
            path[depth:] = [match[3]]
            drawn[match[3]] = path[depth - 1] if depth else None
    actual = {cls.__name__: cls.__bases__[0].__name__ for cls in subclasses(ReflowError)}
    actual |= {"ReflowError": None, "WorkflowCancelled": None}

    assert actual == drawn


def test_every_class_has_a_code_of_its_own():
    """[174] Codes are distinct, and no class only inherits one."""
    codes = [vars(cls)["code"] for cls in subclasses(ReflowError)]

    assert len(codes) == len(set(codes))


def test_codes_are_stable():
    """[174] Codes are compared across processes and versions, so they never change."""
    assert {
        "ReflowError": "reflow",
        "ConfigError": "config",
        "DuplicateWorkflowError": "duplicate_workflow",
        "MisuseError": "misuse",
        "NonDeterminismError": "nondeterminism",
        "ValidationError": "validation",
        "SerializationError": "serialization",
        "StepFailedError": "step_failed",
        "StepTimeoutError": "step_timeout",
        "WaitTimeoutError": "wait_timeout",
        "RunFailedError": "run_failed",
        "RunCancelledError": "run_cancelled",
        "PoisonError": "poison",
        "ResultTimeoutError": "result_timeout",
        "RunConflictError": "run_conflict",
        "IdempotencyConflictError": "idempotency_conflict",
        "RunNotFoundError": "run_not_found",
        "WorkflowNotFoundError": "workflow_not_found",
        "HookError": "hook",
        "TestRunIncompleteError": "test_run_incomplete",
        "StorageError": "storage",
        "StorageAccessError": "storage_access",
        "StorageFormatError": "storage_format",
        "StorageSchemaError": "storage_schema",
        "StorageValueError": "storage_value",
    } == {cls.__name__: cls.code for cls in subclasses(ReflowError)}


@each_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error, protocol):
    """[174] Class, message, arguments and every field come back from a pickle."""
    again = pickle.loads(pickle.dumps(error, protocol))

    assert (type(error), str(error), error.args, vars(error)) == (type(again), str(again), again.args, vars(again))


@each_error
def test_an_error_survives_copying(error):
    """A copy has the same class, message and fields."""
    again = copy(error)

    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))


def test_a_class_of_ones_own_survives_pickling():
    """[174] A subclass with a constructor of its own comes back as well."""
    again = pickle.loads(pickle.dumps(QuotaError(7)))

    assert (QuotaError, 7, "7 left") == (type(again), again.left, str(again))


class QuotaError(ReflowError):
    """A subclass as a user writes it."""

    def __init__(self, left):
        super().__init__(f"{left} left")
        self.left = left


@each_error
def test_to_dict_is_plain_data(error):
    """[174] to_dict() has type, code, message and every field, and can be written as JSON."""
    described = error.to_dict()
    JsonCodec().encode(described)

    assert {"type": type(error).__name__, "code": error.code, "message": str(error), "causes": []} == {
        name: described[name] for name in ("type", "code", "message", "causes")
    }
    assert {name for name in vars(error) if not name.startswith("_")} <= set(described)


def test_to_dict_shows_the_failure():
    """A failure inside is plain data too, its causes included."""
    assert {
        "type": "CardDeclined",
        "code": None,
        "message": "no funds",
        "traceback": "Traceback ...",
        "position": "3",
        "causes": [
            {"type": "TimeoutError", "code": None, "message": "", "traceback": "", "position": None, "causes": []}
        ],
    } == errors.RunFailedError("run-1", "signup", FAILURE).to_dict()["failure"]


def raised(error, cause=None, *, context=None):
    """`error` as it is caught after `raise error from cause`, or while handling `context`."""
    try:
        try:
            if context is not None:
                raise context
        finally:
            if cause is not None:
                raise error from cause
            raise error
    except ReflowError as caught:
        return caught


def test_to_dict_has_the_chain_of_causes():
    """[174] Causes are described one inside the other, Reflow's own with their fields."""
    middle = raised(errors.RunNotFoundError("r"), KeyError("k"))
    chain = raised(errors.StorageError("get a run", "x"), middle).to_dict()["causes"]

    assert [
        {
            "type": "RunNotFoundError",
            "code": "run_not_found",
            "message": str(middle),
            "run_id": "r",
            "causes": [{"type": "KeyError", "code": None, "message": "'k'", "causes": []}],
        }
    ] == chain


def test_to_dict_has_what_was_being_handled():
    """Without `raise ... from`, what was being handled is the cause; `from None` leaves it out."""
    implicit = raised(errors.ConfigError("x"), context=KeyError("k"))
    suppressed = raised(errors.ConfigError("x"), context=KeyError("k"))
    suppressed.__suppress_context__ = True

    assert (["KeyError"], []) == (
        [cause["type"] for cause in implicit.to_dict()["causes"]],
        suppressed.to_dict()["causes"],
    )


def test_messages_say_what_to_do():
    """A message names what is wrong, where, and what to do about it."""
    messages = {type(error).__name__: str(error) for error in EXAMPLES}

    assert [
        "two workflows are called 'signup' in version 2; rename one with @workflow(name=...), "
        "or give the newer one a higher version=",
        "a generator was yielded (app.py:12)",
        "the code no longer matches the journal at position 4.2: recorded step 'charge', now step 'refund' "
        "(app.py:12). No step was run. Mend the code and resume the run, or give changed code a new version= and keep "
        "the old one for the runs that began with it",
        "input of workflow 'signup': Expected `int`, got `str` (at $.user.age)",
        "step 'charge' failed after 2 attempts: CardDeclined: no funds",
        "step 'charge' failed after 1 attempt: CardDeclined: no funds",
        "run 'run-1' of 'signup' failed: CardDeclined: no funds",
        "this engine does not know the workflow 'signup'; add it to Engine(storage, [...]). It knows: billing, import",
    ] == [
        messages[name]
        for name in (
            "DuplicateWorkflowError",
            "MisuseError",
            "NonDeterminismError",
            "ValidationError",
            "StepFailedError",
            "StepTimeoutError",
            "RunFailedError",
            "WorkflowNotFoundError",
        )
    ]


def test_an_engine_that_knows_nothing_says_so():
    """The list of known workflows reads well when it is empty, and where there is none."""
    assert str(errors.WorkflowNotFoundError("signup", ())).endswith("It knows: none")
    assert "a client has no code of 'signup'" in str(errors.WorkflowNotFoundError("signup", None))


def test_a_failed_step_tells_about_its_error():
    """[177] Type name, message and traceback of what the step raised are fields of their own."""
    error = errors.StepFailedError("charge", "3", 2, FAILURE)

    assert ("CardDeclined", "no funds", "Traceback ...") == (error.error_type, error.error_message, error.traceback)


class PaymentError(Exception):
    """Known to the journal by name only."""


@pytest.mark.parametrize(
    ("cls", "expected"),
    [(PaymentError, True), (Exception, True), (TimeoutError, True), (OSError, True), (ValueError, False)],
)
@pytest.mark.parametrize(
    "error", [errors.StepFailedError("charge", "3", 2, FAILURE), errors.RunFailedError("run-1", "signup", FAILURE)]
)
def test_is_caused_by_looks_along_the_chain(error, cls, expected):
    """is_caused_by compares class names, base classes and causes included."""
    assert expected == error.is_caused_by(cls)


def test_a_failure_without_a_message_is_its_type():
    """An exception without a message is described by its class alone."""
    assert ("TimeoutError", "ValueError: x") == (
        str(Failure(type="TimeoutError", message="")),
        str(Failure(type="ValueError", message="x")),
    )


def test_cancellation_is_not_an_exception():
    """`except Exception` does not catch a cancellation, which is no ReflowError either."""
    assert (False, False) == (issubclass(WorkflowCancelled, Exception), issubclass(WorkflowCancelled, ReflowError))


def test_cancellation_survives_pickling():
    """A cancellation can be sent between processes."""
    assert WorkflowCancelled is type(pickle.loads(pickle.dumps(WorkflowCancelled())))


LINES = 'Traceback ...\n  File "app.py", line {0}, in {1}\n    ...\n  File "lib.py", line 1, in f\n{2}: no\n'
BODY = Failure("Picky", "no", LINES.format(7, "charge", "Picky"))
STEP = Failure("StepFailedError", "no", LINES.format(12, "pay", "StepFailedError"), causes=(BODY,), code="step_failed")
CHILD = Failure("RunFailedError", "no", LINES.format(19, "parent", "RunFailedError"), causes=(STEP,), code="run_failed")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (BODY, "app.py:7 in charge"),
        (STEP, "app.py:7 in charge"),
        (CHILD, "app.py:7 in charge"),
        (Failure("KeyError", "no", LINES.format(12, "pay", "KeyError"), causes=(BODY,)), "app.py:12 in pay"),
        (Failure("StepFailedError", "no", STEP.traceback, causes=(FAILURE,), code="step_failed"), "app.py:12 in pay"),
        (FAILURE, None),
    ],
)
def test_where_a_failure_was(failure, expected):
    """A failure is where its traceback begins; that of a step or child run in its body, where that is known. The text
    of a failed run says so, and its message, which is the same wherever the code lies, does not."""
    error = errors.RunFailedError("run-1", "signup", failure)

    assert expected == failure.location
    assert error.message + (f" ({expected})" if expected else "") == str(error)


def test_a_place_is_not_said_twice():
    """Where the message has file and line already, the text of a failed run does not repeat them."""
    error = errors.RunFailedError("run-1", "signup", Failure("MisuseError", "wrong (app.py:7)", BODY.traceback))

    assert error.message == str(error)


def test_the_whole_traceback_begins_with_the_first_cause():
    """The tracebacks of a failure and its causes are told in the order in which they happened; a group tells those of
    its members itself."""
    group = Failure("ExceptionGroup", "two", "the group\n", ("ExceptionGroup", "BaseExceptionGroup"), (BODY, STEP))

    assert f"{BODY.traceback}\nwhich led to:\n\n{STEP.traceback}" == STEP.full_traceback
    assert ["the group\n", BODY.traceback] == [group.full_traceback, Failure("A", "", causes=(BODY,)).full_traceback]


def test_a_failed_run_shows_its_own_traceback():
    """An uncaught RunFailedError shows where the workflow failed, also after pickling."""
    error = errors.RunFailedError("run-1", "signup", FAILURE)

    assert ["\nThe run's own traceback:\n\nTraceback ..."] * 2 == [
        *error.__notes__,
        *pickle.loads(pickle.dumps(error)).__notes__,
    ]
