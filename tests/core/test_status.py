"""The states of a run and the table of transitions."""

import pytest

from reflow._core.status import TRANSITIONS, RunStatus, is_allowed

TERMINAL = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}


def test_a_status_is_its_word():
    """A status is the text that is stored for it."""
    assert ["pending", "running", "sleeping", "waiting", "completed", "failed", "cancelled"] == list(RunStatus)


def test_three_states_are_terminal():
    """A run has ended when it is completed, failed or cancelled."""
    assert {status for status in RunStatus if status.is_terminal} == TERMINAL


def test_every_state_has_a_row():
    """The table says for every state what may follow it."""
    assert set(RunStatus) == set(TRANSITIONS)


def test_completed_is_final():
    """[144] Nothing follows completed; failed and cancelled are left by resume only, towards pending."""
    assert [set(), {RunStatus.PENDING}, {RunStatus.PENDING}] == [
        set(TRANSITIONS[status]) for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
    ]


def test_only_a_running_run_completes_or_fails():
    """[144] Completed and failed are reached from running alone: only an engine that holds the lease can end a run
    so."""
    before = {
        status
        for status in RunStatus
        if {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.SLEEPING, RunStatus.WAITING} & TRANSITIONS[status]
    }

    assert {RunStatus.RUNNING} == before


def test_every_live_state_can_be_cancelled():
    """Every run that has not ended can be cancelled, and none that has."""
    assert set(RunStatus) - TERMINAL == {status for status in RunStatus if is_allowed(status, RunStatus.CANCELLED)}


def test_every_state_is_reached():
    """From pending, every other state can be reached."""
    reached, frontier = set(), [RunStatus.PENDING]
    while frontier:
        status = frontier.pop()
        reached.add(status)
        frontier.extend(TRANSITIONS[status] - reached)

    assert set(RunStatus) == reached


@pytest.mark.parametrize("before", RunStatus)
@pytest.mark.parametrize("after", RunStatus)
def test_is_allowed_reads_the_table(before, after):
    """is_allowed says what the table says."""
    assert (after in TRANSITIONS[before]) == is_allowed(before, after)
