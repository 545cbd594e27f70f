"""Looking at runs and steering them: each a verb of `Client`, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence

from reflow._core.duration import Duration
from reflow._engine.client import Client

__all__ = ["cancel", "list_runs", "prune", "resume", "why"]


async def list_runs(client: Client, statuses: Sequence[str] | None, workflow: str | None, limit: int) -> int:
    """A line for each run, those created last first."""
    page = await client.list_runs(status=statuses, workflow=workflow, limit=limit)
    for run in page.runs:
        due = f"due {run.due_at:%Y-%m-%d %H:%M:%S}" if run.due_at else ""
        print(f"{run.run_id}  {run.workflow}  {run.status}  {run.error or due}".rstrip())
    return 0


async def why(client: Client, run_id: str) -> int:
    """What it waits for, or how it ended."""
    print(await client.why(run_id))
    return 0


async def cancel(client: Client, run_id: str) -> int:
    """Ask for its cancellation."""
    run = await client.handle(run_id)
    if not await client.cancel(run_id):
        return await _nothing_done(client, run_id)
    is_over = (await run.info()).status.is_terminal
    print(f"run {run_id!r} is {'cancelled' if is_over else 'to be cancelled: it cleans up first'}")
    return 0


async def resume(client: Client, run_id: str) -> int:
    """Let it go on."""
    await client.handle(run_id)
    if not await client.resume(run_id):
        return await _nothing_done(client, run_id)
    print(f"run {run_id!r} goes on")
    return 0


async def _nothing_done(client: Client, run_id: str) -> int:
    print(f"nothing was done: {await client.why(run_id)}")
    return 1


async def prune(client: Client, older_than: Duration) -> int:
    """Delete what ended long ago."""
    print(f"{await client.prune(older_than=older_than)} runs deleted")
    return 0
