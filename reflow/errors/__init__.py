"""Every error Reflow raises, and the plain-data form in which errors are stored.

    ReflowError
    +-- ConfigError                 a definition, option or argument of yours is wrong; raised where you wrote it
    |   +-- DuplicateWorkflowError  two workflows of one name and version
    +-- MisuseError                 a workflow body did something a workflow body cannot do
    +-- NonDeterminismError         the code no longer matches the run's journal
    +-- ValidationError             an input, or what was sent to a run, does not fit its annotated type
    +-- SerializationError          a value is not data, or stored data no longer fits its type
    +-- StepFailedError             a step failed for good; raised at its `yield`
    |   +-- StepTimeoutError        its last attempt ran out of time
    +-- WaitTimeoutError            no event came in time; raised at the `yield` of `wait_event`
    +-- RunFailedError              what `await run.result()` raises for a failed run, and the `yield` of a child run
    +-- RunCancelledError           the same, for a cancelled one
    +-- ResultTimeoutError          `result(timeout=...)` was over before the run; a builtin TimeoutError too
    +-- PoisonError                 a run that kills every process that takes it up
    +-- RunConflictError            the run id is taken by a run with another workflow or input
    +-- IdempotencyConflictError    the idempotency key belongs to a run with another input
    +-- RunNotFoundError            no run has this id
    +-- WorkflowNotFoundError       the engine was not given this workflow
    +-- HookError                   a hook raised; reported, and nothing else follows
    +-- TestRunIncompleteError      a run under test still waits, and nothing more can happen
    +-- StorageError                the storage could not do what it was asked; the run is not harmed
        +-- StorageAccessError      missing directory, missing permission, read-only file
        +-- StorageFormatError      the file is not a database, or is damaged
        +-- StorageSchemaError      the tables were written by a newer Reflow
        +-- StorageValueError       a value that the storage cannot keep, however often it is asked

Control flow derives from BaseException, so that `except Exception` in a workflow cannot swallow it:

    WorkflowCancelled               thrown at the current `yield` of a branch or run that is being cancelled

Each class has a stable `code` (compare that, not messages, across processes), typed fields, a message that says what
to do, `to_dict()`, and survives pickling.
"""

from __future__ import annotations

from typing import Any, ClassVar

from reflow.errors.failure import Failure

__all__ = [
    "ConfigError",
    "DuplicateWorkflowError",
    "Failure",
    "HookError",
    "IdempotencyConflictError",
    "MisuseError",
    "NonDeterminismError",
    "PoisonError",
    "ReflowError",
    "ResultTimeoutError",
    "RunCancelledError",
    "RunConflictError",
    "RunFailedError",
    "RunNotFoundError",
    "SerializationError",
    "StepFailedError",
    "StepTimeoutError",
    "StorageAccessError",
    "StorageError",
    "StorageFormatError",
    "StorageSchemaError",
    "StorageValueError",
    "TestRunIncompleteError",
    "ValidationError",
    "WaitTimeoutError",
    "WorkflowCancelled",
    "WorkflowNotFoundError",
]


