"""When to try a failed step again: arithmetic only.

The next attempt is a function of the policy, the attempts used, the failure and a random number handed in, so that the
engine can record the decision and a replay never takes it twice.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import force_setattr

from reflow._core.duration import Duration, to_micros
from reflow.errors import ConfigError

__all__ = ["Backoff", "Retry", "next_delay"]

Backoff: TypeAlias = Literal["constant", "linear", "exponential"]


class _Attempts(Struct, frozen=True):
    """The one setting that needs no name: `Retry(5)`."""

    max_attempts: int = 3


class Retry(_Attempts, frozen=True, kw_only=True):
    """How often and how far apart a failing step is tried again.

    `max_attempts` counts the first one. Before attempt n+1 there is a wait of up to `initial_delay` times 1
    (`"constant"`), n (`"linear"`) or 2**(n-1) (`"exponential"`), never above `max_delay`. With `jitter` (the default)
    the wait is a random part of that, from nothing to all ("full jitter": Brooker, "Exponential Backoff And Jitter",
    2015), so that many failing runs do not come back in step. Exceptions of a class in `give_up_on` are not tried
    again. An exception with an attribute `retry_after` (seconds, timedelta or text) sets the wait itself.

    Raises `ConfigError` for `max_attempts` < 1, an unknown `backoff`, or a delay that is none.
    """

    backoff: Backoff = "exponential"
    initial_delay: Duration = 1.0
    max_delay: Duration = 3600.0
    jitter: bool = True
    give_up_on: type[BaseException] | tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ConfigError(f"max_attempts is {self.max_attempts!r}; write a whole number from 1 up")
        if self.backoff not in get_args(Backoff):
            raise ConfigError(f"backoff is {self.backoff!r}; write one of {', '.join(map(repr, get_args(Backoff)))}")
        for name in ("initial_delay", "max_delay"):
            # Parsed once, here, so that a wrong one is refused where it is written; kept as seconds.
            force_setattr(self, name, to_micros(getattr(self, name), what=name) / 1_000_000)
        classes = self.give_up_on if isinstance(self.give_up_on, tuple) else (self.give_up_on,)
        if not all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in classes):
            raise ConfigError(f"give_up_on is {self.give_up_on!r}; write an exception class or a tuple of them")


def next_delay(policy: Retry | None, attempts: int, error: BaseException, jitter: float) -> int | None:
    """The wait in microseconds before the attempt after `attempts` used ones; None to give up.

    `jitter` is a random number from 0 up to 1. No policy means one attempt. A `retry_after` that is no duration is
    ignored: a malformed hint must not turn a retry into a failure.
    """
    if policy is None or attempts >= policy.max_attempts or isinstance(error, policy.give_up_on):
        return None
    hint: Duration | None = getattr(error, "retry_after", None)
    if hint is not None:
        try:
            return to_micros(hint)
        except ConfigError:
            pass
    initial, longest = to_micros(policy.initial_delay), to_micros(policy.max_delay)
    match policy.backoff:
        case "constant":
            delay = initial
        case "linear":
            delay = initial * attempts
        case "exponential":
            # Beyond 2**40 every delay is the longest one; the bound keeps the number small.
            delay = initial * 2 ** min(attempts - 1, 40)
    delay = min(delay, longest)
    return round(delay * jitter) if policy.jitter else delay
