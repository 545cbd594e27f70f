"""Notices between processes on one Postgres server: soon, few, outside transactions, and only a hint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from anyio import Event, fail_after, to_thread
from psycopg.sql import SQL, Identifier

from reflow import Client, Engine, Flow, RunCompleted, RunStatus, step, wait_event, workflow
from reflow.storage.postgres import PostgresStorage
from reflow.storage.records import Ending
from reflow.testing import VirtualClock
from reflow.testing.conformance.words import (
    NOW,
    bound,
    claim,
    create,
    entry,
    hold,
    new_run,
    progress,
    resume,
    schedule,
    together,
)
from tests.support.postgres.hearing import Heard, listening
from tests.support.postgres.outside import Outside
from tests.support.postgres.schemas import Place

pytestmark = pytest.mark.anyio

Pair = tuple[PostgresStorage, PostgresStorage]
LISTENING = "listen %"
NOTIFYING = "select pg_notify%"


@pytest.fixture
async def heard(pair: Pair) -> AsyncIterator[Heard]:
    """Who listens to the second adapter."""
    async with listening(pair[1]) as heard:
        yield heard


@pytest.fixture
def listener(place: Place) -> Any:
    """A connection of no adapter that listens."""
    with psycopg.connect(place.dsn, autocommit=True, application_name="listener") as connection:
        connection.execute(SQL("listen {}").format(Identifier(f"reflow_{place.schema}")))
        yield connection


async def test_what_one_adapter_commits_the_other_hears(pair: Pair, heard: Heard):
    """[200] Whatever verb makes a run due, ends one or sends it something, a listener on another adapter hears."""
    one = pair[0]
    lease = await hold(one)
    await heard.by(bound(create, one, new_run("new")))
    await heard.by(bound(one.send_message, "r", "go", b"", now=NOW))
    await heard.by(bound(one.request_cancel, "r", now=NOW))
    await heard.by(bound(one.save_progress, progress(lease, children=[new_run("c", parent="r", parent_position="0")])))
    await heard.by(bound(one.save_progress, progress(lease, ending=Ending(RunStatus.CANCELLED))))
    await heard.by(bound(resume, one))
    await heard.by(bound(one.put_schedule, schedule()))
    fired = bound(
        one.fire_schedule, "s", expected_next_at=NOW, next_at=NOW + 1, runs=[new_run("fired", due_at=NOW)], now=NOW
    )
    await heard.by(fired)


async def echo(word: str) -> str:
    """A body."""
    return word


@workflow
def conversation() -> Flow[str]:
    """Waits to be told something."""
    word = yield from wait_event("word", str)
    return (yield from step(echo, word))


async def test_an_engine_hears_without_looking(place: Place):
    """[200] An engine whose time stands still, so that it never looks by itself, takes up at once what another process
    enqueues and sends."""
    ended, clock = Event(), VirtualClock()
    outputs: list[str] = []

    def hook(told: Any) -> None:
        if isinstance(told, RunCompleted):
            outputs.append(told.run_id)
            ended.set()

    storages = [PostgresStorage(place.dsn, schema=place.schema) for _ in range(2)]
    async with (
        Engine(storages[0], [conversation], hooks=[hook], clock=clock),
        Client(storages[1], clock=clock) as client,
    ):
        with fail_after(20):
            await client.enqueue("conversation", run_id="r")
            assert await client.send_event("r", "word", "hello")
            await ended.wait()

    assert ["r"] == outputs


async def test_a_burst_is_few_notices(pair: Pair, listener: Any, beside: Outside):
    """[200] Five hundred runs that are created one by one make few notices: at most one every ten milliseconds."""
    began = beside.one("select extract(epoch from clock_timestamp())::float")
    await together(*(bound(create, pair[0], new_run(str(number))) for number in range(250)))
    for number in range(250):
        await create(pair[0], new_run(f"more {number}"))
    took_s = beside.one("select extract(epoch from clock_timestamp())::float") - began
    await pair[0].close()

    notices = list(listener.notifies(timeout=0.05))
    await pair[0].initialize()

    assert 1 <= len(notices) <= took_s / 0.01 + 3
    assert len(notices) < 250
    assert {""} == {notice.payload for notice in notices}


async def test_what_concerns_nobody_is_not_told(pair: Pair, listener: Any):
    """Claims, heartbeats and appends make no notice."""
    lease = await hold(pair[0])
    assert list(listener.notifies(timeout=5, stop_after=1))
    for number in range(20):
        await pair[0].save_progress(progress(lease, recorded=number, entries=[entry(str(number))]))
        await pair[0].heartbeat([lease], lease_until=NOW * 2)
        await claim(pair[0])

    assert [] == list(listener.notifies(timeout=0.05))


async def test_no_notice_within_a_transaction_that_writes(pair: Pair, beside: Outside, heard: Heard):
    """Notices come from a connection of their own, which does nothing else; the one that writes sends none."""
    assert pair[0]._lanes is not None
    session: Any = pair[0]._lanes.writing._session
    writer = session.connection.info.backend_pid
    for number in range(5):
        await heard.by(bound(create, pair[0], new_run(str(number))))

    notifiers = beside.others(NOTIFYING)

    assert writer not in notifiers
    assert 1 == len(notifiers)


@pytest.mark.parametrize("whose", [LISTENING, NOTIFYING])
async def test_a_connection_for_notices_comes_back(pair: Pair, beside: Outside, heard: Heard, whose: str):
    """[200] When the connection that listens was ended, a new one wakes everybody, for what was missed, and hears what
    follows; when that which tells was ended, the next notice is sent all the same."""
    await heard.by(bound(create, pair[0], new_run("before")))

    async def terminate() -> None:
        assert await to_thread.run_sync(beside.terminate, whose)

    if whose == LISTENING:
        await heard.by(terminate)
        await beside.soon("select count(*) = 2 from pg_stat_activity where query like 'listen %'")
    else:
        await terminate()
    await heard.by(bound(create, pair[0], new_run("after")))


async def test_without_listening(place: Place, beside: Outside):
    """With `listen=False` there are no connections for notices, and runs are done all the same."""
    async with Engine(PostgresStorage(place.dsn, schema=place.schema, listen=False), [conversation]) as engine:
        run = await engine.enqueue(conversation())
        async with Client(PostgresStorage(place.dsn, schema=place.schema, listen=False)) as client:
            assert await client.send_event(run.run_id, "word", "hello")
        with fail_after(20):
            result = await run.result()
        counts = [len(beside.others(doing)) for doing in (LISTENING, NOTIFYING)]

    assert ("hello", [0, 0]) == (result, counts)