class ReflowError(Exception):
    """The root of every error that Reflow raises for you to see.

    `raised_at` is the position of the command at whose `yield` it was raised, where it is that command's outcome.
    """

    code: ClassVar[str] = "reflow"
    raised_at: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take fields, not a message, so the default (call the class with `args`) would not bring them back.
        return _restore, (type(self), self.args, self.__dict__)

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data: `type`, `code`, `message`, every field, and `causes`, a list of the same shape."""
        fields = {name: _plain(value) for name, value in vars(self).items() if not name.startswith("_")}
        cause = self.__cause__ or (None if self.__suppress_context__ else self.__context__)
        return {"type": type(self).__name__, "code": self.code, **fields, "causes": _causes_to_dicts(cause)}


def _restore(cls: type[ReflowError], args: tuple[Any, ...], fields: dict[str, Any]) -> ReflowError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(fields)
    return error


def _causes_to_dicts(cause: BaseException | None) -> list[dict[str, Any]]:
    if isinstance(cause, ReflowError):
        return [cause.to_dict()]
    plain: dict[str, Any] = {"type": type(cause).__name__, "code": None, "message": str(cause), "causes": []}
    return [] if cause is None else [plain]


def _plain(value: object) -> object:
    if isinstance(value, Failure):
        fields = {name: getattr(value, name) for name in ("type", "code", "message", "traceback", "position")}
        return {**fields, "causes": [_plain(cause) for cause in value.causes]}
    return value


class ConfigError(ReflowError):
    """A definition, option or argument is wrong. The message quotes it and says what to write instead."""

    code = "config"


class DuplicateWorkflowError(ConfigError):
    """Two workflows of one name and version were given to one engine."""

    code = "duplicate_workflow"

    def __init__(self, workflow: str, version: int) -> None:
        super().__init__(
            f"two workflows are called {workflow!r} in version {version}; rename one with @workflow(name=...), "
            "or give the newer one a higher version="
        )
        self.workflow = workflow
        self.version = version


class MisuseError(ReflowError):
    """A workflow body did what a workflow body cannot do, such as yielding a coroutine.

    It is raised outside the generator, so that the body cannot swallow it; the run is parked as `failed`.
    `location` is `file:line` of the yield or return.
    """

    code = "misuse"

    def __init__(self, problem: str, location: str) -> None:
        super().__init__(f"{problem} ({location})")
        self.problem = problem
        self.location = location


class NonDeterminismError(ReflowError):
    """The workflow's code no longer matches the journal of the run.

    Raised outside the generator, so that the body cannot swallow it. No step body runs and nothing recorded is lost:
    the run is parked as `failed` with this code. `recorded` and `yielded` describe the two commands; `location` is
    `file:line` of the yield or return at which they differ.
    """

    code = "nondeterminism"

    def __init__(self, position: str, recorded: str, yielded: str, location: str) -> None:
        super().__init__(
            f"the code no longer matches the journal at position {position}: recorded {recorded}, "
            f"now {yielded} ({location}). No step was run. Mend the code and resume the run, or give changed code a "
            "new version= and keep the old one for the runs that began with it"
        )
        self.position = position
        self.recorded = recorded
        self.yielded = yielded
        self.location = location


class ValidationError(ReflowError):
    """A value does not fit its annotated type; `path` says where in the value (`$.user.email`).

    Of an input or a declared event it is raised to who starts the run or sends the event, and nothing was stored; of an
    event that was sent by its bare name, at the `yield` of `wait_event`.
    """

    code = "validation"

    def __init__(self, subject: str, reason: str, path: str = "$") -> None:
        super().__init__(f"{subject}: {reason} (at {path})")
        self.subject = subject
        self.reason = reason
        self.path = path


class SerializationError(ReflowError):
    """A value cannot be stored, or stored bytes cannot be read as the type the code now declares.

    `subject` says which value (a step's result, a workflow's input), `path` where inside it.
    """

    code = "serialization"

    def __init__(self, subject: str, reason: str, path: str = "$") -> None:
        super().__init__(f"{subject}: {reason} (at {path})")
        self.subject = subject
        self.reason = reason
        self.path = path

    def about(self, subject: str) -> SerializationError:
        """The same error, said of `subject`."""
        return SerializationError(subject, self.reason, self.path)


class StepFailedError(ReflowError):
    """A step failed for good: its last attempt raised. Raised at the step's `yield`, live and on replay alike.

    `failure` is what was recorded of the exception. A workflow may catch this error and go on.
    """

    code = "step_failed"

    def __init__(self, step: str, position: str, attempts: int, failure: Failure) -> None:
        super().__init__(f"step {step!r} failed after {attempts} attempt{'s' * (attempts != 1)}: {failure}")
        self.step = step
        self.position = position
        self.attempts = attempts
        self.failure = failure

    @property
    def error_type(self) -> str:
        """The class name of what the step raised."""
        return self.failure.type

    @property
    def error_message(self) -> str:
        """The message of what the step raised."""
        return self.failure.message

    @property
    def traceback(self) -> str:
        """The step's traceback as text."""
        return self.failure.traceback

    def is_caused_by(self, cls: type[BaseException]) -> bool:
        """Whether the step raised a `cls`, or something caused by one; compared by class name, so that it also holds
        after a restart."""
        return self.failure.is_caused_by(cls)


