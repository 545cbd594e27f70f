"""The times of schedules, by example: cron text and intervals, clocks put forward and back, downtime."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from reflow._core.duration import from_micros, to_instant
from reflow._core.schedule import MOST_MISSED, Due, Recurrence, due_occurrences
from reflow.errors import ConfigError

SECOND = 1_000_000
HOUR = 3_600 * SECOND


def instant(text):
    """The instant of an ISO text, UTC where it names no offset."""
    moment = datetime.fromisoformat(text)
    return to_instant(moment if moment.tzinfo else moment.replace(tzinfo=UTC), what="an instant")


def times(cron, start, count=3, tz="UTC"):
    """The next occurrences of cron text, as ISO texts in UTC without seconds."""
    at, found = instant(start), []
    for _ in range(count):
        at = Recurrence(cron=cron, tz=tz).next_after(at, 0)
        found.append(f"{from_micros(at):%Y-%m-%dT%H:%M}")
    return found


@pytest.mark.parametrize(
    ("cron", "same"),
    [
        ("5,35 * * * *", "35,5 * * * *"),
        ("10-12 * * * *", "10,11,12 * * * *"),
        ("*/20 * * * *", "0,20,40 * * * *"),
        ("10-40/15 * * * *", "10,25,40 * * * *"),
        ("50/3 * * * *", "50,53,56,59 * * * *"),
        ("50-050/3 10 * * *", "50 10 * * *"),
        ("0 0 * * mon-mon/2", "0 0 * * 1"),
        ("0 0 1 jan,Jul *", "0 0 1 1,7 *"),
        ("0 0 1 MAR-may *", "0 0 1 3,4,5 *"),
        ("0 0 * * mon-FRI", "0 0 * * 1-5"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * sun", "0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 5,6,0"),
        ("0 0 * * */2", "0 0 * * 0,2,4,6"),
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@Monthly", "0 0 1 * *"),
        ("@YEARLY", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
    ],
)
def test_what_cron_text_means(cron, same):
    """[161] Fields are `*`, ranges, lists and steps, names in any case, 0 and 7 are Sunday, and there are
    shorthands."""
    assert times(same, "2026-03-10T12:00", 40) == times(cron, "2026-03-10T12:00", 40)


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 13 * fri", ["2026-04-03T00:00", "2026-04-10T00:00", "2026-04-13T00:00"]),
        ("0 0 13 * *", ["2026-04-13T00:00", "2026-05-13T00:00", "2026-06-13T00:00"]),
        ("0 0 * * fri", ["2026-04-03T00:00", "2026-04-10T00:00", "2026-04-17T00:00"]),
        ("0 0 */2 * fri", ["2026-04-03T00:00", "2026-04-17T00:00", "2026-05-01T00:00"]),
        ("0 0 13 * */5", ["2026-09-13T00:00", "2026-11-13T00:00", "2026-12-13T00:00"]),
        ("0 0 1-31 * fri", ["2026-04-02T00:00", "2026-04-03T00:00", "2026-04-04T00:00"]),
    ],
)
def test_two_narrowed_day_fields_mean_either(cron, expected):
    """[161] Day of month and day of week both narrowed mean either; where one begins with a star, both have to
    match."""
    assert expected == times(cron, "2026-04-01T00:00")


@pytest.mark.parametrize(
    ("cron", "start", "expected"),
    [
        ("0 0 31 * *", "2026-01-31T12:00", ["2026-03-31T00:00", "2026-05-31T00:00", "2026-07-31T00:00"]),
        ("0 0 29 2 *", "2026-03-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]),
        ("0 0 29 2 *", "2096-03-01T00:00", ["2104-02-29T00:00", "2108-02-29T00:00", "2112-02-29T00:00"]),
        ("0 0 29 2 */7", "2026-01-01T00:00", ["2032-02-29T00:00", "2060-02-29T00:00", "2088-02-29T00:00"]),
        ("0 0 29 2 */7", "2088-03-01T00:00", ["2128-02-29T00:00", "2156-02-29T00:00", "2184-02-29T00:00"]),
        ("59 23 31 12 *", "2026-12-31T23:59", ["2027-12-31T23:59", "2028-12-31T23:59", "2029-12-31T23:59"]),
    ],
)
def test_days_that_not_every_month_has(cron, start, expected):
    """[160] Months without the day are skipped, and 29 February comes in leap years only, forty years ahead if need
    be."""
    assert expected == times(cron, start)


@pytest.mark.parametrize("start", ["2026-03-10T12:00", "2026-03-10T12:00:00.000001", "2026-03-10T12:14:59.999999"])
def test_an_occurrence_is_strictly_after_and_at_second_0(start):
    """[160] The next occurrence is strictly after the instant, and cron times are at second 0."""
    assert instant("2026-03-10T12:15") == Recurrence(cron="*/15 * * * *").next_after(instant(start), 0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [(-5, 3), (0, 3), (2.999_999, 3), (3, 6), (3.000_001, 6), (3e9, 3e9 + 3)],
)
def test_an_interval_is_counted_from_its_anchor(after, expected):
    """[152] Nothing fires at the anchor or before it; after it, occurrences are whole intervals from it, a moment or a
    century later."""
    anchor = instant("2026-03-10T12:34:56.789")

    assert anchor + expected * SECOND == Recurrence(every="3s").next_after(anchor + round(after * SECOND), anchor)


@pytest.mark.parametrize("tz", ["UTC", "America/New_York"])
def test_the_end_of_the_calendar(tz):
    """Where the calendar ends before the next time, there is none."""
    nearly = instant("9999-12-31T23:58:30")

    assert [instant("9999-12-31T23:59"), None] == [
        Recurrence(cron="* * * * *", tz=tz).next_after(at, 0) for at in (nearly, nearly + 60 * SECOND)
    ]


def shown(cron, tz, start, count):
    """The next occurrences as a clock in the zone shows them, with its distance to UTC in hours."""
    at, found = instant(start), []
    for _ in range(count):
        at = Recurrence(cron=cron, tz=tz).next_after(at, 0)
        local = from_micros(at).astimezone(ZoneInfo(tz))
        found.append(f"{local:%d. %H:%M} {local.utcoffset().total_seconds() / 3600:+g}")
    return found


@pytest.mark.parametrize(
    ("cron", "tz", "start", "expected"),
    [
        # Put forward: what the clock jumps over fires when it has jumped.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", ["28. 02:30 +1", "29. 03:00 +2", "30. 02:30 +2"]),
        ("0 3 * * *", "Europe/Berlin", "2026-03-28", ["28. 03:00 +1", "29. 03:00 +2", "30. 03:00 +2"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["29. 03:00 +2", "30. 02:00 +2", "30. 03:00 +2"]),
        ("30 2 * * sun", "America/New_York", "2026-03-08", ["08. 03:00 -4", "15. 02:30 -4"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03", ["04. 02:30 +11", "05. 02:15 +11"]),
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00", ["06. 01:00 -3", "07. 00:00 -3"]),
        ("0 12 * * *", "Pacific/Apia", "2011-12-29", ["29. 12:00 -10", "31. 00:00 +14", "31. 12:00 +14"]),
        # Put back: what the clock shows twice fires the first time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24", ["24. 02:30 +2", "25. 02:30 +2", "26. 02:30 +1"]),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01. 01:30 -4", "02. 01:30 -5"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04", ["05. 01:45 +11", "06. 01:45 +10.5"]),
        ("15 0 * * *", "America/Havana", "2026-10-31T12:00", ["01. 00:15 -4", "02. 00:15 -5"]),
    ],
)
def test_a_time_of_day_fires_once(cron, tz, start, expected):
    """[163] A daily time fires once on the days clocks change: when the clock has jumped over it, or the first time it
    is shown."""
    assert expected == shown(cron, tz, start, len(expected))


@pytest.mark.parametrize("start", ["2026-10-25T00:30", "2026-10-25T00:45", "2026-10-25T01:15", "2026-10-25T01:30"])
def test_a_time_of_day_does_not_come_back(start):
    """[163] Asked while the clock shows 02:30 to 03:30 for the first or second time, the next 02:30 is that of the next
    day."""
    assert ["26. 02:30 +1"] == shown("30 2 * * *", "Europe/Berlin", start, 1)


@pytest.mark.parametrize(
    ("cron", "tz", "start", "expected"),
    [
        ("0 * * * *", "Europe/Berlin", "2026-03-29T00:00", ["29. 03:00 +2", "29. 04:00 +2"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", ["25. 02:00 +2", "25. 02:00 +1", "25. 03:00 +1"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:45",
            ["25. 02:00 +2", "25. 02:30 +2", "25. 02:00 +1", "25. 02:30 +1", "25. 03:00 +1"],
        ),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["30. 02:00 +2", "30. 02:30 +2"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30", ["29. 00:00 +1", "29. 04:00 +2"]),
        (
            "*/15 1-2 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:35",
            ["05. 01:45 +11", "05. 01:30 +10.5", "05. 01:45 +10.5", "05. 02:00 +10.5", "05. 02:15 +10.5"],
        ),
        ("*/20 * * * *", "Australia/Lord_Howe", "2026-10-03T15:15", ["04. 02:40 +11", "04. 03:00 +11"]),
        ("*/30 * * * *", "Asia/Kathmandu", "2026-01-01T00:00", ["01. 06:00 +5.75", "01. 06:30 +5.75"]),
    ],
)
def test_a_pace_goes_by_the_clock(cron, tz, start, expected):
    """[163] Cron text with a star for minute or hour fires whenever the clock shows its time: every hour of the day,
    those that come twice included, and not while the clock jumps."""
    assert expected == shown(cron, tz, start, len(expected))


def test_an_interval_knows_no_clock():
    """An interval of a day is 24 hours, also over the days on which clocks change."""
    anchor = instant("2026-03-28T12:00+01:00")

    assert instant("2026-03-29T13:00+02:00") == Recurrence(every="1d").next_after(anchor, anchor)


@pytest.mark.parametrize(
    ("cron", "tz", "expected"),
    [
        ("* * * * *", "UTC", "2076-03-10T12:01"),
        ("30 2 * * mon", "Europe/Berlin", "2076-03-16T01:30"),
        ("0 0 29 2 *", "Asia/Kathmandu", "2080-02-28T18:15"),
        ("0 0 1 1 *", "Australia/Lord_Howe", "2076-12-31T13:00"),
    ],
)
def test_after_fifty_years(cron, tz, expected):
    """[160] After fifty years without an engine, the next occurrence is the first after now."""
    start, now = instant("2026-03-10T12:00"), instant("2076-03-10T12:00")
    recurrence = Recurrence(cron=cron, tz=tz)
    due = due_occurrences(recurrence, next_at=recurrence.next_after(start, start), now=now, anchor=start)

    assert (instant(expected), 1) == (due.next_at, len(due.fire))


START = instant("2026-03-10T12:00")


HOURLY = Recurrence(every="1h")


def due(hours, missed, recurrence=HOURLY):
    """What is due some hours after the registration of an hourly schedule, in hours after it."""
    result = due_occurrences(
        recurrence, next_at=START + HOUR, now=START + round(hours * HOUR), anchor=START, missed=missed
    )
    return [(at - START) / HOUR for at in result.fire], (result.next_at - START) / HOUR, result.skipped


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("recurrence", [HOURLY, Recurrence(cron="@hourly")], ids=["every", "cron"])
@pytest.mark.parametrize(
    ("hours", "expected"), [(0, ([], 1, 0)), (0.999, ([], 1, 0)), (1, ([1], 2, 0)), (1.999, ([1], 2, 0))]
)
def test_what_is_due_fires(hours, expected, recurrence, missed):
    """[152] Nothing fires before the first occurrence; at it, or late but before the next, it fires once."""
    assert expected == due(hours, missed, recurrence)


@pytest.mark.parametrize("recurrence", [HOURLY, Recurrence(cron="@hourly")], ids=["every", "cron"])
@pytest.mark.parametrize(
    ("missed", "expected"), [("skip", ([5], 6, 4)), ("once", ([1], 6, 0)), ("all", ([1, 2, 3, 4, 5], 6, 0))]
)
def test_what_was_missed(missed, expected, recurrence):
    """[155] After hours without an engine: by default one run, for the latest, and the normal cadence; or one for the
    earliest; or one for each."""
    assert expected == due(5.5, missed, recurrence)


def test_missed_occurrences_are_skipped_by_default():
    """[155] Without a word on what is missed, one firing follows on return, and then the normal cadence."""
    now = START + 5 * HOUR

    assert Due((now,), now + HOUR, 4) == due_occurrences(HOURLY, next_at=START + HOUR, now=now, anchor=START)


@pytest.mark.parametrize(
    ("missed", "fired", "skipped"),
    [("skip", 1, MOST_MISSED), ("once", 1, 0), ("all", MOST_MISSED, MOST_MISSED)],
)
@pytest.mark.parametrize("recurrence", [Recurrence(every="1m"), Recurrence(cron="* * * * *")], ids=["every", "cron"])
def test_a_long_downtime_is_bounded(missed, fired, skipped, recurrence):
    """[160] However many were missed, at most a thousand fire, the latest ones, and counting ends a thousand later."""
    now = START + 50 * 366 * 24 * HOUR
    result = due_occurrences(recurrence, next_at=START, now=now, anchor=START - HOUR, missed=missed)

    assert (fired, skipped, now + 60 * SECOND) == (len(result.fire), result.skipped, result.next_at)
    assert (START if missed == "once" else now) == result.fire[-1]


def test_all_drops_the_oldest():
    """Where more than a thousand were missed, "all" fires the latest thousand and counts those dropped before them."""
    result = due_occurrences(
        HOURLY, next_at=START + HOUR, now=START + (MOST_MISSED + 7) * HOUR, anchor=START, missed="all"
    )

    assert (7, START + 8 * HOUR) == (result.skipped, result.fire[0])


def test_a_stored_occurrence_fires_though_the_rules_changed():
    """A stored next time that is no occurrence any more, since the rules of its zone changed, fires nevertheless."""
    stored = START + 17 * SECOND
    result = due_occurrences(Recurrence(cron="@hourly"), next_at=stored, now=stored, anchor=START)

    assert Due((stored,), START + HOUR, 0) == result


def test_an_unknown_policy_is_refused():
    """[151] A word for missed= that is none of the three is a ConfigError that names them."""
    with pytest.raises(ConfigError) as caught:
        due(5, "latest")

    assert "missed is 'latest'; write one of 'skip', 'once', 'all'" == str(caught.value)
