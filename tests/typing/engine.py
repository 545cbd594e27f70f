"""What type checkers see of engines and runs. Checked by mypy --strict and pyright strict, never executed."""

from __future__ import annotations

from typing import Any, assert_type

import reflow
from reflow import Engine, Flow, MemoryStorage, Run, RunInfo, SQLiteStorage, StorageAdapter, step, workflow


async def count(text: str) -> int:
    return len(text)


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


def script() -> None:
    assert_type(reflow.run(measured("a"), storage="a.db", run_id="a"), int)


def adapters() -> list[StorageAdapter]:
    return [MemoryStorage(), SQLiteStorage("a.db", durability="process")]


async def wrong(engine: Engine) -> None:
    await engine.enqueue(measured)  # type: ignore[call-overload]
    await engine.execute(measured(1))  # type: ignore[arg-type]
    text: str = await engine.execute(measured("a"))  # type: ignore[arg-type]
    reflow.run(measured("a"), storage=5)  # type: ignore[arg-type]
    SQLiteStorage("a.db", durability="fast")  # type: ignore[arg-type]
    print(text)