class StepTimeoutError(StepFailedError):
    """The last attempt of a step took longer than its `timeout=`; `limit_s` is that limit in seconds."""

    code = "step_timeout"

    def __init__(self, step: str, position: str, attempts: int, failure: Failure, limit_s: float) -> None:
        super().__init__(step, position, attempts, failure)
        self.limit_s = limit_s


class WaitTimeoutError(ReflowError):
    """No event of this name came within the `timeout=` of `wait_event`; `limit_s` is that limit in seconds.

    A workflow may catch this error and go on.
    """

    code = "wait_timeout"

    def __init__(self, event: str, limit_s: float) -> None:
        super().__init__(f"no event {event!r} came within {limit_s:g} s")
        self.event = event
        self.limit_s = limit_s


class RunFailedError(ReflowError):
    """The awaited run failed; in a workflow, a child run at whose `yield` it is raised. `failure` has type, message,
    traceback and position as the run's row keeps them."""

    code = "run_failed"

    def __init__(self, run_id: str, workflow: str, failure: Failure) -> None:
        super().__init__(f"run {run_id!r} of {workflow!r} failed: {failure}")
        self.run_id = run_id
        self.workflow = workflow
        self.failure = failure
        # So that an uncaught one shows the lines of the step and the workflow, and not only where it was awaited.
        if text := failure.full_traceback:
            self.add_note(f"\nThe run's own traceback:\n\n{text}")

    def __str__(self) -> str:
        # What a body does wrong has its line already. At a `yield` nothing depends on where the code lies.
        place = (self.raised_at is None and self.failure.location) or ""
        return self.message if place.rpartition(" in ")[0] in self.message else f"{self.message} ({place})"

    def is_caused_by(self, cls: type[BaseException]) -> bool:
        """Whether the run failed with a `cls`, or with something caused by one; compared by class name."""
        return self.failure.is_caused_by(cls)


class RunCancelledError(ReflowError):
    """The awaited run was cancelled; in a workflow, a child run at whose `yield` it is raised."""

    code = "run_cancelled"

    def __init__(self, run_id: str, workflow: str) -> None:
        super().__init__(f"run {run_id!r} of {workflow!r} was cancelled")
        self.run_id = run_id
        self.workflow = workflow


class ResultTimeoutError(ReflowError, TimeoutError):
    """The run had not ended when the `timeout=` of `result` was over; `limit_s` is that limit in seconds.

    Only the waiting is over: the run goes on. It is a `TimeoutError` too, as `anyio.fail_after` raises it.
    """

    code = "result_timeout"

    def __init__(self, run_id: str, workflow: str, limit_s: float) -> None:
        super().__init__(f"run {run_id!r} of {workflow!r} has not ended within {limit_s:g} s; it goes on")
        self.run_id = run_id
        self.workflow = workflow
        self.limit_s = limit_s


class RunConflictError(ReflowError):
    """The run id is already taken by a run of another workflow, or of the same one with another input."""

    code = "run_conflict"

    def __init__(self, run_id: str, difference: str) -> None:
        super().__init__(f"run {run_id!r} exists already with {difference}; give the new run another run_id")
        self.run_id = run_id
        self.difference = difference


