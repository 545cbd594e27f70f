"""Exceptions to plain data and back.

A failure is recorded by names and text, so it needs no import to be read. Only the classes a step lists in `raises=`
are built again, and only where their plain-data `args` give the same exception: that is tried when the failure is
recorded, so that live and replay agree. Errors of Reflow's own that are the outcome of a wait or a child are built
again by their code.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, cast

from msgspec.structs import replace

from reflow._core.journal import Entry
from reflow.codec import Codec, MsgpackCodec
from reflow.errors import (
    Failure,
    ReflowError,
    RunCancelledError,
    RunConflictError,
    RunFailedError,
    SerializationError,
    StepFailedError,
    StepTimeoutError,
    ValidationError,
    WaitTimeoutError,
)

__all__ = ["capture", "capture_for", "raised_by", "read_failure"]

_DEEPEST_CAUSE = 10
_LONGEST_TRACEBACK = 20_000
_NOT_THE_USERS = frozenset({"reflow", "anyio"})
_HERE = __file__.rpartition("_core")[0]

# What a wait, a child or a spawn may end with, and the fields it is made of.
_REBUILT: dict[type[ReflowError], tuple[str, ...]] = {
    WaitTimeoutError: ("event", "limit_s"),
    ValidationError: ("subject", "reason", "path"),
    SerializationError: ("subject", "reason", "path"),
    RunFailedError: ("run_id", "workflow"),
    RunCancelledError: ("run_id", "workflow"),
    RunConflictError: ("run_id", "difference"),
}
_BY_CODE = {cls.code: cls for cls in _REBUILT}
_PLAIN = MsgpackCodec()


def capture(error: BaseException, *, position: str | None = None) -> Failure:
    """`error` and its causes as plain data. `position` is where the body was, for an error that knows no place."""
    return _capture(error, position, _DEEPEST_CAUSE)


def read_failure(data: bytes | None, codec: Codec, subject: str) -> Failure:
    """The failure that was stored; `SerializationError` that names `subject` where it is none."""
    try:
        failure: Failure = codec.decode(data or b"", Failure)
    except SerializationError as error:
        raise error.about(subject) from None
    return failure


def capture_for(raises: tuple[type[BaseException], ...], error: BaseException, codec: Codec) -> Failure:
    """`error` as plain data, with its `args` where `raises` lists its class and they give the same exception again."""
    failure = capture(error)
    cls = _listed_class(raises, failure)
    # By name alone it could be another class that happens to be called the same.
    if cls is None or not isinstance(error, cls):
        return failure
    try:
        args = tuple(codec.decode(codec.encode(error.args), list))
        again = cls(*args)
        faithful = again.args == error.args and str(again) == str(error)
    except Exception:
        # Whatever a foreign constructor does: this exception cannot be rebuilt.
        return failure
    return replace(failure, args=args) if faithful else failure


def raised_by(entry: Entry, failure: Failure, raises: tuple[type[BaseException], ...] = ()) -> BaseException:
    """The exception to raise at the `yield` of the command whose outcome is `entry`, a failed one.

    `raises` are the classes that a step lists. `SerializationError` where the failure says that it is an error of
    Reflow's own, and it cannot be.
    """
    if entry.kind != "step" and (error := _rebuilt(failure)):
        error.raised_at = entry.position
        return error
    if failure.code == StepTimeoutError.code and failure.args:
        return StepTimeoutError(entry.name, entry.position, entry.attempts, failure, failure.args[0])
    failed = StepFailedError(entry.name, entry.position, entry.attempts, failure)
    if failure.args is None or (cls := _listed_class(raises, failure)) is None:
        return failed
    try:
        again = cls(*failure.args)
    except Exception:
        # It could be built when the failure was recorded; the class has changed since.
        return failed
    again.__cause__ = failed
    return again


def _rebuilt(failure: Failure) -> ReflowError | None:
    cls: Any = _BY_CODE.get(failure.code or "")
    if cls is None or failure.args is None:
        return None
    args: tuple[Any, ...] = (*failure.args, *failure.causes) if cls is RunFailedError else failure.args
    try:
        return cast("ReflowError", cls(*args))
    except (TypeError, ValueError) as error:
        raise SerializationError("value", f"these make no {cls.__name__}: {error}", "$.args") from None


def _listed_class(raises: tuple[type[BaseException], ...], failure: Failure) -> type[BaseException] | None:
    """The listed class nearest to what was raised."""
    by_name = {cls.__name__: cls for cls in reversed(raises)}
    return next((by_name[base] for base in failure.bases if base in by_name), None)


def _capture(error: BaseException, position: str | None, depth: int) -> Failure:
    raised_at = _raised_at(error)
    return Failure(
        type=type(error).__name__,
        message=_message(error),
        traceback=_traceback(error),
        bases=tuple(cls.__name__ for cls in type(error).__mro__ if cls is not object),
        causes=tuple(_causes(error, depth - 1)) if depth else (),
        code=error.code if isinstance(error, ReflowError) else None,
        position=raised_at or position,
        args=_args(error),
        raised_at=raised_at,
    )


def _raised_at(error: BaseException) -> str | None:
    if isinstance(error, StepFailedError):
        return error.position
    return error.raised_at if isinstance(error, ReflowError) else None


def _args(error: BaseException) -> tuple[Any, ...] | None:
    fields: tuple[str, ...] | None = ("limit_s",) if isinstance(error, StepTimeoutError) else None
    if isinstance(error, ReflowError):
        fields = _REBUILT.get(type(error), fields)
    if fields is None:
        return None
    args = tuple(getattr(error, name) for name in fields)
    try:
        _PLAIN.encode(args)
    except SerializationError:
        # Raised by a user, who may put anything in it.
        return None
    return args


def _causes(error: BaseException, depth: int) -> list[Failure]:
    if isinstance(error, (StepFailedError, RunFailedError)):
        return [error.failure]
    causes: list[BaseException] = []
    if isinstance(error, BaseExceptionGroup):
        causes.extend(cast("BaseExceptionGroup[BaseException]", error).exceptions)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        causes.append(cause)
    return [_capture(cause, None, depth) for cause in causes]


def _message(error: BaseException) -> str:
    try:
        text = error.message if isinstance(error, RunFailedError) else str(error)
    except Exception:
        text = f"<a {type(error).__name__} whose message cannot be read>"
    # What UTF-8 cannot carry must not keep a failure from being recorded.
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback(error: BaseException) -> str:
    """The traceback from the first line that is the user's. Where Reflow raised an error of its own is left out."""
    at: TracebackType | None = error.__traceback__
    while at is not None and at.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        at = at.tb_next
    try:
        told = traceback.TracebackException(type(error), error, at)
        if isinstance(error, ReflowError):
            told.stack = traceback.StackSummary.from_list(
                [frame for frame in told.stack if not frame.filename.startswith(_HERE)]
            )
        if isinstance(error, RunFailedError):
            # Its note is what it was made of, which is among the causes.
            told.__notes__ = None
        text = "".join(told.format(chain=False))
    except Exception:
        text = ""
    return text[-_LONGEST_TRACEBACK:].encode("utf-8", "backslashreplace").decode()
