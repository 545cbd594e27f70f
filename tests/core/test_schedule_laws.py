"""The laws of schedules over random recurrences; what cron text means is checked minute by minute."""

import os
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reflow._core.duration import from_micros, to_instant
from reflow._core.schedule import MOST_MISSED, Recurrence, due_occurrences

law = settings(max_examples=int(os.environ.get("REFLOW_EXAMPLES", "100")), deadline=None)

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 1_440 * MINUTE
FIFTY_YEARS = 18_263 * DAY
LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# Zones, each with a day on which its clocks change: by an hour, half an hour, two hours, a whole day; at midnight too.
PLACES = [
    *(("Europe/Berlin", "2026-03-29"), ("Europe/Berlin", "2026-10-25"), ("Europe/Dublin", "2026-10-25")),
    *(("America/New_York", "2026-03-08"), ("America/New_York", "2026-11-01"), ("America/Havana", "2026-11-01")),
    *(("Australia/Lord_Howe", "2026-04-05"), ("Australia/Lord_Howe", "2026-10-04"), ("Asia/Kathmandu", "2026-01-01")),
    *(("America/Santiago", "2026-09-06"), ("Antarctica/Troll", "2026-03-29"), ("Antarctica/Troll", "2026-10-25")),
    *(("Pacific/Apia", "2011-12-30"), ("Pacific/Kwajalein", "1993-08-21"), ("UTC", "2028-02-29")),
]


@st.composite
def fields(draw, low, high):
    """A field of cron text, and the values that it stands for."""
    terms, values = [], set()
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, 30 if high == 59 else 5))
        term, meant = draw(
            st.sampled_from(
                [
                    ("*", range(low, high + 1)),
                    (f"*/{step}", range(low, high + 1, step)),
                    (f"{first}", [first]),
                    (f"{first}-{last}", range(first, last + 1)),
                    (f"{first}-{last}/{step}", range(first, last + 1, step)),
                    (f"{first}/{step}", range(first, high + 1, step)),
                ]
            )
        )
        terms.append(term)
        values.update(meant)
    return ",".join(terms), values


@st.composite
def crons(draw):
    """Cron text, and the values of its five fields."""
    drawn = [draw(fields(0, 59)), draw(fields(0, 23))]
    for low, high in ((1, 31), (1, 12), (0, 7)):
        usual = st.just(("*", {*range(low, high + 1)}))
        drawn.append(draw(st.one_of(usual, usual, usual, fields(low, high))))
    text = " ".join(text for text, _ in drawn)
    minutes, hours, days, months, weekdays = (values for _, values in drawn)
    assume(either(text) or min(days) <= max(LONGEST[month] for month in months))  # it never matches
    return text, (minutes, hours, days, months, weekdays)


def either(text):
    """Whether both day fields of cron text are narrowed."""
    _, _, day, _, weekday = text.split()
    return not day.startswith("*") and not weekday.startswith("*")


def paced(text):
    """Whether a star begins minute or hour."""
    return text.startswith("*") or text.split()[1].startswith("*")


def matches(cron, wall):
    """Whether a time without a zone is one of cron text."""
    text, (minutes, hours, days, months, weekdays) = cron
    day, weekday = wall.day in days, bool(weekdays & {wall.isoweekday(), wall.isoweekday() % 7})
    on_that_day = day or weekday if either(text) else day and weekday
    return wall.minute in minutes and wall.hour in hours and wall.month in months and on_that_day


def walls(instant, zone):
    """What the clock shows at an instant, and what it has jumped over just before."""
    now, before = (from_micros(at).astimezone(zone) for at in (instant, instant - MINUTE))
    jump = (now.utcoffset() - before.utcoffset()) // timedelta(minutes=1)
    shown = now.replace(tzinfo=None, fold=0)
    return shown, now.fold, [shown - timedelta(minutes=ago) for ago in range(1, jump + 1)]


def by_the_minute(cron, zone, start, end):
    """The occurrences from `start` to before `end`, whole minutes both, found by looking at every minute."""
    found = []
    for instant in range(start, end, MINUTE):
        shown, again, jumped = walls(instant, zone)
        if paced(cron[0]):
            fires = matches(cron, shown)
        else:
            fires = (not again and matches(cron, shown)) or any(matches(cron, wall) for wall in jumped)
        if fires:
            found.append(instant)
    return found


@st.composite
def windows(draw):
    """A zone, and a stretch of a day or less in which its clocks are changed, in whole minutes."""
    name, day = draw(st.sampled_from(PLACES))
    noon = to_instant(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC), what="noon")
    start = noon + draw(st.integers(-1_800, 300)) * MINUTE
    return name, start, start + draw(st.integers(1, 1_440)) * MINUTE


recurrences = st.one_of(
    st.builds(lambda cron, place: Recurrence(cron=cron[0], tz=place[0]), crons(), st.sampled_from(PLACES)),
    st.builds(lambda micros: Recurrence(every=timedelta(microseconds=micros)), st.integers(SECOND, 400 * DAY)),
)
instants = st.integers(0, 130 * 365 * DAY)


