"""Durations: what is accepted, to the microsecond, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow._core.duration import from_micros, to_instant, to_micros
from reflow.errors import ConfigError


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (0, 0),
        (30, 30_000_000),
        (0.5, 500_000),
        (0.000_001_4, 1),
        (timedelta(0), 0),
        (timedelta(minutes=1, microseconds=7), 60_000_007),
        ("250us", 250),
        ("500ms", 500_000),
        ("30s", 30_000_000),
        ("2m", 120_000_000),
        ("1h30m", 5_400_000_000),
        ("14d", 1_209_600_000_000),
        ("2w", 1_209_600_000_000),
        ("1.5h", 5_400_000_000),
        (".5s", 500_000),
        ("1.s", 1_000_000),
        ("  1h 30 m ", 5_400_000_000),
        ("0s", 0),
    ],
)
def test_a_duration_is_seconds_a_timedelta_or_text(duration, expected):
    """[10] Seconds, timedeltas and texts of numbers with units are durations, decimals and outer spaces allowed."""
    assert expected == to_micros(duration)


@pytest.mark.parametrize(
    "duration",
    [
        -1,
        -0.1,
        float("nan"),
        float("inf"),
        float("-inf"),
        10**400,
        timedelta(seconds=-1),
        "",
        " ",
        "30",
        "s",
        "-1s",
        "1 fortnight",
        "1y",
        "1h30",
        "1h,30m",
        "1e3s",
        "infs",
        "1H",
        "9" * 400 + "s",
        "10000000d",
        True,
        None,
        b"1s",
        [1],
        1j,
    ],
)
def test_anything_else_is_refused(duration):
    """[10] Negative, endless or unit-less durations, unknown units and other types are a ConfigError quoting the
    value."""
    with pytest.raises(ConfigError) as caught:
        to_micros(duration, what="timeout")

    assert f"timeout is {duration!r}; write seconds" in str(caught.value)


@given(st.integers(0, 2**53))
def test_whole_microseconds_are_exact(micros):
    """Text in microseconds and a timedelta give exactly the microseconds they name, over 285 years."""
    assert [micros, micros] == [to_micros(f"{micros}us"), to_micros(timedelta(microseconds=micros))]


@given(st.lists(st.tuples(st.integers(0, 999), st.sampled_from(["us", "ms", "s", "m", "h", "d", "w"])), min_size=1))
def test_text_is_the_sum_of_its_parts(parts):
    """A text of several parts is as long as its parts together, in any order."""
    assert sum(to_micros(f"{n}{unit}") for n, unit in parts) == to_micros(" ".join(f"{n}{unit}" for n, unit in parts))


@given(st.one_of(st.floats(), st.integers(), st.timedeltas(), st.text(max_size=12)))
def test_every_value_is_accepted_or_refused(duration):
    """Any number, timedelta or text gives a whole number from 0 up, or a ConfigError, and nothing else."""
    try:
        micros = to_micros(duration)
    except ConfigError:
        return

    assert (int, True) == (type(micros), micros >= 0)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])))
def test_an_instant_round_trips(moment):
    """An aware datetime of any zone comes back as the same instant in UTC."""
    again = from_micros(to_instant(moment, what="moment"))

    assert (moment, UTC) == (again, again.tzinfo)


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1), "2026-01-01", 0, None])
def test_a_moment_must_be_aware(moment):
    """[76] A naive datetime names no instant and is refused, as is anything that is no datetime."""
    with pytest.raises(ConfigError) as caught:
        to_instant(moment, what="the moment of sleep_until")

    assert str(caught.value) == (
        f"the moment of sleep_until is {moment!r}; write an aware datetime, such as datetime.now(timezone.utc)"
    )
