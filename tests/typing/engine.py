"""[12] What type checkers see of engines and runs. Checked by mypy --strict and pyright strict, never executed."""

from __future__ import annotations

from typing import Any, assert_type

import reflow
from reflow import (
    Client,
    Engine,
    EntryInfo,
    Event,
    Flow,
    MemoryStorage,
    Run,
    RunInfo,
    RunPage,
    ScheduleInfo,
    SQLiteStorage,
    Standing,
    Statistics,
    StorageAdapter,
    step,
    workflow,
)


async def count(text: str) -> int:
    return len(text)


approval = Event("approval", bool)


@workflow
def measured(text: str) -> Flow[int]:
    length = yield from step(count, text)
    return length


async def application() -> None:
    async with Engine(SQLiteStorage("app.db"), [measured]) as engine:
        assert_type(engine, Engine)
        run = await engine.enqueue(measured("a"), run_id="a")
        assert_type(run, Run[int])
        assert_type(await run.result(), int)
        assert_type(await engine.execute(measured("a")), int)
        assert_type(await engine.get_run("a"), RunInfo | None)
        assert_type(await engine.handle("a"), Run[Any])
        assert_type(await engine.tick(), int)


async def clients() -> None:
    async with Client(SQLiteStorage("app.db")) as client:
        assert_type(client, Client)
        assert_type(await client.enqueue("measured", {"text": "a"}, version=2, tags=["a"], delay="1h"), Run[Any])
        assert_type(await client.enqueue(measured("a"), idempotency_key="k", priority=1), Run[int])
        assert_type(await client.enqueue_many([measured("a")], idempotency_keys=["k"]), list[Run[int]])
        assert_type(await client.enqueue_many("measured", [{"text": "a"}]), list[Run[Any]])
        assert_type(await client.execute(measured("a"), priority=1), int)
        assert_type(await client.execute("measured", {"text": "a"}), Any)
        assert_type(await client.send_event("a", approval, True, event_id="e"), bool)
        assert_type(await client.send_event("a", "approval"), bool)
        assert_type(await client.cancel("a"), bool)
        assert_type(await client.resume("a", at="0"), bool)
        assert_type(await client.prune(older_than="30d", statuses=["completed"]), int)


async def looking(client: Client) -> None:
    assert_type(await client.list_runs(status=["failed"], tags=["a"], limit=10), RunPage)
    assert_type(await client.get_cut_entries("a"), tuple[EntryInfo, ...])
    assert_type(await client.statistics(), Statistics)
    assert_type(await client.why("a"), str)
    assert_type(await client.where("a", variables=True), tuple[Standing, ...])


async def schedules(client: Client) -> None:
    assert_type(await client.schedule(measured("a"), cron="@daily", tz="Europe/Berlin", missed="once"), str)
    assert_type(await client.schedule("measured", {"text": "a"}, every="1h", overlap="skip"), str)
    assert_type(await client.unschedule("a"), bool)
    assert_type(await client.pause_schedule("a"), bool)
    assert_type(await client.resume_schedule("a"), bool)
    assert_type(await client.list_schedules(), list[ScheduleInfo])


def script() -> None:
    assert_type(reflow.run(measured("a"), storage="a.db", run_id="a"), int)


def adapters() -> list[StorageAdapter]:
    return [MemoryStorage(), SQLiteStorage("a.db", durability="process")]


async def wrong(engine: Engine) -> None:
    await engine.enqueue(measured)  # type: ignore[call-overload]
    await engine.execute(measured(1))  # type: ignore[arg-type]
    text: str = await engine.execute(measured("a"))  # type: ignore[arg-type]
    await engine.enqueue(measured("a"), priority="high")  # type: ignore[call-overload]
    await engine.send_event("a", approval, "yes")  # type: ignore[misc]
    await engine.schedule(measured("a"), every="1h", missed="none")  # type: ignore[arg-type]
    await engine.schedule(measured("a"), cron=5)  # type: ignore[arg-type]
    reflow.run(measured("a"), storage=5)  # type: ignore[arg-type]
    SQLiteStorage("a.db", durability="fast")  # type: ignore[arg-type]
    print(text)
