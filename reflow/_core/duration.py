"""Durations: seconds, `timedelta` or text such as `"1h30m"`, as whole microseconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from reflow.errors import ConfigError

__all__ = ["Duration", "from_micros", "to_instant", "to_micros", "to_positive_micros"]

Duration: TypeAlias = float | timedelta | str
"""Seconds (int or float), a `timedelta`, or text of numbers with units: `"500ms"`, `"30s"`, `"1h30m"`, `"14d"`."""

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(us|ms|s|m|h|d|w)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Two thousand years: beyond what a calendar can add to today, and far inside 64 bits.
_LONGEST = 2_000 * 366 * _UNITS["d"]


def to_micros(duration: Duration, *, what: str = "a duration") -> int:
    """`duration` in whole microseconds, rounded to the nearest.

    `what` names the setting in the message of the `ConfigError` raised for anything negative, non-finite, unit-less
    text, unknown units or other types.
    """
    try:
        micros = _parse(duration)
    except (ValueError, OverflowError):
        micros = -1
    if not 0 <= micros <= _LONGEST:
        raise ConfigError(
            f"{what} is {duration!r}; write seconds (30 or 0.5), a timedelta, or text such as '500ms', '1h30m', '14d'"
        )
    return micros


def to_positive_micros(duration: Duration, *, what: str) -> int:
    """As `to_micros`, of a limit, which cannot be nothing."""
    micros = to_micros(duration, what=what)
    if micros == 0:
        raise ConfigError(f"{what} is {duration!r}; it must be longer than nothing")
    return micros


def _parse(duration: Duration) -> int:
    match duration:
        case bool():
            raise ValueError
        case int() | float():
            if not math.isfinite(duration):
                raise ValueError
            return round(duration * 1_000_000)
        case timedelta():
            return duration // _MICROSECOND
        case str():
            return _parse_text(duration.strip())
        case _:
            raise ValueError


def _parse_text(text: str) -> int:
    at, total = 0, 0.0
    while match := _PART.match(text, at):
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if at == 0 or at != len(text):
        raise ValueError
    return round(total)


def to_instant(moment: datetime, *, what: str) -> int:
    """`moment` in microseconds since 1970 UTC; `ConfigError` for a naive one, which names no instant."""
    if not isinstance(moment, datetime) or moment.tzinfo is None or moment.utcoffset() is None:
        raise ConfigError(f"{what} is {moment!r}; write an aware datetime, such as datetime.now(timezone.utc)")
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(instant: int) -> datetime:
    """The aware UTC datetime of an instant in microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=instant)
