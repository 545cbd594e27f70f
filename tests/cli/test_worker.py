"""`reflow worker`: real processes, real signals. Nobody sleeps: what the processes say is waited for."""

from __future__ import annotations

import os
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from reflow import Call, Client, RunInfo, RunStatus, SQLiteStorage
from reflow.testing import VirtualClock
from tests.cli.jobs import failing, giving, reading, resting, sticking, weighing
from tests.support.commands import started

pytestmark = pytest.mark.slow

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
STOPS = pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "app.db"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: who reads it waits for who writes."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def enqueue(file: Path, *calls: Call[Any]) -> None:
    """Store runs whose ids are the names of their workflows."""

    async def main() -> None:
        async with Client(SQLiteStorage(file)) as client:
            for call in calls:
                await client.enqueue(call, run_id=call.workflow.name)

    anyio.run(main)


def info(file: Path, run_id: str) -> RunInfo:
    """A run as it is stored."""

    async def main() -> RunInfo:
        async with Client(SQLiteStorage(file)) as client:
            return await (await client.handle(run_id)).info()

    return anyio.run(main)


@BACKENDS
@STOPS
def test_steps_in_flight_may_end(file: Path, pipe: Path, backend: str, stop: signal.Signals) -> None:
    """[195] A worker that is told to stop claims no more and lets a step in flight end within the grace: its result is
    stored, no further step starts, and the exit code is 0."""
    enqueue(file, reading(str(pipe)))

    with started("worker", "jobs:GOOD", "--storage", file, "--backend", backend, "--grace", "1h") as worker:
        worker.until("read in")
        worker.send(stop)
        worker.until(f"told to stop by {stop.name}: 1 runs in flight")
        pipe.write_text("in time")
        code, said = worker.left()

    assert (0, True, False) == (code, "stopped: 1 runs handed back" in said, "give" in said)
    run = info(file, "reading")
    assert (RunStatus.PENDING, ["in time"]) == (run.status, [entry.value for entry in run.entries])


@BACKENDS
def test_the_next_worker_goes_on_at_once(file: Path, backend: str) -> None:
    """[197] A step that outlasts the grace is cancelled and its run handed back: the next worker begins it again at
    once, though the lease was ten minutes, and the finished step does not run again."""
    enqueue(file, resting())
    words = ("worker", "jobs:GOOD", "--storage", file, "--backend", backend, "--lease", "10m", "--grace", "0s")

    with started(*words) as first:
        first.until("rest in")
        first.send(signal.SIGTERM)
        code, said = first.left()
    with started(*words) as second:
        second.until("rest in")
        second.send(signal.SIGTERM)
        code_of_second, said_by_second = second.left()

    assert (0, True) == (code, "stopped: 1 runs handed back" in said)
    assert (0, False) == (code_of_second, "give" in said_by_second)


@BACKENDS
def test_a_signal_sent_twice_is_one(file: Path, backend: str) -> None:
    """Two signals right behind each other, as some send them to a process and to its group, drain like one."""
    enqueue(file, resting())

    with started("worker", "jobs:resting", "--storage", file, "--backend", backend, "--grace", "0s") as worker:
        worker.until("rest in")
        worker.send(signal.SIGTERM)
        worker.send(signal.SIGINT)
        code, said = worker.left()

    assert (0, True) == (code, "stopped: 1 runs handed back" in said)


@BACKENDS
@STOPS
def test_a_second_signal_ends_at_once(file: Path, backend: str, stop: signal.Signals) -> None:
    """A second signal ends a worker that drains, whatever is in flight; its run keeps the lease."""
    enqueue(file, resting())

    with started("worker", "jobs:resting", "--storage", file, "--backend", backend, "--grace", "1h") as worker:
        worker.until("rest in")
        worker.send(stop)
        worker.until("told to stop")
        code = worker.killed_by(stop)

    assert -stop == code
    assert RunStatus.RUNNING == info(file, "resting").status


@BACKENDS
def test_a_thread_is_left(file: Path, backend: str) -> None:
    """A plain function that never ends does not keep the process alive: its run is handed back, the exit code is 0."""
    enqueue(file, sticking())

    with started("worker", "jobs:GOOD", "--storage", file, "--backend", backend, "--grace", "0s") as worker:
        worker.until("stick in")
        worker.send(signal.SIGTERM)
        code, said = worker.left()

    assert (0, True) == (code, "stopped: 1 runs handed back" in said)
    assert RunStatus.PENDING == info(file, "sticking").status


