"""What the workers of a fleet on Postgres run: `reflow worker tests.crash.postgres_jobs:WORKFLOWS`, and two releases of
one application, `:FIRST` and `:SECOND`."""

from __future__ import annotations

from typing import Any

import anyio

from reflow import Flow, Retry, current_step, sleep, step, transaction, workflow
from tests.crash import fleet_worker
from tests.crash.fleet_worker import add, began, flaky


def pay(connection: Any, cents: int) -> int:
    """Writes to a table of the user's."""
    began()
    connection.execute("insert into public.bought values (%s, %s)", (current_step().run_id, cents))
    return cents + 1


@workflow
def bought(number: int) -> Flow[int]:
    """Short sleeps, a step that is part of a transaction, and one that parks the run until its next attempt."""
    first = yield from step(add, number, 1)
    yield sleep(0.06 * (number % 4))
    paid = yield from transaction(pay, first)
    tried = yield from step(flaky, paid).options(retry=Retry(max_attempts=3, initial_delay="150ms", jitter=False))
    last = yield from step(add, tried, 1)
    return last


async def tell(release: str, text: str) -> str:
    """Takes a moment."""
    began()
    await anyio.sleep(0.01)
    return f"{text} {release}"


@workflow
def told(text: str) -> Flow[str]:
    """The first release."""
    for _ in range(3):
        text = yield from step(tell, "one", text)
        yield sleep("150ms")
    return text


@workflow(name="told", version=2)
def told_again(text: str) -> Flow[str]:
    """The second release: other steps, in another order."""
    yield sleep("50ms")
    for _ in range(4):
        text = yield from step(tell, "two", text).options(name="tell again")
    return text


WORKFLOWS = [*fleet_worker.WORKFLOWS, bought]
FIRST = [told]
SECOND = [told_again]
