"""Recurrences as values: what may be written, what is refused, how they are stored, and the keys made of them."""

import sys
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from reflow._core.duration import to_instant
from reflow._core.schedule import Recurrence, occurrence_run_id, schedule_key
from reflow.errors import ConfigError

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("cron", "problem"),
    [
        ("", "it has 0 fields and not five"),
        ("* * * *", "it has 4 fields and not five"),
        ("* * * * * *", "it has 6 fields and not five"),
        ("@reboot", "it has 1 fields and not five"),
        ("@every 5m", "it has 2 fields and not five"),
        ("60 * * * *", "bad minute: out of range"),
        ("* 24 * * *", "bad hour: out of range"),
        ("* * 0 * *", "bad day-of-month: out of range"),
        ("* * 32 * *", "bad day-of-month: out of range"),
        ("* * * 13 *", "bad month: out of range"),
        ("* * * 0 *", "bad month: out of range"),
        ("* * * * 8", "bad day-of-week: out of range"),
        ("* * * * jan", "bad day-of-week"),
        ("* * * mon *", "bad month"),
        ("30-10 * * * *", "backwards"),
        ("* * * * sat-sun", "backwards"),
        ("*/0 * * * *", "bad minute"),
        ("*/ * * * *", "'*/' is no minute"),
        ("*/-1 * * * *", "'*/-1' is no minute"),
        ("1//2 * * * *", "'1//2' is no minute"),
        ("*/2/3 * * * *", "'*/2/3' is no minute"),
        ("1,,2 * * * *", "'1,,2' is no minute"),
        ("1, * * * *", "'1,' is no minute"),
        ("-1 * * * *", "'-1' is no minute"),
        ("1- * * * *", "'1-' is no minute"),
        ("1-2-3 * * * *", "'1-2-3' is no minute"),
        ("*-5 * * * *", "'*-5' is no minute"),
        ("** * * * *", "'**' is no minute"),
        ("0 0 * * mon-5", "'MON-5' is no day-of-week"),
        ("1.5 * * * *", "'1.5' is no minute"),
        ("٣ * * * *", "'٣' is no minute"),
        ("nope * * * *", "'NOPE' is no minute"),
        ("0 0 ? * *", "'?' is no day-of-month"),
        ("0 0 L * *", "'L' is no day-of-month"),
        ("0 0 LW * *", "'LW' is no day-of-month"),
        ("0 0 15W * *", "'15W' is no day-of-month"),
        ("0 0 * * 5L", "'5L' is no day-of-week"),
        ("0 0 * * 5#3", "'5#3' is no day-of-week"),
        ("*/" + "9" * 5_000 + " * * * *", "is no minute"),
        ("9" * 5_000 + " * * * *", "is no minute"),
        ("*/90 * * * *", "a step of minute is longer than the whole; for a longer interval write every="),
        ("0 */25 * * *", "a step of hour is longer than the whole"),
        ("0 0 30 2 *", "never there"),
        ("0 0 31 4,6,9,11 *", "never there"),
        ("0 0 30,31 feb */2", "never there"),
        (None, "write exactly one of them"),
        (5, "it has 0 fields"),
        (b"* * * * *", "it has 0 fields"),
    ],
)
def test_wrong_cron_text_is_refused(cron, problem):
    """[162] Malformed, too short, too long, out of range, backwards, stepless or never matching cron text is a
    ConfigError that quotes it."""
    with pytest.raises(ConfigError) as caught:
        Recurrence(cron=cron)

    assert [True, True] == [f"cron is {cron!r}" in str(caught.value), problem in str(caught.value)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "every is None and cron is None; write exactly one of them"),
        ({"every": "1h", "cron": "@daily"}, "every is '1h' and cron is '@daily'; write exactly one of them"),
        ({"every": 0}, "every is 0; write a duration from one second up"),
        ({"every": "999ms"}, "every is '999ms'; write a duration from one second up"),
        ({"every": -60}, "every is -60; write seconds"),
        ({"every": "daily"}, "every is 'daily'; write seconds"),
        ({"every": float("inf")}, "every is inf; write seconds"),
        ({"every": "1d", "tz": "Europe/Berlin"}, "tz is 'Europe/Berlin', but an interval has no use for a zone"),
    ],
    ids=str,
)
def test_a_recurrence_is_an_interval_or_cron(options, problem):
    """[151] Exactly one of every= and cron= is given, an interval is a second or more and has no zone; anything else is
    a ConfigError."""
    with pytest.raises(ConfigError) as caught:
        Recurrence(**options)

    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "tz", ["Europe/Berlni", "europe", "America", "", "../UTC", "/etc/localtime", "\0", "é", None, 1]
)
def test_an_unknown_zone_is_refused(tz):
    """[151] A zone that the system does not know is a ConfigError that quotes it and speaks of tzdata."""
    with pytest.raises(ConfigError) as caught:
        Recurrence(cron="@daily", tz=tz)

    assert [True, True] == [f"tz is {tz!r}; write" in str(caught.value), "tzdata" in str(caught.value)]


