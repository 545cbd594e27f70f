"""An order of several parcels: each parcel is a run of its own, and a survey goes out on its own account.

    python examples/child_workflows.py apple bread unicorn

A child run has its own journal, retries and result. What it fails with is raised at its parent's yield; what it did is
kept under its own id, and it can be looked at, cancelled and resumed by itself.
"""

import sys

import anyio

from reflow import Engine, Flow, Retry, RunFailedError, SQLiteStorage, gather, sleep, spawn, step, workflow


async def pack(item: str) -> str:
    if item == "unicorn":
        raise LookupError("no unicorns in stock")
    return f"parcel with {item}"


async def hand_over(parcel: str) -> str:
    print(f"handed over: {parcel}")
    return f"{parcel}, on its way"


async def mail(text: str) -> None:
    print(f"mail: {text}")


@workflow
def shipment(item: str) -> Flow[str]:
    parcel = yield from step(pack, item).options(retry=Retry(max_attempts=2, initial_delay=0))
    return (yield from step(hand_over, parcel))


@workflow
def survey(order_id: str) -> Flow[None]:
    yield sleep("200ms")  # a week, in life
    yield step(mail, f"how was {order_id}?")


def shipped(item: str) -> Flow[str]:
    """A branch: one parcel that fails does not stop the others."""
    try:
        return (yield from shipment(item))
    except RunFailedError as error:
        return f"no {item}: {error.failure.message}"


@workflow
def order(order_id: str, items: list[str]) -> Flow[list[str]]:
    # Three parcels at a time, however many there are.
    parcels = yield from gather(*(shipped(item) for item in items), limit=3)
    # Not waited for: it outlives the order.
    yield spawn(survey(order_id).options(run_id=f"{order_id}:survey"))
    return list(parcels)


async def main(items: list[str]) -> None:
    async with Engine(SQLiteStorage("orders.db"), [order, shipment, survey]) as engine:
        run = await engine.enqueue(order("order-1", items), run_id="order-1")
        for parcel in await run.result():
            print(parcel)
        await (await engine.handle("order-1:survey")).result()
        for child in reversed((await engine.list_runs(limit=100)).runs):
            print(f"{child.run_id} ({child.workflow}) {child.status}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    anyio.run(main, sys.argv[1:])