@law
@given(crons(), windows(), st.integers(1, MINUTE))
def test_no_minute_is_missed_or_added(cron, window, offset):
    """[163] Near a change of clocks, the occurrences one after another are those that a look at every minute finds,
    whatever the zone."""
    name, start, end = window
    recurrence, found, at = Recurrence(cron=cron[0], tz=name), [], start - offset
    while (at := recurrence.next_after(at, 0)) < end:
        found.append(at)

    assert by_the_minute(cron, ZoneInfo(name), start, end) == found


@law
@given(crons(), windows())
def test_the_occurrences_before_are_those_that_came(cron, window):
    """[163] Walking back from an instant meets the same occurrences as walking forward to it."""
    name, start, end = window
    found = takewhile(lambda at: at >= start, Recurrence(cron=cron[0], tz=name).before(end, 0))

    assert by_the_minute(cron, ZoneInfo(name), start, end) == [*found][::-1]


@law
@given(crons(), st.sampled_from(PLACES), instants)
def test_every_occurrence_is_a_time_of_the_text(cron, place, instant):
    """[160] Any time within a century, the next occurrence is strictly later, at second 0, and a time of the text on
    the clock of its zone, or that to which the clock has jumped over such a time."""
    occurrence = Recurrence(cron=cron[0], tz=place[0]).next_after(instant, 0)
    shown, _, jumped = walls(occurrence, ZoneInfo(place[0]))

    assert [True, 0] == [occurrence > instant, occurrence % MINUTE]
    assert any(matches(cron, wall) for wall in [shown, *jumped])


@law
@given(recurrences, instants, instants, st.floats(0, 1))
def test_nothing_lies_between(recurrence, instant, anchor, part):
    """[160] The next occurrence is the same for every instant up to it, so a restart neither adds nor loses one."""
    occurrence = recurrence.next_after(instant, anchor)
    between = instant + int((occurrence - 1 - instant) * part)

    assert instant < occurrence == recurrence.next_after(between, anchor) < recurrence.next_after(occurrence, anchor)


@law
@given(recurrences, instants, instants)
def test_before_and_after_agree(recurrence, instant, anchor):
    """The occurrence before the next but one is the next one."""
    first = recurrence.next_after(instant, anchor)
    second = recurrence.next_after(first, anchor)

    assert first == next(recurrence.before(second, anchor))


@law
@given(st.integers(SECOND, 400 * DAY), instants, instants)
def test_an_interval_keeps_its_cadence(period, instant, anchor):
    """[160] Occurrences of an interval are whole intervals after the anchor, and never more than one ahead."""
    occurrence = Recurrence(every=timedelta(microseconds=period)).next_after(instant, anchor)

    assert (0, True) == ((occurrence - anchor) % period, occurrence > anchor)
    assert occurrence <= max(instant, anchor) + period


@law
@given(recurrences, instants, st.integers(0, FIFTY_YEARS), st.sampled_from(["skip", "once", "all"]))
def test_what_is_due_is_in_order(recurrence, anchor, downtime, missed):
    """[152][155] Whatever the downtime, something fires exactly when something is due, each once, oldest first, not
    before it is due, and the next time is the first after now."""
    next_at = recurrence.next_after(anchor, anchor)
    now = anchor + downtime
    due = due_occurrences(recurrence, next_at=next_at, now=now, anchor=anchor, missed=missed)

    assert sorted(set(due.fire)) == list(due.fire)
    assert (next_at <= now) == bool(due.fire)
    assert all(next_at <= at <= now for at in due.fire)
    assert recurrence.next_after(now, anchor) == due.next_at > now


@law
@given(recurrences, instants, st.integers(0, 40), st.floats(0, 1))
def test_every_missed_occurrence_is_accounted_for(recurrence, anchor, count, part):
    """[155] With few missed, "all" fires each of them, "skip" the latest, "once" the earliest."""
    came = [recurrence.next_after(anchor, anchor)]
    for _ in range(count):
        came.append(recurrence.next_after(came[-1], anchor))
    *came, following = came
    now = following - 1 if not came else came[-1] + int((following - 1 - came[-1]) * part)
    due = {
        missed: due_occurrences(recurrence, next_at=(came or [following])[0], now=now, anchor=anchor, missed=missed)
        for missed in ("skip", "once", "all")
    }

    assert {"skip": came[-1:], "once": came[:1], "all": came} == {name: list(each.fire) for name, each in due.items()}
    assert {"skip": max(0, count - 1), "once": 0, "all": 0} == {name: each.skipped for name, each in due.items()}
    assert {following} == {each.next_at for each in due.values()}


@law
@given(recurrences, st.integers(0, 30 * 365 * DAY), st.sampled_from(["skip", "once", "all"]))
def test_catching_up_is_bounded(recurrence, anchor, missed):
    """[160] After fifty years without an engine, no more than a thousand fire and no more than a thousand are
    counted."""
    due = due_occurrences(recurrence, next_at=anchor, now=anchor + FIFTY_YEARS, anchor=anchor, missed=missed)

    assert [True, True] == [1 <= len(due.fire) <= MOST_MISSED, due.skipped <= MOST_MISSED]


@law
@given(recurrences)
def test_a_recurrence_comes_back_from_its_text(recurrence):
    """[151] What is stored of a recurrence, its text, gives it back."""
    assert recurrence == Recurrence.parse(recurrence.to_text())
