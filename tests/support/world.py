"""`World`: a storage, a virtual clock, and any number of engines on them. It carries most tests."""

from __future__ import annotations

from typing import Any

from reflow import Call, Client, Engine, Event, MsgpackCodec, RunInfo, RunStatus, StorageAdapter, Workflow
from reflow._core.duration import Duration
from reflow.storage.records import Lease
from tests.support.clock import VirtualClock


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

    def client(self) -> Client:
        """A client, which knows no workflows."""
        return Client(self.storage, clock=self.clock)

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

    async def send(
        self, run_id: str, event: Event[Any] | str, payload: Any = None, *, event_id: str | None = None
    ) -> bool:
        """Send an event to the run, as any client does."""
        return await self.client().send_event(run_id, event, payload, event_id=event_id)

    async def cancel(self, run_id: str = "r") -> bool:
        """Ask for the cancellation of the run, as any client does."""
        return await self.client().cancel(run_id)

    async def resume(self, run_id: str = "r", *, at: str | None = None) -> bool:
        """Let an ended run go on, as any client does."""
        return await self.client().resume(run_id, at=at)

    async def take_away(self, run_id: str = "r") -> None:
        """Have another engine, whose clock is an hour ahead, claim the run, and never be heard of again."""
        row = await self.storage.get_run(run_id)
        assert row is not None
        later = self.clock.now() + 3_600_000_000
        claimed = await self.storage.claim_runs(
            [(row.workflow, row.version)], limit=1, lease_id="taken away", now=later, lease_until=later
        )
        assert [run_id] == [run.run_id for run in claimed.runs]

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

    async def lease_ends(self, run_id: str = "r") -> None:
        """The lease of the run ends now, and not when its engine thinks."""
        row = await self.storage.get_run(run_id)
        assert row is not None
        assert row.lease_id is not None
        now = self.clock.now()
        assert [] == await self.storage.heartbeat([Lease(run_id, row.lease_id)], lease_until=now)
