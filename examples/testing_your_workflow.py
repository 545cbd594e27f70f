"""Tests of a workflow: stubs, virtual time, events, crashes, and a recorded run against changed code.

pytest examples/testing_your_workflow.py     # or: python examples/testing_your_workflow.py
"""

from dataclasses import dataclass
from datetime import timedelta

from reflow import Event, Flow, Retry, StepFailedError, WaitTimeoutError, sleep, step, wait_event, workflow
from reflow.testing import After, assert_replays, crash_everywhere, run_workflow


@dataclass
class Approval:
    by: str


approval = Event("approval", Approval)


async def charge(cents: int) -> str:
    raise ConnectionError("an example has no bank")


def send_mail(address: str, text: str) -> None:
    raise ConnectionError("nor a mail server")


@workflow
def order(address: str, cents: int) -> Flow[str]:
    try:
        answer = yield from wait_event(approval, timeout="48h")
    except WaitTimeoutError:
        return "nobody approved"
    try:
        retry = Retry(max_attempts=3, initial_delay="1m", jitter=False)
        receipt = yield from step(charge, cents).options(retry=retry, timeout="10s")
    except StepFailedError as error:
        yield step(send_mail, address, f"sorry: {error.error_message}")
        return "not paid"
    yield sleep("14d")
    yield step(send_mail, address, f"{answer.by} would like to know how you like it")
    return receipt


APPROVED = [(approval, Approval("Ada"), "2h")]
STUBS = {charge: "receipt 1", send_mail: None}


def test_an_order():
    """Two hours until the approval, fourteen days until the mail; the test takes a few milliseconds."""
    run = run_workflow(order("a@b.c", 500), stubs=STUBS, events=APPROVED)

    assert run.result == "receipt 1"
    assert run.duration == timedelta(days=14, hours=2)


def test_nobody_approves():
    """The time of a wait is over."""
    assert run_workflow(order("a@b.c", 500)).result == "nobody approved"


def test_the_bank_is_slow():
    """Three attempts of ten seconds each, and two pauses; a stub may be a function."""
    mails = []
    stubs = {charge: After("1h"), "send_mail": lambda address, text: mails.append(text)}
    run = run_workflow(order("a@b.c", 500), stubs=stubs, events=APPROVED)

    assert run.result == "not paid"
    assert mails == ["sorry: timed out after 10 s"]
    assert [(entry.name, entry.attempts) for entry in run.journal] == [("approval", 1), ("charge", 3), ("send_mail", 1)]


def test_it_survives_every_crash():
    """Killed at every point and resumed, it gives the same, and nobody is charged twice for a stored receipt."""
    assert crash_everywhere(order("a@b.c", 500), stubs=STUBS, events=APPROVED) > 10


def test_an_old_run_replays():
    """A run that was recorded (here: a moment ago) would do the same with today's code."""
    recorded = run_workflow(order("a@b.c", 500), stubs=STUBS, events=APPROVED).transcript

    assert_replays(order, recorded)


if __name__ == "__main__":
    for name, test in [(name, value) for name, value in globals().items() if name.startswith("test_")]:
        test()
        print(f"{name}: passed")
