"""[12] What type checkers see of commands, workflows and calls. Checked by mypy --strict and pyright strict, never
executed.

`assert_type` pins what is inferred. Where an error is expected, it is ignored on that very line, by the rule of mypy;
pyright heeds the same comments. Both report an ignore that is not needed, so an error that disappears is an error.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, assert_type
from uuid import UUID

from reflow import (
    Call,
    Codec,
    Event,
    Flow,
    Retry,
    Winner,
    Workflow,
    continue_as_new,
    gather,
    get_logger,
    is_replaying,
    new_random,
    new_uuid,
    now,
    patched,
    race,
    sleep,
    sleep_until,
    spawn,
    step,
    wait_event,
    workflow,
)
from reflow._core.runs import ContinueAsNew
from reflow._core.steps import Step
from reflow._core.waits import Sleep, WaitEvent


@dataclass
class User:
    email: str


@dataclass
class Receipt:
    cents: int


class Declined(Exception):
    """What a step raises."""


async def create_account(email: str, *, trial: bool = False) -> int:
    """An async step body."""
    return len(email)


def charge(account: int, cents: int = 0) -> Receipt:
    """A plain step body."""
    return Receipt(cents)


def log(text: str) -> None:
    """A step body that gives nothing."""


def identity(*values: int, **options: str) -> tuple[int, ...]:
    """A step body of any number of arguments."""
    return values


class Service:
    """An object with step bodies."""

    def method(self, key: str) -> bytes:
        return key.encode()

    async def async_method(self, key: str) -> bytes:
        return key.encode()

    def __call__(self, key: str) -> list[str]:
        return [key]


service = Service()


# ---- a step ----------------------------------------------------------------------------------------------------------


def steps() -> Flow[None]:
    assert_type(step(charge, 1, 500), Step[Receipt])
    assert_type((yield from step(charge, 1, 500)), Receipt)
    assert_type((yield from step(charge, 1, cents=500)), Receipt)
    assert_type((yield from step(create_account, "a@b.c")), int)
    assert_type((yield from step(create_account, "a@b.c", trial=True)), int)
    assert_type((yield from step(identity, 1, 2, 3, a="b")), tuple[int, ...])
    assert_type((yield from step(service.method, "k")), bytes)
    assert_type((yield from step(service.async_method, "k")), bytes)
    assert_type((yield from step(service, "k")), list[str])
    assert_type((yield from step(Receipt, 5)), Receipt)
    result = yield step(charge, 1)
    assert_type(result, Any)


def options() -> Flow[None]:
    command = step(charge, 1).options(
        name="charge card",
        retry=Retry(max_attempts=5, backoff="exponential", initial_delay="200ms", give_up_on=ValueError),
        timeout="10s",
        raises=(Declined, TimeoutError),
    )
    assert_type(command, Step[Receipt])
    assert_type((yield from command.options(retry=None, timeout=timedelta(seconds=1), raises=Declined)), Receipt)


def wrong_steps() -> None:
    step(charge, "1")  # type: ignore[call-overload]
    step(charge)  # type: ignore[call-overload]
    step(charge, 1, 2, 3)  # type: ignore[call-overload]
    step(charge, 1, dollars=5)  # type: ignore[arg-type, call-arg]
    step(create_account, 5)  # type: ignore[call-overload]
    step(create_account, "a", trial="yes")  # type: ignore[arg-type]
    step(create_account)  # type: ignore[call-overload]
    step(service.method, 5)  # type: ignore[call-overload]
    step(5)  # type: ignore[call-overload]
    step(charge(1))  # type: ignore[call-overload]
    step(charge, 1).options(timeout=object())  # type: ignore[arg-type]
    step(charge, 1).options(retry=3)  # type: ignore[arg-type]
    step(charge, 1).options(raises="Declined")  # type: ignore[arg-type]
    step(charge, 1).options(raises=KeyboardInterrupt)  # type: ignore[arg-type]
    step(charge, 1).options(retries=3)  # type: ignore[call-arg]
    step(charge, 1).name = "other"  # type: ignore[misc]
    Retry(backoff="fibonacci")  # type: ignore[arg-type]
    Retry("often")  # type: ignore[arg-type]
    Retry(5, "linear")  # type: ignore[call-arg]


# ---- time, identity, randomness --------------------------------------------------------------------------------------


def others() -> Flow[None]:
    assert_type((yield from now()), datetime)
    assert_type((yield from new_uuid()), UUID)
    assert_type((yield from new_random()), Random)
    assert_type(sleep("14d"), Sleep)
    assert_type(sleep(timedelta(days=1)), Sleep)
    assert_type(sleep_until(datetime.now(UTC)), Sleep)
    yield from sleep(0.5)


def wrong_others() -> None:
    sleep(None)  # type: ignore[arg-type]
    sleep_until("tomorrow")  # type: ignore[arg-type]
    now(1)  # type: ignore[call-arg]


# ---- events ----------------------------------------------------------------------------------------------------------

approval = Event("approval", Receipt)
maybe = Event("maybe", int | None)


def waits() -> Flow[None]:
    assert_type(approval, Event[Receipt])
    assert_type(maybe, Event[Any])
    assert_type(Event("any"), Event[Any])
    assert_type(Event("rows", list[int]), Event[list[int]])
    assert_type(wait_event(approval), WaitEvent[Receipt])
    assert_type((yield from wait_event(approval, timeout="48h")), Receipt)
    assert_type((yield from wait_event("approval", Receipt, timeout=timedelta(days=2))), Receipt)
    assert_type((yield from wait_event("rows", type=list[int])), list[int])
    assert_type((yield from wait_event("maybe", int | None)), Any)
    assert_type((yield from wait_event("anything")), Any)
    winner = yield from race(wait_event(approval), sleep("1d"))
    assert_type(winner.value, Receipt | None)


def sends(codec: Codec) -> None:
    assert_type(approval.encode(Receipt(1), codec), bytes)
    approval.encode("text", codec)  # type: ignore[arg-type]


def wrong_waits() -> None:
    wait_event(5)  # type: ignore[call-overload]
    wait_event(approval, Receipt)  # type: ignore[call-overload]
    wait_event("paid", timeout=object())  # type: ignore[call-overload]
    Event(5, int)  # type: ignore[call-overload]


# ---- gather ----------------------------------------------------------------------------------------------------------


def provision(account: int) -> Flow[bytes]:
    """A branch."""
    yield step(charge, account)
    return b""


def gathers() -> Flow[None]:
    a, b, c = step(charge, 1), step(create_account, "a"), step(log, "a")
    assert_type((yield from gather()), tuple[()])
    assert_type((yield from gather(a)), tuple[Receipt])
    assert_type((yield from gather(a, b)), tuple[Receipt, int])
    assert_type((yield from gather(a, b, provision(1))), tuple[Receipt, int, bytes])
    assert_type((yield from gather(a, b, provision(1), now())), tuple[Receipt, int, bytes, datetime])
    assert_type((yield from gather(a, b, provision(1), now(), sleep(1))), tuple[Receipt, int, bytes, datetime, None])
    assert_type(
        (yield from gather(a, b, provision(1), now(), c, new_uuid())),
        tuple[Receipt, int, bytes, datetime, None, UUID],
    )
    assert_type((yield from gather(a, b, limit=1)), tuple[Receipt, int])
    first, second = yield from gather(a, b)
    assert_type(first, Receipt)
    assert_type(second, int)


def gathers_of_many(accounts: Sequence[int]) -> Flow[None]:
    steps = [step(charge, account) for account in accounts]
    assert_type((yield from gather(*steps)), tuple[Receipt, ...])
    assert_type((yield from gather(*steps, limit=5)), tuple[Receipt, ...])
    assert_type((yield from gather(*(step(charge, account) for account in accounts))), tuple[Receipt, ...])
    assert_type((yield from gather(*(provision(account) for account in accounts))), tuple[bytes, ...])
    assert_type((yield from gather(*steps, return_exceptions=True)), tuple[Receipt | Exception, ...])


def gathers_with_exceptions(keep: bool) -> Flow[None]:
    a, b = step(charge, 1), step(create_account, "a")
    assert_type((yield from gather(a, return_exceptions=True)), tuple[Receipt | Exception])
    assert_type((yield from gather(a, b, return_exceptions=True)), tuple[Receipt | Exception, int | Exception])
    assert_type(
        (yield from gather(a, b, provision(1), limit=2, return_exceptions=True)),
        tuple[Receipt | Exception, int | Exception, bytes | Exception],
    )
    assert_type((yield from gather(a, b, return_exceptions=False)), tuple[Receipt, int])
    assert_type((yield from gather(a, a, return_exceptions=keep)), tuple[Receipt | Exception, ...])


def nested() -> Flow[None]:
    inner = gather(step(charge, 1), race(now(), provision(1)))
    assert_type((yield from inner), tuple[Receipt, Winner[datetime | bytes]])
    assert_type((yield from gather(inner, gather())), tuple[tuple[Receipt, Winner[datetime | bytes]], tuple[()]])


def wrong_gathers() -> None:
    gather([step(charge, 1)])  # type: ignore[call-overload]
    gather(charge)  # type: ignore[call-overload]
    gather(create_account("a"))  # type: ignore[call-overload]
    gather(provision)  # type: ignore[call-overload]
    gather(step(charge, 1), limit="2")  # type: ignore[call-overload]


# ---- race ------------------------------------------------------------------------------------------------------------


def races(accounts: Sequence[int]) -> Flow[None]:
    a, b = step(charge, 1), step(create_account, "a")
    assert_type((yield from race(a)), Winner[Receipt])
    winner = yield from race(a, b)
    assert_type(winner, Winner[Receipt | int])
    assert_type(winner.index, int)
    assert_type(winner.value, Receipt | int)
    assert_type((yield from race(a, b, provision(1))), Winner[Receipt | int | bytes])
    assert_type((yield from race(a, b, provision(1), sleep(5))), Winner[Receipt | int | bytes | None])
    assert_type((yield from race(*(step(charge, account) for account in accounts))), Winner[Receipt])


def wrong_races() -> None:
    race([step(charge, 1)])  # type: ignore[call-overload]
    race(charge)  # type: ignore[call-overload]
    race(step(charge, 1), limit=2)  # type: ignore[call-overload]


# ---- workflows and calls ---------------------------------------------------------------------------------------------


@workflow
def signup(user: User, *, trial: bool = False) -> Flow[Receipt]:
    """A workflow."""
    account = yield from step(create_account, user.email)
    return (yield from step(charge, account))


@workflow(name="import-file", version=2)
def import_file(path: str, *rows: int) -> Flow[None]:
    """A workflow with options."""
    yield from step(log, path)


@workflow()
def nothing() -> Flow[int]:
    """A workflow without parameters."""
    yield now()
    return 1


def calls() -> None:
    assert_type(signup(User("a@b.c")), Call[Receipt])
    assert_type(signup(user=User("a@b.c"), trial=True), Call[Receipt])
    assert_type(import_file("a.csv", 1, 2), Call[None])
    assert_type(nothing(), Call[int])
    typed: Workflow[[], int] = nothing
    call: Call[object] = signup(User("a"))
    print(typed, call)


def wrong_calls() -> None:
    signup("a@b.c")  # type: ignore[arg-type]
    signup()  # type: ignore[call-arg]
    signup(User("a"), True)  # type: ignore[call-arg]
    signup(User("a"), colour="red")  # type: ignore[call-arg]
    import_file(5)  # type: ignore[arg-type]
    import_file("a", "b")  # type: ignore[arg-type]
    nothing(1)  # type: ignore[call-arg]
    signup(User("a")).arguments = {}  # type: ignore[misc]


def children(user: User) -> Flow[None]:
    assert_type((yield from signup(user)), Receipt)
    assert_type(signup(user).options(run_id="own"), Call[Receipt])
    assert_type((yield from signup(user).options(run_id="own")), Receipt)
    assert_type((yield from gather(signup(user), nothing(), step(log, "a"))), tuple[Receipt, int, None])
    assert_type((yield from race(signup(user), nothing())), Winner[Receipt | int])
    assert_type((yield from spawn(signup(user))), str)
    assert_type((yield from patched("ask twice")), bool)


def goes_on(page: int) -> Flow[int]:
    if (yield from patched("pages")):
        assert_type(continue_as_new(nothing()), ContinueAsNew)
        yield from continue_as_new(nothing())
    return page


def wrong_runs(user: User) -> None:
    spawn(signup)  # type: ignore[arg-type]
    spawn(step(log, "a"))  # type: ignore[arg-type]
    continue_as_new(signup)  # type: ignore[arg-type]
    patched(5)  # type: ignore[arg-type]
    patched()  # type: ignore[call-arg]
    signup(user).options(timeout=5)  # type: ignore[call-arg]


def logs() -> None:
    get_logger("app").info("text %s", 5)
    assert_type(is_replaying(), bool)


def helper(user: User) -> Flow[Receipt]:
    account = yield from step(create_account, user.email)
    receipt = yield from step(charge, account)
    assert_type(receipt, Receipt)
    return receipt


def uses_helper(user: User) -> Flow[int]:
    receipt = yield from helper(user)
    assert_type(receipt, Receipt)
    return receipt.cents


def wrong_bodies(user: User) -> Flow[int]:
    yield charge  # type: ignore[misc]
    yield [step(charge, 1)]  # type: ignore[misc]
    yield create_account("a")  # type: ignore[misc]
    return "text"  # type: ignore[return-value]


@workflow  # type: ignore[arg-type]
async def asynchronous(user: User) -> int:
    return 1


@workflow  # type: ignore[arg-type]
def no_generator(user: User) -> int:
    return 1


@workflow(version="2")  # type: ignore[call-overload, untyped-decorator]
def wrong_version() -> Flow[None]:
    yield now()
