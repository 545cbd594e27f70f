"""Looking at runs and steering them: each a verb of `Client`, and what it prints."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from reflow._core.duration import Duration
from reflow._engine.client import Client
from reflow._engine.inspection import RunSummary
from reflow.cli.texts import columns, moment, one_line

__all__ = ["cancel", "enqueue", "list_runs", "prune", "resume", "send", "why"]

_HEADER = ("RUN_ID", "WORKFLOW", "STATUS", "CREATED", "ENDED", "ERROR_OR_DUE")


async def list_runs(
    client: Client, statuses: Sequence[str] | None, workflow: str | None, tags: Sequence[str] | None, limit: int
) -> int:
    """A line for each run, those created last first, under a line that names the columns."""
    page = await client.list_runs(status=statuses, workflow=workflow, tags=tags, limit=limit)
    if not page.runs:
        print("no runs", file=sys.stderr)
        return 0
    for line in columns([_HEADER, *map(_line, page.runs)]):
        print(line)
    return 0


def _line(run: RunSummary) -> Sequence[object]:
    ended_at = run.updated_at if run.status.is_terminal else None
    note = one_line(str(run.error)) if run.error else run.due_at and f"due {moment(run.due_at)}"
    return run.run_id, run.workflow, run.status, moment(run.created_at), moment(ended_at), note or ""


async def why(client: Client, run_id: str) -> int:
    """What it waits for, or how it ended."""
    print(await client.why(run_id))
    return 0


async def enqueue(client: Client, options: Namespace) -> int:
    """Store a run, and print its id."""
    run = await client.enqueue(
        options.workflow,
        options.arguments,
        version=options.version,
        run_id=options.run_id,
        idempotency_key=options.idempotency_key,
        delay=options.delay,
        priority=options.priority,
        tags=options.tag,
    )
    print(run.run_id)
    return 0


async def send(client: Client, run_id: str, event: str, payload: Any, event_id: str | None) -> int:
    """Send it an event."""
    await client.handle(run_id)
    if not await client.send_event(run_id, event, payload, event_id=event_id):
        return await _nothing_done(client, run_id)
    print(f"event {event!r} is sent to run {run_id!r}")
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
