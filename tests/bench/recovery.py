"""W3: a process with a long run is killed (SIGKILL), and a new one takes the run over.

What is measured is the time from entering the new engine to the first step body that has no stored result. The journal
is written by the process that is killed, in the rows a chain writes, but many to a commit: how it got there is W1.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from uuid import uuid4

import anyio

from reflow import MsgpackCodec, SQLiteStorage
from reflow._core.journal import Entry
from reflow._core.replay import RULES
from reflow.storage.records import Lease, NewRun, Progress
from tests.bench import workflows
from tests.bench.setting import Setting

_CHUNK = 1_000


async def measure(setting: Setting) -> None:
    """Nothing stored, 2,000 steps, 100,000 steps; the first is the fixed part of a start."""
    sizes = (0, 2_000, 10_000 if setting.quick else 100_000)
    times = {stored: await _recover(setting, stored) for stored in sizes}
    for stored in sizes[1:]:
        setting.show(
            "W3 recovery",
            stored_steps=stored,
            milliseconds=times[stored] * 1e3,
            fixed_milliseconds=times[0] * 1e3,
            us_per_step=(times[stored] - times[0]) / stored * 1e6,
        )


async def _recover(setting: Setting, stored: int) -> float:
    storage = setting.storage(f"recovery-{stored}")
    command = [sys.executable, "-m", "tests.bench.recovery", str(storage.path), str(stored)]
    process = await anyio.to_thread.run_sync(lambda: subprocess.Popen(command, stdout=subprocess.PIPE))
    assert process.stdout is not None
    await anyio.to_thread.run_sync(process.stdout.readline)
    process.kill()
    assert await anyio.to_thread.run_sync(process.wait) == -signal.SIGKILL
    process.stdout.close()

    workflows.began.clear()
    started = time.perf_counter()
    async with setting.engine(storage, workflows.marked) as engine:
        result = await (await engine.handle("long")).result()
    assert result == (stored + 1) * stored // 2
    assert len(workflows.began) == 1
    return workflows.began[0] - started


async def _write_and_wait(path: str, stored: int) -> None:
    """The process that is killed: its lease is over as soon as it has it, so that the next need not wait."""
    storage, codec = SQLiteStorage(path, durability="process"), MsgpackCodec()
    await storage.initialize()
    data = workflows.marked.encode_input({"length": stored + 1}, codec)
    await storage.create_runs([NewRun("long", "marked", 1, RULES, data, due_at=0, created_at=0)])
    lease = Lease("long", uuid4().hex)
    await storage.claim_runs([("marked", 1)], limit=1, lease_id=lease.lease_id, now=1, lease_until=2)
    total = 0
    for first in range(0, stored, _CHUNK):
        entries: list[Entry] = []
        for number in range(first, min(stored, first + _CHUNK)):
            total += number
            entries.append(Entry(str(number), "step", "mark", False, codec.encode(total), 1, 0, 0))
        assert await storage.save_progress(Progress(lease, 1, first, entries, [], []))
    print("ready", flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_write_and_wait, sys.argv[1], int(sys.argv[2]))
