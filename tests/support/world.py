"""`World`: a storage, a virtual clock, and any number of engines on them. It carries most tests."""

from __future__ import annotations

from typing import Any

from reflow import Call, Engine, MsgpackCodec, RunInfo, RunStatus, StorageAdapter, Workflow
from reflow._core.duration import Duration
from reflow.testing import VirtualClock


class World:
    """Engines made here do not claim by themselves: `tick` and `drain` let them work, `advance` turns the clock.

    `async with world.engine(...)` starts one that does.
    """

    def __init__(self, storage: StorageAdapter) -> None:
        self.storage = storage
        self.clock = VirtualClock()
        self.codec = MsgpackCodec()

    def engine(self, *workflows: Workflow[..., Any], storage: StorageAdapter | None = None, **options: Any) -> Engine:
        """An engine that knows these workflows."""
        return Engine(storage or self.storage, workflows, **({"clock": self.clock} | options))

    async def settle(self, call: Call[Any], *, run_id: str = "r", **options: Any) -> RunInfo:
        """Enqueue `call` on an engine of its own, let it work until nothing is due, and show the run."""
        engine = self.engine(call.workflow, **options)
        run = await engine.enqueue(call, run_id=run_id)
        await engine.drain()
        return await run.info()

    async def continued(self, workflow: Workflow[..., Any], *, after: Duration = 0, run_id: str = "r") -> RunInfo:
        """The run, after the clock was turned and a new engine has done what is due."""
        self.clock.advance(after)
        engine = self.engine(workflow)
        await engine.drain()
        return await (await engine.handle(run_id)).info()

    async def info(self, run_id: str = "r") -> RunInfo:
        """The run as any client sees it."""
        info = await self.engine().get_run(run_id)
        assert info is not None
        return info

    async def given_back(self, run_id: str = "r") -> bool:
        """Whether the run is as an engine leaves it that stops: pending, due, without lease, output or error."""
        row = await self.storage.get_run(run_id)
        assert row is not None
        state = (row.status, row.lease_id, row.output, row.error)
        return state == (RunStatus.PENDING, None, None, None) and (row.due_at or 0) <= self.clock.now()
