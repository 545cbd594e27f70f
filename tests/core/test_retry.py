"""Retry: the arithmetic of attempts and delays."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reflow._core.retry import Retry, next_delay
from reflow.errors import ConfigError

SECOND = 1_000_000
BOOM = ValueError("boom")


class RateLimited(Exception):
    """An error that says when to come back."""

    def __init__(self, retry_after):
        self.retry_after = retry_after


def delays(policy, attempts, jitter=1.0):
    """The waits in seconds after attempts 1, 2, ..."""
    waits = [next_delay(policy, used, BOOM, jitter) for used in range(1, attempts + 1)]
    return [wait if wait is None else wait / SECOND for wait in waits]


def test_without_a_policy_there_is_one_attempt():
    """[35] Without retry= a step has exactly one attempt."""
    assert [None] == delays(None, 1)


def test_no_wait_follows_the_last_attempt():
    """[38] With max_attempts=N the body is tried up to N times, and no wait follows the last."""
    assert [1, 1, None, None] == delays(Retry(max_attempts=3, backoff="constant", jitter=False), 4)


@pytest.mark.parametrize(
    ("backoff", "expected"), [("constant", [2, 2, 2, 2]), ("linear", [2, 4, 6, 8]), ("exponential", [2, 4, 8, 16])]
)
def test_backoffs(backoff, expected):
    """[37] Constant waits d, d, d; linear d, 2d, 3d; exponential d, 2d, 4d."""
    assert expected == delays(Retry(max_attempts=9, backoff=backoff, initial_delay="2s", jitter=False), 4)


def test_a_delay_is_capped():
    """[39] No wait is longer than max_delay."""
    assert [4, 8, 10, 10] == delays(Retry(max_attempts=9, initial_delay=4, max_delay="10s", jitter=False), 4)


def test_jitter_takes_a_part_of_the_delay():
    """[37] Jitter, on by default, waits a random part from nothing to all; switched off, it waits all of it."""
    policy = Retry(initial_delay=4)

    assert [[0.0], [1.0], [4.0]] == [delays(policy, 1, jitter) for jitter in (0.0, 0.25, 1.0)]


def test_a_delay_of_nothing():
    """A delay of 0 waits for nothing."""
    assert [0, 0, 0, None] == delays(Retry(max_attempts=4, initial_delay=0), 4)


@pytest.mark.parametrize(
    ("hint", "expected"), [(7, 7), (0, 0), (0.5, 0.5), (timedelta(minutes=1), 60), ("2h", 7200)], ids=str
)
def test_retry_after_wins(hint, expected):
    """[39] A retry_after on the exception wins over the policy, its cap and its jitter."""
    policy = Retry(initial_delay=1, max_delay=5)

    assert expected * SECOND == next_delay(policy, 1, RateLimited(hint), 0.5)


@pytest.mark.parametrize("hint", [None, -1, "soon", "Wed, 21 Oct 2026 07:28:00 GMT", float("nan"), object(), True])
def test_a_malformed_retry_after_is_ignored(hint):
    """A retry_after that is no duration leaves the decision to the policy."""
    assert SECOND == next_delay(Retry(initial_delay=1, jitter=False), 1, RateLimited(hint), 0.0)


def test_retry_after_grants_no_attempt():
    """A retry_after does not add attempts."""
    assert next_delay(Retry(max_attempts=2), 2, RateLimited(1), 0.0) is None


@pytest.mark.parametrize("give_up_on", [LookupError, (ZeroDivisionError, LookupError)])
def test_classes_excluded_from_retry(give_up_on):
    """[39] An exception of a class in give_up_on, or of a subclass, is not tried again; others are."""
    policy = Retry(give_up_on=give_up_on, jitter=False)

    assert [None, SECOND] == [next_delay(policy, 1, error, 0.0) for error in (KeyError("k"), BOOM)]


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; write a whole number from 1 up"),
        ({"max_attempts": -1}, "max_attempts is -1"),
        ({"max_attempts": 1.5}, "max_attempts is 1.5"),
        ({"max_attempts": True}, "max_attempts is True"),
        ({"max_attempts": None}, "max_attempts is None"),
        ({"backoff": "fibonacci"}, "backoff is 'fibonacci'; write one of 'constant', 'linear', 'exponential'"),
        ({"backoff": None}, "backoff is None"),
        ({"initial_delay": "soon"}, "initial_delay is 'soon'; write seconds"),
        ({"initial_delay": -1}, "initial_delay is -1"),
        ({"max_delay": float("inf")}, "max_delay is inf"),
        ({"give_up_on": "ValueError"}, "give_up_on is 'ValueError'; write an exception class"),
        ({"give_up_on": ValueError("x")}, "give_up_on is ValueError('x')"),
        ({"give_up_on": (ValueError, int)}, "give_up_on is (<class 'ValueError'>, <class 'int'>)"),
    ],
    ids=str,
)
def test_a_wrong_policy_is_refused_where_it_is_written(options, quoted):
    """[11] A wrong value is a ConfigError quoting it, when the policy is built and not when a step fails."""
    with pytest.raises(ConfigError) as caught:
        Retry(**options)

    assert quoted in str(caught.value)


def test_a_policy_is_a_value():
    """Policies are immutable, and equal when they say the same in other words; the number of attempts needs no name."""
    assert Retry(5, backoff="linear") == Retry(max_attempts=5, backoff="linear")
    assert Retry(initial_delay="1m") == Retry(initial_delay=timedelta(minutes=1))

    with pytest.raises(AttributeError):
        Retry().max_attempts = 4  # type: ignore[misc]


policies = st.builds(
    Retry,
    max_attempts=st.integers(1, 1_000),
    backoff=st.sampled_from(["constant", "linear", "exponential"]),
    initial_delay=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    jitter=st.booleans(),
)


@given(policies, st.integers(1, 1_001), st.floats(0, 1))
def test_a_delay_is_within_bounds(policy, attempts, jitter):
    """[38][39] A wait is never negative and never above max_delay, and there is one exactly while attempts are left."""
    wait = next_delay(policy, attempts, BOOM, jitter)

    if attempts >= policy.max_attempts:
        assert wait is None
    else:
        assert (int, True) == (type(wait), 0 <= wait <= policy.max_delay * SECOND + 1)


@given(policies, st.integers(1, 998), st.floats(0, 1))
def test_delays_never_shrink(policy, attempts, jitter):
    """At the same jitter, a later wait is never shorter than an earlier one."""
    earlier, later = (next_delay(policy, used, BOOM, jitter) for used in (attempts, attempts + 1))

    assert later is None or earlier <= later


@given(policies, st.integers(1, 999), st.floats(0, 1))
def test_a_decision_is_a_function_of_its_arguments(policy, attempts, jitter):
    """The same policy, attempts, failure and random number always give the same wait."""
    assert next_delay(policy, attempts, BOOM, jitter) == next_delay(policy, attempts, BOOM, jitter)
