"""When a schedule fires: arithmetic only. The time comes in as an argument, and nothing here is stored.

A `Recurrence` is an interval or cron text, checked where it is written. It answers two questions. `next_after`: when is
the first occurrence after an instant? `due_occurrences`: it is now so late, which runs are to be started, and when is
the next one? Both cost the same after a second of downtime and after fifty years. Instants are microseconds UTC.

Cron fields are matched against what a clock on the wall shows, and cronsim does that: it is only ever given times
without a zone. Which instants show such a time is decided here, because a clock may be put forward or back. (Asked with
a zone, cronsim 2.8 may answer with an instant before the given one, or step over times where a clock is changed by half
an hour.) The rule is the one of Debian's cron:

    minute and hour without a star   a time of day. It fires once: where the clock jumps over it, as soon as the clock
                                     has jumped; where the clock shows it twice, the first time
    a star begins either of them     a pace. It fires whenever the clock shows it: not while the clock jumps over it,
                                     and again in the hour that comes twice, so that `0 * * * *` is every hour
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from itertools import chain, islice, takewhile
from typing import Any, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Struct
from msgspec.structs import force_setattr

from reflow._core.duration import Duration, from_micros, to_instant, to_micros
from reflow.errors import ConfigError

__all__ = ["MOST_MISSED", "Due", "Missed", "Recurrence", "due_occurrences", "occurrence_run_id", "schedule_key"]

Missed: TypeAlias = Literal["skip", "once", "all"]

MOST_MISSED = 1_000
"""How many missed occurrences of a schedule are made up for at once, and how many more are counted."""

_SECOND = 1_000_000
_MINUTE = timedelta(minutes=1)
_UNITS = {"d": 86_400 * _SECOND, "h": 3_600 * _SECOND, "m": 60 * _SECOND, "s": _SECOND, "us": 1}

_SHORTHANDS = {
    "@HOURLY": "0 * * * *",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *",
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
}
# A field's name, and how many values it has.
_FIELDS = {"minute": 60, "hour": 24, "day-of-month": 31, "month": 12, "day-of-week": 7}
_NUMBER = "[0-9]{1,9}"
_TERM = rf"(?:\*|{_NUMBER}(?:-{_NUMBER})?|[A-Z]{{3}}(?:-[A-Z]{{3}})?)(?:/{_NUMBER})?"
_FIELD = re.compile(rf"{_TERM}(?:,{_TERM})*")
_ONE_VALUE = re.compile(r"\b0*([0-9]+|[A-Z]{3})-0*\1/[0-9]+")


class Recurrence(Struct, frozen=True, kw_only=True):
    """When something happens again and again: at an interval, or at the times of a cron text.

    `every` is a duration from one second up; occurrences are counted from an anchor, the instant of the registration.
    `cron` has five fields: minute, hour, day of month, month, day of week. A field is `*`, a value, a range `a-b`, each
    with a step `/n` or without, or a list of these; `a/n` is from `a` to the end. Months and days have names, in any
    case; 0 and 7 are Sunday. Where both day fields are narrowed, a day has to match either; a field that begins with a
    star, `*/2` too, is not narrowed, and then a day has to match both. `@hourly`, `@daily` (`@midnight`), `@weekly`,
    `@monthly` and `@yearly` (`@annually`) are short for such texts. `L`, `W`, `#` and seconds are refused: programs
    that have them disagree on what they mean. `tz` is the IANA name of the zone in which cron text is read.

    Equal recurrences have equal texts: `cron` is kept in capitals with single spaces and without shorthands, `every` as
    a `timedelta`. Raises `ConfigError` for anything else, and for cron text that never matches.
    """

    every: Duration | None = None
    cron: str | None = None
    tz: str = "UTC"

    def __post_init__(self) -> None:
        if (self.every is None) == (self.cron is None):
            raise ConfigError(f"every is {self.every!r} and cron is {self.cron!r}; write exactly one of them")
        _zone(self.tz)
        if self.cron is not None:
            force_setattr(self, "cron", _checked(self.cron))
            return
        if self._period < _SECOND:
            raise ConfigError(f"every is {self.every!r}; write a duration from one second up")
        if self.tz != "UTC":
            raise ConfigError(f"tz is {self.tz!r}, but an interval has no use for a zone; leave it out, or write cron=")
        force_setattr(self, "every", timedelta(microseconds=self._period))

    @classmethod
    def parse(cls, text: str) -> Recurrence:
        """The recurrence of which `text` is the text; `ConfigError` where it is none."""
        match text.split(" "):
            case ["every", period]:
                return cls(every=period)
            case ["cron", *fields, tz]:
                return cls(cron=" ".join(fields), tz=tz)
            case _:
                raise ConfigError(f"{text!r} is not the text of a recurrence")

    def to_text(self) -> str:
        """The recurrence as text to be stored: `every 1h30m`, `cron 30 2 * * MON-FRI Europe/Berlin`."""
        if self.cron is not None:
            return f"cron {self.cron} {self.tz}"
        text, rest = "every ", self._period
        for unit, size in _UNITS.items():
            count, rest = divmod(rest, size)
            text += f"{count}{unit}" if count else ""
        return text

    def next_after(self, instant: int, anchor: int) -> int | None:
        """The first occurrence strictly after `instant`; None where the calendar ends before it, with the year 9999.

        Intervals are counted from `anchor`, at which nothing happens; cron does not need it.
        """
        if self.cron is None:
            return anchor + self._period * max(1, (instant - anchor) // self._period + 1)
        return next(self._walk(instant, back=False), None)

    def before(self, instant: int, anchor: int) -> Iterator[int]:
        """The occurrences strictly before `instant`, latest first."""
        if self.cron is None:
            latest = (instant - 1 - anchor) // self._period
            yield from (anchor + self._period * count for count in range(latest, 0, -1))
        else:
            yield from self._walk(instant, back=True)

    @property
    def _period(self) -> int:
        assert self.every is not None
        return to_micros(self.every, what="every")

    def _walk(self, start: int, *, back: bool) -> Iterator[int]:
        """The occurrences of cron text beyond an instant, nearest first."""
        assert self.cron is not None
        zone, way = _zone(self.tz), -1 if back else 1
        minute, hour = self.cron.split(" ")[:2]
        paced = minute.startswith("*") or hour.startswith("*")
        reached = start
        again: deque[int] = deque()  # what was passed in an hour that comes twice, and is met the other time
        try:
            local = from_micros(start).astimezone(zone)
            # In such an hour the clock goes over the same times twice, so the search begins before both.
            for wall in CronSim(self.cron, local.replace(tzinfo=None) - way * _repeated(local), reverse=back):
                instants = _instants(wall.replace(tzinfo=zone), paced=paced)[::way]
                while again and instants and (instants[0] - again[0]) * way > 0:
                    yield again.popleft()
                again.extend(instant for instant in instants[1:] if (instant - start) * way > 0)
                for instant in instants[:1]:
                    if (instant - reached) * way > 0:
                        yield (reached := instant)
        except OverflowError:
            return  # the calendar has an end


class Due(Struct, frozen=True):
    """What a schedule has to do now: the occurrences to `fire`, oldest first, the `next_at` to store, and how many
    occurrences were `skipped` (`MOST_MISSED` means as many or more)."""

    fire: tuple[int, ...]
    next_at: int | None
    skipped: int


def due_occurrences(recurrence: Recurrence, *, next_at: int, now: int, anchor: int, missed: Missed = "skip") -> Due:
    """What is due at `now` of a schedule whose next occurrence, as stored, was `next_at`.

    Where one occurrence is due it fires, however late. Where several are, no engine ran meanwhile, and they differ:

        "skip"   one run, for the latest occurrence. It alone is late; those before it have been overtaken and are
                 missed, and what is missed is skipped. For work that only the newest state matters to: a report, a
                 backup, a refresh
        "once"   one run, for the earliest: it stands for all since then, and nothing counts as skipped. For work that
                 catches up by itself, from where it had stopped to the present
        "all"    a run for each, oldest first. For work that each occurrence has of its own. It is bounded: the latest
                 `MOST_MISSED` fire, those before them are skipped and counted

    In none of them does downtime shift the cadence: the next occurrence is the first after `now`. Leaving out the
    latest one as well is no choice: a nightly job would be lost whenever the machine was off at that minute.

    `next_at` is taken as an occurrence even where the recurrence no longer has it, since the rules of zones change.
    """
    if missed not in get_args(Missed):
        raise ConfigError(f"missed is {missed!r}; write one of {', '.join(map(repr, get_args(Missed)))}")
    if next_at > now:
        return Due((), next_at, 0)
    following = recurrence.next_after(now, anchor)
    if missed == "once":
        return Due((next_at,), following, 0)
    most = MOST_MISSED if missed == "all" else 1
    latest_first = chain(takewhile(lambda at: at > next_at, recurrence.before(now + 1, anchor)), [next_at])
    due = list(islice(latest_first, most + MOST_MISSED))
    return Due(tuple(reversed(due[:most])), following, len(due[most:]))


def schedule_key(workflow: str, recurrence: Recurrence, arguments: Any) -> str:
    """The key of a schedule that was given none: equal workflow, recurrence and input make one schedule.

    `arguments` may be values or the plain data of them; the order of keys and of members of sets does not count.
    """
    try:
        plain = msgspec.to_builtins(arguments, order="sorted")
    except TypeError:  # keys of several types in one dict have no order but their own
        plain = msgspec.to_builtins(arguments)
    digest = sha256(f"{workflow}\0{recurrence.to_text()}\0".encode() + msgspec.msgpack.encode(plain)).hexdigest()
    return f"{workflow}:{digest[:16]}"


def occurrence_run_id(key: str, instant: int) -> str:
    """The id of the run of an occurrence, the same for every engine: `nightly@2026-03-29T01:00:00Z`."""
    return f"{key}@{from_micros(instant).replace(tzinfo=None).isoformat()}Z"


def _checked(text: str) -> str:
    """Cron text as it is kept; `ConfigError` where it is none, or never matches."""
    kept = " ".join(text.upper().split()) if isinstance(text, str) else ""
    # A step in a range of one value changes nothing; cronsim 2.8 takes such a range for one without an end.
    kept = _ONE_VALUE.sub(r"\1", _SHORTHANDS.get(kept, kept))
    if problem := _problem_of(kept):
        raise ConfigError(
            f"cron is {text!r}: {problem}. Write minute, hour, day of month, month and day of week, "
            "such as '30 2 * * mon-fri', or '@daily'"
        )
    return kept


def _problem_of(text: str) -> str | None:
    fields = text.split(" ") if text else []
    if len(fields) != len(_FIELDS):
        return f"it has {len(fields)} fields and not five"
    for field, (name, size) in zip(fields, _FIELDS.items(), strict=True):
        if not _FIELD.fullmatch(field):
            return f"{field!r} is no {name}"
        if any(int(step) > size for step in re.findall(r"/([0-9]+)", field)):
            return f"a step of {name} is longer than the whole; for a longer interval write every="
    try:
        CronSim(text, datetime(2000, 1, 1))
    except CronSimError as error:
        return f"{str(error).lower()}: out of range, backwards or never there"
    return None


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # it works without a database of zones
    try:
        return ZoneInfo(name)
    except (LookupError, TypeError, ValueError, OSError):
        raise ConfigError(
            f"tz is {name!r}; write the IANA name of a zone, such as 'Europe/Berlin'. "
            "Where the system has no zones (Windows, small containers), install the package tzdata"
        ) from None


def _repeated(wall: datetime) -> timedelta:
    """How much the clock is put back where it shows `wall` twice; negative where it is put forward over it."""
    first, second = (wall.replace(fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return first - second


def _instants(wall: datetime, *, paced: bool) -> list[int]:
    """When the clock shows `wall`, or is the time for it: once as a rule, never or twice where it is put forward or
    back."""
    repeated = _repeated(wall)
    if repeated < timedelta(0):
        if paced:
            return []
        while _repeated(wall) < timedelta(0):
            wall += _MINUTE
    first = to_instant(wall.replace(fold=0).astimezone(UTC), what="a time of the schedule")
    return [first, first + repeated // timedelta(microseconds=1)] if paced and repeated else [first]
