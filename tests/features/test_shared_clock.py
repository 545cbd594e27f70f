"""Engines on machines whose clocks are wrong: the storage's clock is the one that counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from anyio import Event, fail_after

from reflow import Client, Engine, Flow, sleep, step, workflow
from reflow.storage.postgres import PostgresStorage
from reflow.testing.conformance.words import get
from tests.support.postgres import Schemas
from tests.support.postgres.outside import Outside, outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000
NOW = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint"


@pytest.fixture(params=[HOUR_US, -HOUR_US], ids=["ahead", "behind"])
def wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's clock is an hour off."""
    machine = SimpleNamespace(time_ns=lambda: time.time_ns() + request.param * 1_000)
    monkeypatch.setattr("reflow._engine.clock.time", machine)


@pytest.fixture
def place(schemas: Schemas) -> Iterator[Place]:
    """A schema."""
    with schemas.lend() as place:
        yield place


def seconds_from_now(beside: Outside, at: int | None) -> float:
    """How far an instant is from the time of the server."""
    assert at is not None
    return (at - beside.one(NOW)) / 1_000_000


@pytest.mark.usefixtures("wrong")
async def test_due_times_and_leases_are_of_the_servers_clock(place: Place):
    """[199] On a machine whose clock is an hour off, delays, sleeps and leases are stored by the server's clock, and
    nothing is late or early."""
    reached, go_on = Event(), Event()

    async def wait() -> None:
        reached.set()
        await go_on.wait()

    @workflow
    def flow() -> Flow[None]:
        yield sleep("20ms")
        yield step(wait)
        yield sleep("10m")

    storage = PostgresStorage(place.dsn, schema=place.schema)
    with outside(place) as beside:
        async with Engine(storage, [flow]) as engine:
            later = await engine.enqueue(flow(), delay="5m")
            run = await engine.enqueue(flow())
            with fail_after(20):
                await reached.wait()
            held = seconds_from_now(beside, (await get(storage, run.run_id)).due_at)
            delayed = seconds_from_now(beside, (await get(storage, later.run_id)).due_at)
            go_on.set()
            await beside.soon("select exists (select from run where status = 'sleeping')")
            asleep = seconds_from_now(beside, (await get(storage, run.run_id)).due_at)

    assert 280 < delayed <= 301
    assert 10 < held <= 31
    assert 580 < asleep <= 601


@pytest.mark.usefixtures("wrong")
async def test_a_client_goes_by_it_too(place: Place, monkeypatch: pytest.MonkeyPatch):
    """[199] What a client on such a machine enqueues is due now, and is run at once by an engine on a machine whose
    clock is right."""

    async def body() -> str:
        return "done"

    @workflow
    def flow() -> Flow[str]:
        return (yield from step(body))

    async with Client(PostgresStorage(place.dsn, schema=place.schema)) as client:
        run = await client.enqueue("flow", {}, version=1)
        with outside(place) as beside:
            assert abs(seconds_from_now(beside, (await client._row(run.run_id)).due_at)) < 20
        monkeypatch.undo()
        async with Engine(PostgresStorage(place.dsn, schema=place.schema), [flow]):
            with fail_after(20):
                assert "done" == await run.result()
