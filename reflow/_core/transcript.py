"""A run as text that can be kept, read and compared: JSON lines, the first about the run, then one for each entry.

    {"transcript":1,"rules":1,"workflow":"signup","version":1,"run_id":"r","status":"completed","input":{...},...}
    {"position":"0","kind":"step","name":"create_account","value":4711}
    {"position":"1","kind":"step","name":"charge_card","attempts":2,"failure":{"type":"CardDeclined",...}}

It has what replay reads, and no more: no instants and no tracebacks, so that a diff shows what matters. Values stand
there as JSON. Where JSON cannot say exactly what was stored (bytes, instants, keys that are no text), the line has that
too, or only that, under a name that ends in `_bytes`, and that is what is read. A command that had no outcome yet has a
line with `due_at`; it comes last.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from reflow._core.journal import Entry, Journal, Timer
from reflow._core.status import RunStatus
from reflow.codec import MsgpackCodec
from reflow.errors import ConfigError, SerializationError

__all__ = ["CODEC", "Transcript"]


class _TranscriptCodec(MsgpackCodec):
    """Msgpack, of which a part may have been JSON: bytes stand there as text, and so do all keys."""

    def decode(self, data: bytes, type: Any) -> Any:
        """The value of `data` as a `type`; `SerializationError` with the path where it does not fit."""
        try:
            return super().decode(data, type)
        except SerializationError:
            with suppress(ValueError):
                return msgspec.convert(super().decode(data, Any), type, str_keys=True)
            raise


CODEC = _TranscriptCodec()
"""How the values of a transcript are encoded, whatever codec the run was stored with."""

_FORMAT = 1

T = TypeVar("T")

_Bytes: TypeAlias = bytes | UnsetType


class Transcript(Struct, frozen=True, kw_only=True):
    """All that replay reads of a run: its workflow, its input, its journal, and how it ended. `str` gives its lines,
    `parse` reads them."""

    workflow: str
    version: int
    rules: int
    run_id: str
    generation: int
    status: RunStatus
    input: bytes
    output: bytes | None
    error: bytes | None
    entries: tuple[Entry, ...]
    timers: tuple[Timer, ...]

    @property
    def journal(self) -> Journal:
        """What replay is given."""
        return Journal(list(self.entries), list(self.timers))

    def __str__(self) -> str:
        lines = [_head(self), *map(_entry_line, self.entries), *map(_timer_line, self.timers)]
        return "".join(msgspec.json.encode(line).decode() + "\n" for line in lines)

    @classmethod
    def parse(cls, text: str) -> Transcript:
        """The transcript that these lines are; `ConfigError` where they are none, or of a later Reflow."""
        first, *rest = text.rstrip("\n").split("\n")
        head = _read(first, _Head, 1)
        if head.transcript != _FORMAT:
            raise ConfigError(f"a transcript of format {head.transcript}; this Reflow reads format {_FORMAT}")
        lines = [_read(line, _Line, number) for number, line in enumerate(rest, 2)]
        return cls(
            workflow=head.workflow,
            version=head.version,
            rules=head.rules,
            run_id=head.run_id,
            generation=head.generation,
            status=head.status,
            input=_stored(head.input, head.input_bytes) or b"",
            output=_stored(head.output, head.output_bytes),
            error=_stored(head.error, head.error_bytes),
            entries=tuple(_entry(line) for line in lines if line.due_at is UNSET),
            timers=tuple(_timer(line, line.due_at) for line in lines if line.due_at is not UNSET),
        )


def _read(text: str, type: type[T], number: int) -> T:
    try:
        line = msgspec.json.decode(text, type=type)
        CODEC.encode(msgspec.to_builtins(line))  # JSON has numbers that no stored value has
    except (SerializationError, RecursionError, ValueError) as error:
        raise ConfigError(f"line {number} is no line of a transcript: {error}") from None
    return line


# ---- lines -----------------------------------------------------------------------------------------------------------


class _Head(Struct, omit_defaults=True):
    transcript: int
    rules: int
    workflow: str
    version: int
    run_id: str
    status: RunStatus
    generation: int = 0
    input: Any = UNSET
    input_bytes: _Bytes = UNSET
    output: Any = UNSET
    output_bytes: _Bytes = UNSET
    error: Any = UNSET
    error_bytes: _Bytes = UNSET


class _Line(Struct, omit_defaults=True):
    position: str
    kind: str
    name: str
    attempts: int = 1
    due_at: int | UnsetType = UNSET
    arguments: _Bytes = UNSET
    value: Any = UNSET
    value_bytes: _Bytes = UNSET
    failure: Any = UNSET
    failure_bytes: _Bytes = UNSET


def _head(run: Transcript) -> _Head:
    return _Head(
        _FORMAT,
        run.rules,
        run.workflow,
        run.version,
        run.run_id,
        run.status,
        run.generation,
        *_said(run.input),
        *_said(run.output),
        *_said(run.error),
    )


def _entry_line(entry: Entry) -> _Line:
    line = _Line(entry.position, entry.kind, entry.name, entry.attempts, arguments=entry.digest or UNSET)
    if entry.failed:
        line.failure, line.failure_bytes = _said(entry.payload)
    else:
        line.value, line.value_bytes = _said(entry.payload)
    return line


def _timer_line(timer: Timer) -> _Line:
    line = _Line(timer.position, timer.kind, timer.name, timer.attempts, timer.due_at)
    line.failure, line.failure_bytes = _said(timer.failure)
    return line


def _entry(line: _Line) -> Entry:
    failure = _stored(line.failure, line.failure_bytes)
    payload = _stored(line.value, line.value_bytes) if failure is None else failure
    digest = line.arguments or None
    return Entry(line.position, line.kind, line.name, failure is not None, payload or b"", line.attempts, 0, 0, digest)


def _timer(line: _Line, due_at: int) -> Timer:
    failure = _stored(line.failure, line.failure_bytes)
    return Timer(line.position, line.kind, line.name, due_at, line.attempts, 0, failure)


def _said(data: bytes | None) -> tuple[Any, _Bytes]:
    """Stored bytes as JSON and, where that does not say all, as they are."""
    if not data:
        return UNSET, UNSET
    try:
        text = msgspec.json.encode(CODEC.decode(data, Any))
        is_exact = CODEC.encode(msgspec.json.decode(text)) == data
    except (SerializationError, RecursionError, TypeError, ValueError):
        # Keys that JSON does not have, such as tuples; or what is stored is damaged.
        return UNSET, data
    return msgspec.Raw(text), UNSET if is_exact else data


def _stored(value: Any, exact: _Bytes) -> bytes | None:
    if not isinstance(exact, UnsetType):
        return exact
    return None if value is UNSET else CODEC.encode(value)