class IdempotencyConflictError(ReflowError):
    """The idempotency key belongs to a run of this workflow with another input. Nothing was stored."""

    code = "idempotency_conflict"

    def __init__(self, workflow: str, key: str) -> None:
        super().__init__(
            f"the idempotency key {key!r} belongs to a run of {workflow!r} with another input; "
            "give another input another key"
        )
        self.workflow = workflow
        self.key = key


class PoisonError(ReflowError):
    """The run was claimed `claims` times in a row without getting anywhere: whoever takes it up dies of it.

    It is parked as `failed` with this error, so that it cannot take the process down for ever.
    """

    code = "poison"

    def __init__(self, run_id: str, claims: int) -> None:
        super().__init__(
            f"run {run_id!r} was claimed {claims} times in a row and never got as far as a result; it kills its "
            "process, or its body computes for longer than a lease. Find out why, then resume it"
        )
        self.run_id = run_id
        self.claims = claims


class RunNotFoundError(ReflowError):
    """No run has this id in this storage."""

    code = "run_not_found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r} in this storage")
        self.run_id = run_id


class WorkflowNotFoundError(ReflowError):
    """The engine was not given this workflow, so it could never run it. Nothing was stored.

    `known` are the names of those that it was given; None for a client, which has the code of none.
    """

    code = "workflow_not_found"

    def __init__(self, workflow: str, known: tuple[str, ...] | None) -> None:
        advice = f"add it to Engine(storage, [...]). It knows: {', '.join(known or ()) or 'none'}"
        problem = f"this engine does not know the workflow {workflow!r}; {advice}"
        super().__init__(problem if known is not None else f"a client has no code of {workflow!r}; ask an engine")
        self.workflow = workflow
        self.known = known


class HookError(ReflowError):
    """A hook raised. It is reported, and changes nothing: hooks only look on.

    `source` says which hook, `cause` what it raised.
    """

    code = "hook"

    def __init__(self, source: str, cause: str) -> None:
        super().__init__(f"hook {source} raised {cause}; the run goes on as if it had not")
        self.source = source
        self.cause = cause


class TestRunIncompleteError(ReflowError):
    """A run under test still waits when nothing more can happen: no event is to come, and no timer within the limit.

    `waits_for` is the sentence of `why`.
    """

    code = "test_run_incomplete"
    # For pytest: this is no test, although it begins like one.
    __test__ = False

    def __init__(self, run_id: str, status: str, waits_for: str) -> None:
        super().__init__(f"the test is over and the run is still {status}: {waits_for}")
        self.run_id = run_id
        self.status = status
        self.waits_for = waits_for


class StorageError(ReflowError):
    """The storage could not carry out `verb`; `reason` is the driver's text. No run fails because of it, but for a
    `StorageValueError`."""

    code = "storage"

    def __init__(self, verb: str, reason: str) -> None:
        super().__init__(f"storage could not {verb}: {reason}")
        self.verb = verb
        self.reason = reason


class StorageAccessError(StorageError):
    """The file or its directory is missing, read-only, or not ours to open."""

    code = "storage_access"


class StorageFormatError(StorageError):
    """The file is not a database, or it is damaged. It was left as it is."""

    code = "storage_format"


class StorageSchemaError(StorageError):
    """The tables were written by a newer version of Reflow. They were left as they are."""

    code = "storage_schema"


class StorageValueError(StorageError):
    """A value that the storage cannot keep, such as one that is too large; to ask again is of no use.

    A step whose result it is fails with a `SerializationError`; a run that cannot be written otherwise, with this one.
    """

    code = "storage_value"


class WorkflowCancelled(BaseException):
    """Thrown at the current `yield` of a branch that lost, or of a run that is being cancelled.

    `finally` and `except` blocks may yield clean-up steps, which are durable. It derives from BaseException, so that
    `except Exception` does not swallow it; let it pass after cleaning up. A run that was cancelled ends as `cancelled`
    also where its body does not let it pass, unless clean-up raises another error.
    """