def test_it_says_what_it_does(file: Path) -> None:
    """The first line names workflows, storage, concurrency and process; a run that fails is named with its error."""
    enqueue(file, failing(), giving(7))

    with started("worker", "jobs:GOOD", "--storage", f"sqlite:///{file}", "--concurrency", 3) as worker:
        hello = worker.until("serving")
        failed = worker.until("failed")
        worker.send(signal.SIGTERM)
        code, said = worker.left()

    expected = f"serving reading, resting, sticking, failing, giving in SQLiteStorage('{file}', durability='full'), "
    assert f"{expected}3 runs at once; pid {worker.process.pid}\n" == hello.partition("reflow: ")[2]
    assert "run failing failed at position 0: ValueError: boom\n" == failed.partition("reflow: ")[2]
    assert (0, True) == (code, "stopped: 0 runs handed back" in said)


def test_runs_without_code(file: Path) -> None:
    """A worker says which due runs have no code in it, and what may have been meant; not of those that are due only
    now, or whose code it has."""

    async def fill() -> None:
        clock = VirtualClock(start=datetime.now(UTC) - timedelta(hours=1))
        async with Client(SQLiteStorage(file), clock=clock) as client:
            await client.enqueue_many("givin", [{"value": 1}, {"value": 2}])
            await client.enqueue("failing", version=7)
            await client.enqueue("giving", {"value": 7})
            await client.enqueue("something", delay="2h")
        async with Client(SQLiteStorage(file)) as client:
            await client.enqueue("other")

    anyio.run(fill)
    with started("worker", "jobs:GOOD", "--storage", file, "--log-level", "warning") as worker:
        lines = [worker.until("are due"), worker.until("are due")]
        worker.send(signal.SIGTERM)
        code, said = worker.left()

    due = (
        r".* WARNING reflow: {} runs of '{}' \(version {}\) are due, the first since 20.* UTC, and this worker has {}\n"
    )
    expected = [
        due.format(1, "failing", 7, "only version 1"),
        due.format(2, "givin", 1, r"no workflow of that name; was 'giving' meant\?"),
    ]
    lines.sort(key=lambda line: "givin" in line)
    assert [True, True] == [bool(re.fullmatch(*pair)) for pair in zip(expected, lines, strict=True)]
    assert (0, 2) == (code, said.count("WARNING"))


def test_what_was_imported_is_no_garbage(file: Path) -> None:
    """A worker freezes what was there before it began, so that full collections cost it little."""
    enqueue(file, weighing())

    with started("worker", "jobs:weighing", "--storage", file) as worker:
        told = worker.until("frozen")
        worker.send(signal.SIGTERM)
        code, _ = worker.left()

    assert (0, True) == (code, told.startswith("frozen True"))


def test_the_log_level(file: Path) -> None:
    """With another log level it says only what matters then: that a run has failed, and not that it begins or stops."""
    enqueue(file, failing())

    with started("worker", "jobs:failing", "--storage", file, "--log-level", "warning") as worker:
        failed = worker.until("failed")
        worker.send(signal.SIGTERM)
        code, said = worker.left()

    assert failed.endswith(" WARNING reflow: run failing failed at position 0: ValueError: boom\n")
    assert (0, f"give 1 in {worker.process.pid}\n{failed}") == (code, said)


def test_retention(file: Path) -> None:
    """With `--retention` it deletes runs that ended longer ago."""
    enqueue(file, giving(7))

    async def until_gone() -> None:
        async with Client(SQLiteStorage(file)) as client:
            while await client.get_run("giving"):
                await checkpoint()

    with started("worker", "jobs:giving", "--storage", file, "--retention", "1us") as worker:
        worker.until("give 7")
        anyio.run(until_gone)
        worker.send(signal.SIGTERM)
        code, _ = worker.left()

    assert 0 == code


def test_what_a_module_leaves_behind(file: Path, tmp_path: Path) -> None:
    """A thread of a module's own that never ends keeps the process alive when all is done, as in any Python program; a
    second signal ends it then, with exit code 0."""
    (tmp_path / "hanging.py").write_text("import threading\nfrom tests.cli.jobs import GOOD\n")
    with (tmp_path / "hanging.py").open("a") as module:
        module.write("threading.Thread(target=threading.Event().wait).start()\n")

    with started("worker", "hanging:GOOD", "--storage", file, folder=tmp_path) as worker:
        worker.until("serving")
        worker.send(signal.SIGTERM)
        worker.until("stopped: 0 runs handed back")
        code = worker.killed_by(signal.SIGTERM)

    assert 0 == code
