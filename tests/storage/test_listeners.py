"""What our own adapters tell beyond the contract: which run a hint is about."""

from __future__ import annotations

import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from reflow import StorageAdapter
from reflow.testing.conformance.words import NOW, entry, hold, new_run, progress

pytestmark = pytest.mark.anyio


async def test_the_hint_names_the_run(storage: StorageAdapter):
    """A listener is told by its id of a run that is to be cancelled or was sent a message, also where a write of
    another run has cancelled it."""
    calls: list[str | None] = []
    await storage.initialize()
    await storage.create_runs([new_run(run_id, workflow="v") for run_id in ("asked", "theirs", "sent")])
    lease = await hold(storage)
    async with create_task_group() as tasks:
        tasks.start_soon(storage.listen, calls.append)
        await wait_all_tasks_blocked()
        await storage.save_progress(progress(lease, entries=[entry("0")], cancelled=["theirs"]))
        await storage.request_cancel("asked", now=NOW)
        await storage.send_message("sent", "name", b"", now=NOW)
        with fail_after(20):
            while not {"asked", "theirs", "sent"} <= set(calls):
                await checkpoint()
        tasks.cancel_scope.cancel()
    await storage.close()

    assert {"asked", "theirs", "sent"} <= set(calls)
