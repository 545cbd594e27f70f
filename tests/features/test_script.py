"""`reflow.run`: start or resume a run from a script, and get its result."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import reflow
from reflow import (
    ConfigError,
    Engine,
    Flow,
    JsonCodec,
    MemoryStorage,
    RunConflictError,
    RunFailedError,
    RunInfo,
    RunStatus,
    SQLiteStorage,
    StorageError,
    ValidationError,
    step,
    workflow,
)
from tests.support.world import World

ROOT = Path(__file__).parent.parent.parent

bodies: list[int] = []


@pytest.fixture(autouse=True)
def _fresh_bodies() -> None:
    bodies.clear()


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """The event loop that `run` starts."""
    return str(request.param)


async def note(number: int) -> int:
    """Notes that it ran."""
    bodies.append(number)
    return number


@workflow
def doubled(number: int) -> Flow[int]:
    """One step."""
    return 2 * (yield from step(note, number))


@workflow
def doubling(number: int) -> Flow[int]:
    """A child."""
    return (yield from doubled(number))


def note_in_a_thread(number: int) -> int:
    """Notes that it ran, in a thread."""
    bodies.append(number)
    return number


@workflow
def adding(a: int, b: int) -> Flow[int]:
    """Two steps."""
    first = yield from step(note, a)
    second = yield from step(note_in_a_thread, b)
    return first + second


async def fail() -> None:
    """Fails as long as there are no bodies."""
    if not bodies:
        raise ConnectionError("no route")


@workflow
def failing() -> Flow[None]:
    """One failing step."""
    yield step(fail)


def shown(path: Path, run_id: str) -> RunInfo:
    """The run, as another process would see it."""

    async def look() -> RunInfo:
        storage = SQLiteStorage(path)
        await storage.initialize()
        info = await World(storage).info(run_id)
        await storage.close()
        return info

    return anyio.run(look)


def test_it_runs(tmp_path: Path, backend: str) -> None:
    """`run` runs a call to its end, on a file that it makes, and returns the result."""
    result = reflow.run(adding(1, 2), storage=tmp_path / "runs.db", backend=backend)

    assert 3 == result
    assert [1, 2] == bodies


def test_a_stored_result(tmp_path: Path, backend: str) -> None:
    """[198] With a `run_id` the same line again returns the stored result, and no body runs."""
    lines = [reflow.run(adding(1, 2), storage=str(tmp_path / "runs.db"), run_id="r", backend=backend) for _ in range(3)]

    assert [3, 3, 3] == lines
    assert [1, 2] == bodies


def test_without_a_run_id(backend: str) -> None:
    """Without a `run_id` each call starts a new run."""
    storage = MemoryStorage()
    for _ in range(2):
        reflow.run(adding(1, 2), storage=storage, backend=backend)

    assert [1, 2, 1, 2] == bodies


def test_a_conflict(tmp_path: Path) -> None:
    """[109] With a `run_id` that another input has: `RunConflictError`."""
    reflow.run(adding(1, 2), storage=tmp_path / "runs.db", run_id="r")

    with pytest.raises(RunConflictError, match="exists already with another input"):
        reflow.run(adding(1, 3), storage=tmp_path / "runs.db", run_id="r")


def test_a_failed_run(tmp_path: Path, backend: str) -> None:
    """A failed run raises `RunFailedError`, not in a group, and goes on doing so."""
    for _ in range(2):
        with pytest.raises(RunFailedError, match="no route"):
            reflow.run(failing(), storage=tmp_path / "runs.db", run_id="r", backend=backend)
        bodies.append(1)


def test_a_failed_script(tmp_path: Path, backend: str) -> None:
    """What an uncaught failure prints is short: the line that calls `reflow.run`, and those of the step and the
    workflow that failed, from whichever event loop."""
    with pytest.raises(RunFailedError) as raised:
        reflow.run(failing(), storage=tmp_path / "runs.db", backend=backend)
    printed = "".join(traceback.format_exception(raised.value))
    files = re.findall(r'File ".*?([^/\\]+)", line \d+, in (\w+)', printed)

    assert [
        ("test_script.py", "test_a_failed_script"),
        ("script.py", "run"),
        ("test_script.py", "fail"),
        ("test_script.py", "failing"),
    ] == files


def test_refused_input(tmp_path: Path) -> None:
    """[13] An input that does not fit is refused with its path, and nothing is stored."""
    with pytest.raises(ValidationError, match=r"\(at \$.b\)"):
        reflow.run(adding(1, "2"), storage=tmp_path / "runs.db", run_id="r")  # type: ignore[arg-type]

    assert 3 == reflow.run(adding(1, 2), storage=tmp_path / "runs.db", run_id="r")


def test_an_undecorated_generator() -> None:
    """Who forgets `@workflow` is told to write it."""
    with pytest.raises(ConfigError, match=r"reflow.run got a generator of 'adding'; decorate that with @workflow, and"):
        reflow.run(adding.function(1, 2), storage=MemoryStorage())  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [adding, adding.function(1, 2), None], ids=["workflow", "generator", "none"])
def test_not_a_call(wrong: Any) -> None:
    """Anything but a call is a `ConfigError` that says what to write."""
    with pytest.raises(ConfigError, match=r"call a workflow to make a call: reflow.run\(import_file\(path\)\)"):
        reflow.run(wrong, storage=MemoryStorage())


def test_an_unknown_backend() -> None:
    """Any other event loop than asyncio and trio is a `ConfigError`."""
    with pytest.raises(ConfigError, match="backend is 'curio'; write 'asyncio' or 'trio'"):
        reflow.run(adding(1, 2), storage=MemoryStorage(), backend="curio")


def test_a_file_that_cannot_be_opened(tmp_path: Path, backend: str) -> None:
    """A file that cannot be opened is a `StorageError`, not in a group."""
    with pytest.raises(StorageError, match="does not exist"):
        reflow.run(adding(1, 2), storage=tmp_path / "nowhere" / "runs.db", backend=backend)


@pytest.mark.anyio
async def test_inside_an_event_loop(anyio_backend: str) -> None:
    """Inside an event loop `run` is a `ConfigError` that says what to write there."""
    with pytest.raises(ConfigError, match="write `await engine"):
        reflow.run(adding(1, 2), storage=MemoryStorage(), backend=anyio_backend)


@pytest.mark.anyio
async def test_beside_an_event_loop(anyio_backend: str) -> None:
    """In a thread beside an event loop it is fine."""
    result = await anyio.to_thread.run_sync(lambda: reflow.run(adding(1, 2), storage=MemoryStorage()))

    assert 3 == result


def test_a_codec(tmp_path: Path) -> None:
    """A codec given to `run` writes what is stored."""
    reflow.run(adding(1, 2), storage=tmp_path / "runs.db", run_id="r", codec=JsonCodec())

    async def look() -> bytes | None:
        storage = SQLiteStorage(tmp_path / "runs.db")
        await storage.initialize()
        row = await storage.get_run("r")
        await storage.close()
        assert row is not None
        return row.output

    assert b"3" == anyio.run(look)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import re
import signal

# A job in the background is born deaf to Ctrl-C, and so are its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

import sys
import traceback
import anyio
import reflow
from reflow import Flow, step, workflow

path, backend, kind = sys.argv[1:]

async def first() -> str:
    print("first", flush=True)
    return "first"

async def on_the_loop() -> str:
    print("second", flush=True)
    await anyio.sleep_forever()
    return "never"

def in_a_thread() -> str:
    print("second", flush=True)
    sys.stdin.read()
    return "late"

async def busy() -> str:
    print("second", flush=True)
    while True:
        pass

second = {"async": on_the_loop, "thread": in_a_thread, "busy": busy}[kind]

@workflow
def importing() -> Flow[list[str]]:
    one = yield from step(first)
    two = yield from step(second).options(name="second")
    return [one, two]

try:
    reflow.run(importing(), storage=path, run_id="import", backend=backend)
except KeyboardInterrupt:
    print("interrupted", len(traceback.format_exc().splitlines()) < 9, flush=True)
"""


