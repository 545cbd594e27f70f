"""Identifiers and randomness that follow from run id and position."""

from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from reflow._core.derived import random_at, uuid_at

positions = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda path: ".".join(map(str, path)))
places = st.tuples(st.text(), positions)


def test_a_uuid_never_changes():
    """The UUID of a place is the same in every version of Reflow."""
    assert UUID("acad71c9-599e-45c8-b874-6c84fd6f504a") == uuid_at("run-1", "4.2.0")


def test_random_numbers_never_change():
    """The random numbers of a place are the same in every version of Reflow and of Python."""
    random = random_at("run-1", "4.2.0")

    assert [0.6634824077020007, 0.5999171277618685] == [random.random(), random.random()]


@given(places)
def test_a_uuid_is_well_formed(place):
    """A derived UUID has the form of a random one."""
    derived = uuid_at(*place)

    assert (4, RFC_4122) == (derived.version, derived.variant)


@given(places, places)
def test_places_share_nothing(one, other):
    """[100] Two places give the same values exactly when they are the same."""
    assert (one == other, one == other) == (
        uuid_at(*one) == uuid_at(*other),
        random_at(*one).random() == random_at(*other).random(),
    )


@given(places, st.integers(0, 20))
def test_drawing_more_in_one_place_disturbs_no_other(place, draws):
    """Every place has a stream of its own."""
    expected = random_at(*place).random()
    here = random_at(place[0], place[1] + "0")
    for _ in range(draws):
        here.random()

    assert expected == random_at(*place).random()
