"""`reflow show`: all that is stored of one run."""

from __future__ import annotations

from collections.abc import Iterator

from reflow._engine.client import Client
from reflow._engine.inspection import EntryInfo, RunInfo
from reflow.cli.texts import columns, json, moment, one_line

__all__ = ["show"]

_HEADER = ("POSITION", "KIND", "NAME", "STATUS", "ATTEMPTS", "AT", "VALUE_OR_ERROR")
_LONGEST_VALUE = 100


async def show(client: Client, run_id: str) -> int:
    """How it stands, in a sentence; what it was given and gave; its journal, a line for each entry."""
    run = await (await client.handle(run_id)).info()
    print(await client.why(run_id))
    print()
    for line in columns(list(_facts(run))):
        print(line)
    if run.entries:
        print()
        for line in columns([_HEADER, *map(_line, run.entries)]):
            print(line)
    if run.error and run.error.traceback:
        print(f"\n{run.error.traceback.rstrip()}")
    return 0


def _facts(run: RunInfo) -> Iterator[tuple[str, object]]:
    yield "run_id", run.run_id
    yield "workflow", run.workflow if run.version == 1 else f"{run.workflow} (version {run.version})"
    yield "status", run.status
    yield "input", json(run.input)
    if run.error:
        yield "error", one_line(str(run.error))
    elif run.status.is_terminal:
        yield "output", json(run.output)
    yield "created", moment(run.created_at)
    yield "ended" if run.status.is_terminal else "due", moment(run.updated_at if run.status.is_terminal else run.due_at)
    yield "executions", run.executions
    rare = {"parent": run.parent, "key": run.idempotency_key, "tags": ", ".join(run.tags), "priority": run.priority}
    yield from ((name, fact) for name, fact in rare.items() if fact)


def _line(entry: EntryInfo) -> tuple[object, ...]:
    outcome = str(entry.error) if entry.error else json(entry.value) if entry.finished_at else ""
    if not entry.finished_at and entry.due_at:
        outcome = f"until {moment(entry.due_at)} {outcome}"
    return (
        entry.position,
        entry.kind,
        entry.name,
        entry.status,
        entry.attempts,
        moment(entry.finished_at or entry.started_at),
        one_line(outcome, _LONGEST_VALUE),
    )
