"""`python -m tests.golden` records the runs of which there is no golden transcript yet. None is ever written again."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import anyio

from reflow import Call
from reflow._core.replay import RULES
from reflow.testing import After, Sandbox, SentEvent, Transcript, record
from tests.golden import workflows
from tests.golden.workflows import Money, approval

HERE = Path(__file__).parent / f"rules_{RULES}"
EVENTS: list[SentEvent] = [(approval, Money(Decimal("9.99")), "14d12h"), ("note", "hello"), ("other", 1)]
CALLS: dict[str, Call[object]] = {
    "chain": workflows.chain(4),
    "values": workflows.values(),
    "failures": workflows.failures(),
    "failing": workflows.failing(),
    "waits": workflows.waits(),
    "groups": workflows.groups(),
    "family": workflows.family(),
    "counted": workflows.counted(2),
    "changed": workflows.changed(),
    "cancelled": workflows.cancelled(),
    "unfinished": workflows.unfinished(),
}


async def recorded(call: Call[object]) -> Transcript:
    """What a run of `call` leaves after five hundred days; the one that is to be cancelled is, after one."""
    async with Sandbox(workflows.ALL, stubs={"slow": After("1h")}) as sandbox:
        run = await sandbox.begin(call, run_id="golden", events=EVENTS)
        await sandbox.clock.sleep("1d")
        if call.workflow is workflows.cancelled:
            await sandbox.cancel(run.run_id)
        await sandbox.clock.sleep("500d")
        return await record(run)


if __name__ == "__main__":
    for name, call in CALLS.items():
        file = HERE / f"{name}.jsonl"
        if not file.exists():
            file.write_text(str(anyio.run(recorded, call)), encoding="utf-8")
            print(f"{file}: recorded")