async def again(number: int, name: str) -> str:
    """What the steps do the second time."""
    bodies.append(number)
    return name


@workflow
def importing() -> Flow[list[str]]:
    """The script's workflow."""
    one = yield from step(again, 1, "first").options(name="first")
    two = yield from step(again, 2, "second").options(name="second")
    return [one, two]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "kind"),
    # On asyncio a busy event loop takes no notice of the first Ctrl-C.
    [("asyncio", "async"), ("asyncio", "thread"), ("trio", "async"), ("trio", "thread"), ("trio", "busy")],
)
def test_ctrl_c(tmp_path: Path, backend: str, kind: str) -> None:
    """[198] Ctrl-C leaves the run resumable and gives its lease back at once, also while a thread still runs, and shows
    nobody the inside of the engine; the same line again continues it, and the finished step does not run again."""
    path = tmp_path / "runs.db"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), backend, kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    with process:
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        lines.append(process.stdout.readline())
        interrupted = shown(path, "import")
        _, errors = process.communicate()

    assert ["first\n", "second\n", "interrupted True\n"] == lines
    assert ("", 0) == (errors, process.returncode)
    assert (RunStatus.PENDING, None) == (interrupted.status, interrupted.error)
    assert ["first"] == [entry.name for entry in interrupted.entries]
    assert ["first", "second"] == reflow.run(importing(), storage=path, run_id="import", backend=backend)
    assert [2] == bodies


def test_a_workflow_that_starts_others(tmp_path: Path):
    """`workflows=` names those that the run starts as children, so that this process runs them too."""
    assert 4 == reflow.run(doubling(2), storage=tmp_path / "test.db", workflows=[doubled, doubling])


def test_a_child_that_nobody_here_knows_is_told(caplog: pytest.LogCaptureFixture):
    """A child of a workflow that the engine does not know is waited for, and a warning says so."""

    async def main() -> str:
        async with Engine(MemoryStorage(), [doubling]) as engine:
            run = await engine.enqueue(doubling(2), run_id="r")
            while not caplog.records:
                await checkpoint()
            return await engine.why(run.run_id)

    reason = anyio.run(main)

    assert "waits for the child run" in reason
    assert "run r starts run r:0 of workflow 'doubled', version 1, which this engine does not know" in caplog.text
