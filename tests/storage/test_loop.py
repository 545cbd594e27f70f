"""Which event loop runs here: asked among the modules that are loaded, whatever state they are in."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import pytest

from reflow import Flow, step, workflow
from reflow.storage.loop import trio_here
from reflow.testing import run_workflow
from tests.support.bodies import give
from tests.support.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@workflow
def flow(value: int) -> Flow[int]:
    """Two steps."""
    yield step(give, value)
    return (yield from step(give, value))


async def test_trio_is_just_being_imported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread is at the import of trio, which is there and has nothing yet, an engine on asyncio goes
    on."""
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))

    async with world.engine(flow) as engine:
        result = await engine.execute(flow(7))

    assert 7 == result


def test_virtual_time_while_trio_is_just_being_imported(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a workflow in virtual time."""
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))

    assert 7 == run_workflow(flow(7), backend=anyio_backend).result


async def test_trio_as_a_guest(world: World) -> None:
    """An engine on asyncio works while trio is a guest in the same event loop."""
    import trio

    loop, over = asyncio.get_running_loop(), asyncio.Event()
    began, leave = asyncio.Event(), trio.Event()
    token: list[trio.lowlevel.TrioToken] = []
    within: list[bool] = []

    async def guest() -> None:
        token.append(trio.lowlevel.current_trio_token())
        within.append(trio_here() is trio)
        began.set()
        await leave.wait()

    trio.lowlevel.start_guest_run(
        guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=lambda outcome: over.set()
    )
    await began.wait()
    try:
        async with world.engine(flow) as engine:
            result = await asyncio.wait_for(engine.execute(flow(7)), 20)
    finally:
        token[0].run_sync_soon(leave.set)
        await over.wait()

    assert ([True], 7) == (within, result)
