"""The workflows of the golden transcripts. Their code may not change: it is what old runs were recorded with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from reflow import (
    Event,
    Flow,
    Retry,
    RunFailedError,
    StepFailedError,
    StepTimeoutError,
    WaitTimeoutError,
    Winner,
    continue_as_new,
    gather,
    new_random,
    new_uuid,
    now,
    patched,
    race,
    sleep,
    spawn,
    step,
    wait_event,
    workflow,
)


@dataclass
class Money:
    """A value with a type of its own."""

    amount: Decimal
    at: datetime | None = None


class Declined(Exception):
    """Named in `raises=`."""


approval = Event("approval", Money)


async def add(a: int, b: int) -> int:
    """An async body."""
    return a + b


def pay(money: Money) -> Money:
    """A body in a thread."""
    return money


async def fail(message: str) -> int:
    """Always fails."""
    raise Declined(message, 3)


async def read(data: bytes) -> dict[int, bytes]:
    """What JSON cannot say."""
    return {1: data}


@workflow
def chain(length: int) -> Flow[int]:
    """Steps in a row."""
    total = 0
    for number in range(length):
        total = yield from step(add, total, number)
    return total


@workflow
def values() -> Flow[tuple[Money, dict[int, bytes], datetime, UUID, int]]:
    """Values of all kinds, and what is derived or recorded."""
    money = yield from step(pay, Money(Decimal("1.50")))
    data = yield from step(read, b"\x00\xff")
    moment = yield from now()
    name = yield from new_uuid()
    chance = yield from new_random()
    return Money(money.amount, moment), data, moment, name, chance.randrange(1_000_000)


@workflow
def failures() -> Flow[list[str]]:
    """Failures that are caught: retried, rebuilt, timed out."""
    seen: list[str] = []
    try:
        yield step(fail, "retried").options(retry=Retry(max_attempts=3, initial_delay="1m", jitter=False))
    except StepFailedError as error:
        seen.append(f"{error.error_type} after {error.attempts}")
    try:
        yield step(fail, "rebuilt").options(raises=Declined)
    except Declined as error:
        seen.append(repr(error))
    try:
        yield step(add, 1, 1).options(name="slow", timeout="10s")
    except StepTimeoutError as error:
        seen.append(f"timed out after {error.limit_s:g} s")
    return seen


@workflow
def failing() -> Flow[None]:
    """Fails for good, after clean-up."""
    try:
        yield step(fail, "uncaught")
    finally:
        yield step(add, 1, 2).options(name="clean_up")


@workflow
def waits() -> Flow[list[Any]]:
    """Sleeps and events, in time and not."""
    yield sleep("14d")
    first = yield from wait_event(approval, timeout="1d")
    second = yield from wait_event("note", str)
    try:
        yield wait_event(approval, timeout="1h")
    except WaitTimeoutError as error:
        return [str(first.amount), second, error.limit_s]
    return []


def _branch(start: int) -> Flow[int]:
    first = yield from step(add, start, 1)
    yield sleep(60 - start)
    second = yield from step(add, first, 1)
    return second


def _loser() -> Flow[int]:
    try:
        yield sleep("365d")
        return 0
    finally:
        yield step(add, 0, 0).options(name="clean_up")


@workflow
def groups() -> Flow[list[Any]]:
    """Gathers and races, in each other."""
    bounded = yield from gather(*(_branch(number) for number in range(4)), limit=2)
    mixed = yield from gather(step(fail, "kept"), step(add, 1, 2), return_exceptions=True)
    winner: Winner[Any] = yield from race(_loser(), gather(step(add, 3, 4), race(step(add, 5, 6), sleep("1d"))))
    nothing = yield from gather()
    return [bounded, type(mixed[0]).__name__, mixed[1], winner.index, winner.value[0], nothing]


@workflow
def child(number: int) -> Flow[int]:
    """Started by `family`."""
    if number < 0:
        yield step(fail, "negative")
    yield sleep("1h")
    return (yield from step(add, number, number))


@workflow
def family() -> Flow[list[Any]]:
    """Children that end well and badly, and a run that is spawned."""
    first = yield from child(1)
    run_id = yield from spawn(child(2).options(run_id="spawned"))
    try:
        yield child(-1)
    except RunFailedError as error:
        return [first, run_id, error.is_caused_by(Declined)]
    return []


@workflow
def counted(left: int) -> Flow[str]:
    """Goes on as new."""
    yield step(add, left, 0)
    if left:
        yield continue_as_new(counted(left - 1))
    return "lift-off"


@workflow
def changed() -> Flow[list[Any]]:
    """Has a new way, and an old one."""
    new = yield from patched("ask twice")
    first = yield from step(add, 1, 1)
    if new:
        first += yield from step(add, 2, 2)
    return [new, first]


@workflow
def cancelled() -> Flow[None]:
    """Is cancelled in its sleep, and cleans up."""
    account = yield from step(add, 1, 1)
    try:
        yield sleep("30d")
    finally:
        yield step(add, account, 0).options(name="close_account")


@workflow
def unfinished() -> Flow[int]:
    """Waits for what does not come, beside a retry."""
    patient = Retry(max_attempts=5, initial_delay="400d", max_delay="400d", jitter=False)
    yield step(add, 1, 1)
    yield gather(wait_event("never"), step(fail, "later").options(retry=patient), sleep("900d"), child(7))
    return 0


ALL = [chain, values, failures, failing, waits, groups, child, family, counted, changed, cancelled, unfinished]