@pytest.fixture
def no_zones(monkeypatch):
    """A system without a database of time zones."""
    for name in {"tzdata", *(name for name in sys.modules if name.startswith("tzdata."))}:
        monkeypatch.setitem(sys.modules, name, None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()
    zoneinfo.ZoneInfo.clear_cache()


@pytest.mark.usefixtures("no_zones")
def test_utc_needs_no_database():
    """On a system without time zones, cron text in UTC works and any other zone is a ConfigError."""
    with pytest.raises(ConfigError, match="tzdata"):
        Recurrence(cron="@daily", tz="Europe/Berlin")

    assert 86_400 * SECOND == Recurrence(cron="@daily").next_after(0, 0)


@pytest.mark.parametrize(
    ("recurrence", "text"),
    [
        (Recurrence(every=1), "every 1s"),
        (Recurrence(every="1.5s"), "every 1s500000us"),
        (Recurrence(every="90m"), "every 1h30m"),
        (Recurrence(every=timedelta(days=14, microseconds=1)), "every 14d1us"),
        (Recurrence(cron="@daily"), "cron 0 0 * * * UTC"),
        (Recurrence(cron=" 30  2 * * mon-Fri\n", tz="Europe/Berlin"), "cron 30 2 * * MON-FRI Europe/Berlin"),
    ],
    ids=str,
)
def test_the_text_of_a_recurrence(recurrence, text):
    """A recurrence has one text, whatever its spaces, capitals and shorthands were, and is read back from it."""
    assert (text, recurrence) == (recurrence.to_text(), Recurrence.parse(text))


@pytest.mark.parametrize("text", ["", "every", "cron", "daily", "every 1h 30m", "every h", "cron * * * * *", "1h"])
def test_other_text_is_refused(text):
    """Stored text that is not that of a recurrence is a ConfigError."""
    with pytest.raises(ConfigError):
        Recurrence.parse(text)


@given(st.integers(SECOND, 2**53))
def test_every_interval_has_a_text(micros):
    """An interval comes back from its text to the microsecond, over 285 years."""
    recurrence = Recurrence(every=timedelta(microseconds=micros))

    assert recurrence == Recurrence.parse(recurrence.to_text())


def test_a_recurrence_is_a_value():
    """Recurrences are immutable, hashable, and equal where they say the same in other words."""
    assert {Recurrence(every="1h"), Recurrence(cron="@daily")} == {
        *(Recurrence(every=every) for every in (3600, "60m", timedelta(hours=1))),
        *(Recurrence(cron=cron) for cron in ("0 0 * * *", "@midnight", "@DAILY ")),
    }

    with pytest.raises(AttributeError):
        Recurrence(every=1).tz = "UTC"  # type: ignore[misc]


@dataclass
class Report:
    """An input with a set and a dict inside."""

    topics: set[str]
    limits: dict[str, int]


class Same(Struct):
    """The same fields in another order."""

    limits: dict[str, int]
    topics: list[str]


HOURLY = Recurrence(every="1h")


def test_the_default_key():
    """[157] The key names the workflow, and is the same in every process and release: it is stored."""
    assert "nightly:c4b51d580147edff" == schedule_key("nightly", HOURLY, {"path": "a.csv", "limit": 3})


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
        ({"n": {2: "b", 1: "a"}}, {"n": {1: "a", 2: "b"}}),
        ({"n": {"b", "a", "c"}}, {"n": {"c", "b", "a"}}),
        ({"r": Report({"x", "y"}, {"k": 1, "j": 2})}, {"r": Same({"j": 2, "k": 1}, ["x", "y"])}),
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"at": "2026-01-01T00:00:00Z"}),
    ],
    ids=["dict", "numbers", "set", "object", "datetime"],
)
def test_equal_input_gives_one_key(arguments, same):
    """[157] The order of keys and of the members of a set does not count, and values count as the data they are stored
    as."""
    assert schedule_key("nightly", HOURLY, arguments) == schedule_key("nightly", HOURLY, same)


def test_keys_of_several_types():
    """A dict that mixes the types of its keys, which therefore have no order, has a key as well."""
    assert schedule_key("w", HOURLY, {"n": {1: "a", "1": "b"}}) != schedule_key("w", HOURLY, {"n": {1: "b", "1": "a"}})


def test_whatever_differs_gives_another_key():
    """[157] Another workflow, recurrence, zone or input makes another schedule; another spelling of them does not."""
    berlin, daily = Recurrence(cron="@daily", tz="Europe/Berlin"), Recurrence(cron="@daily")
    keys = [
        *(schedule_key("nightly", each, {"n": 1}) for each in (HOURLY, Recurrence(every="2h"), daily, berlin)),
        *(schedule_key("nightly", HOURLY, {"n": value}) for value in (2, "1", None, [1], {"a": 1}, True)),
        *(schedule_key("nightly", HOURLY, value) for value in ({}, {"m": 1})),
        schedule_key("weekly", HOURLY, {"n": 1}),
    ]

    assert (13, keys[0]) == (len(set(keys)), schedule_key("nightly", Recurrence(every="60m"), {"n": 1}))


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-03-29T01:00:00+00:00", "nightly@2026-03-29T01:00:00Z"),
        ("2026-03-29T03:00:00+02:00", "nightly@2026-03-29T01:00:00Z"),
        ("2026-03-29T01:00:00.250000+00:00", "nightly@2026-03-29T01:00:00.250000Z"),
    ],
)
def test_the_run_id_of_an_occurrence(moment, expected):
    """An occurrence's run id follows from key and instant, so that several engines make one run."""
    assert expected == occurrence_run_id("nightly", to_instant(datetime.fromisoformat(moment), what="moment"))
