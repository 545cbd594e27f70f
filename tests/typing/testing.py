"""[12] What type checkers see of the testing kit. Checked by mypy --strict and pyright strict, never executed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

from reflow import Event, Flow, Run, step, workflow
from reflow.testing import After, Finished, Sandbox, Transcript, assert_replays, crash_everywhere, record, run_workflow

approval = Event("approval", bool)


async def charge(cents: int) -> str:
    """A step body."""
    return str(cents)


@workflow
def signup(cents: int) -> Flow[str]:
    """A workflow."""
    return (yield from step(charge, cents))


def plain() -> None:
    stubs = {charge: "receipt"}
    events = [(approval, True, "2h")]
    run = run_workflow(signup(5), stubs=stubs, events=events, start=datetime(2026, 1, 1, tzinfo=UTC))
    assert_type(run, Finished[str])
    assert_type(run.result, str)
    assert_type(run.transcript, Transcript)
    assert_type(crash_everywhere(signup(5), stubs={charge: After("1h", "receipt"), "other": None}), int)
    assert_replays(signup, run.transcript)
    assert_replays([signup], run.transcript)
    run_workflow(signup, stubs=stubs)  # type: ignore[arg-type]
    run_workflow(signup(5), events=["approval"])  # type: ignore[list-item]


async def inside(run: Run[Any]) -> None:
    async with Sandbox([signup], stubs={charge: "receipt"}, concurrency=3) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(await sandbox.execute(signup(5)), str)
        assert_type(await sandbox.finished(await sandbox.enqueue(signup(5))), Finished[str])
        assert_type(await record(run), Transcript)
