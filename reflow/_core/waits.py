"""Waiting: `sleep` and `sleep_until` for a time, `wait_event` for what is sent to the run from outside."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from reflow._core.command import Command, checked_name
from reflow._core.duration import Duration, to_instant, to_micros, to_positive_micros
from reflow._core.forgotten import noted
from reflow.codec import Codec
from reflow.errors import ConfigError, SerializationError, ValidationError

__all__ = ["Event", "Sleep", "WaitEvent", "sleep", "sleep_until", "wait_event"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Where an attribute or parameter is called so, `type` is not the builtin.
_Class: TypeAlias = type[T]


class Sleep(Command[None], frozen=True, weakref=True, eq=False):
    """A durable timer; made by `sleep`, which sets a duration, and `sleep_until`, which sets an instant."""

    kind: ClassVar[str] = "sleep"
    name: ClassVar[str] = "sleep"

    duration_us: int = 0
    until: int | None = None

    def wakes_at(self, arrived_at: int) -> int:
        """The instant at which it is over, where the run arrived at it at `arrived_at`."""
        return arrived_at + self.duration_us if self.until is None else self.until


def sleep(duration: Duration) -> Sleep:
    """A command that waits for `duration`, durably: the wake time is stored on first arrival, and the process need not
    stay alive. `ConfigError` for a duration that is none."""
    made = Sleep(duration_us=to_micros(duration, what="the duration of sleep"))
    noted(made)
    return made


def sleep_until(moment: datetime) -> Sleep:
    """A command that waits until `moment`, an aware datetime (a naive one is a `ConfigError`)."""
    made = Sleep(until=to_instant(moment, what="the moment of sleep_until"))
    noted(made)
    return made


# ---- events ----------------------------------------------------------------------------------------------------------


class Event(Generic[T]):
    """A name and the type of the payload that is sent under it, declared once for sender and receiver:
    `approval = Event("approval", Approval)`."""

    __slots__ = ("name", "type")

    name: str
    type: Any

    @overload
    def __init__(self, name: str, type: _Class[T]) -> None: ...
    @overload
    def __init__(self: Event[Any], name: str, type: Any = Any) -> None: ...
    def __init__(self, name: str, type: Any = Any) -> None:
        self.name = checked_name(name, "the name of an event")
        self.type = _checked_type(type)

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {getattr(self.type, '__name__', self.type)})"

    def encode(self, payload: T, codec: Codec) -> bytes:
        """`payload` as bytes, checked by the sender.

        Raises `SerializationError` where it is not data, `ValidationError` where it does not fit the declared type.
        """
        try:
            data = codec.encode(payload)
        except SerializationError as error:
            raise error.about(_payload_of(self.name)) from None
        _decoded(self.name, data, self.type, codec)
        return data


class WaitEvent(Command[T_co], frozen=True, weakref=True, eq=False):
    """The next event of a name that is sent to the run; made by `wait_event`."""

    kind: ClassVar[str] = "wait_event"

    name: str  # type: ignore[misc]
    type: Any
    timeout_us: int | None

    def decode(self, payload: bytes, codec: Codec) -> T_co:
        """What was sent, as the declared type; `ValidationError` where it does not fit."""
        return cast("T_co", _decoded(self.name, payload, self.type, codec))


@overload
def wait_event(event: Event[T], /, *, timeout: Duration | None = None) -> WaitEvent[T]: ...
@overload
def wait_event(event: str, /, type: _Class[T], *, timeout: Duration | None = None) -> WaitEvent[T]: ...
@overload
def wait_event(event: str, /, type: Any = Any, *, timeout: Duration | None = None) -> WaitEvent[Any]: ...
def wait_event(event: Event[Any] | str, /, type: Any = Any, *, timeout: Duration | None = None) -> WaitEvent[Any]:
    """A command that waits for the next event of this name and gives its payload.

    `event` is an `Event`, or a name and the type of the payload (default: any data). Events are taken oldest first,
    each once; one that was sent before is taken at once. If none comes within `timeout`, `WaitTimeoutError` is raised;
    where a payload does not fit the type, `ValidationError`. A body may catch either and wait again.

    Raises `ConfigError` for a name or a type that is none, and a timeout that is none or nothing.
    """
    if isinstance(event, Event):
        if type is not Any:
            raise ConfigError(f"{event!r} has a type of its own; write wait_event(event), or wait_event(name, type)")
        name, expected = event.name, event.type
    else:
        name, expected = checked_name(event, "the name of an event"), _checked_type(type)
    limit = None if timeout is None else to_positive_micros(timeout, what="timeout")
    made: WaitEvent[Any] = WaitEvent(name, expected, limit)
    noted(made)
    return made


def _checked_type(type: Any) -> Any:
    if isinstance(type, (str, int, float, timedelta)):
        raise ConfigError(f"the type of an event is {type!r}; write a type, and a limit by its name: timeout='48h'")
    return type


def _decoded(name: str, data: bytes, type: Any, codec: Codec) -> Any:
    try:
        return codec.decode(data, type)
    except SerializationError as error:
        raise ValidationError(_payload_of(name), error.reason, error.path) from None


def _payload_of(name: str) -> str:
    return f"payload of event {name!r}"
