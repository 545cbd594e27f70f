"""examples/own_storage.py: an adapter of somebody else, made of public names, keeps the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from examples.own_storage import LogStorage
from reflow import Engine, Flow, StorageAccessError, StorageFormatError, step, workflow
from reflow.testing.conformance import Case, cases
from reflow.testing.conformance.words import create, get, new_run, opened

pytestmark = pytest.mark.anyio


def double(number: int) -> int:
    """Twice as much."""
    return number * 2


@workflow
def doubling(number: int) -> Flow[int]:
    """One step."""
    return (yield from step(double, number))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "verbs.jsonl"


@pytest.mark.parametrize("case", cases(), ids=str)
async def test_clause(case: Case, file: Path):
    """What the case says holds for this adapter."""
    await case(partial(LogStorage, file))


async def test_an_engine_runs_on_it(file: Path):
    """A run is stored as lines, and an adapter that reads them has its result."""
    async with Engine(LogStorage(file), [doubling]) as engine:
        run = await engine.enqueue(doubling(21), run_id="r")
        assert 42 == await run.result()

    assert "completed" == (await get(LogStorage(file))).status
    assert file.read_text().startswith('{"verb":"create_runs","runs":[{"run_id":"r"')


async def test_what_a_crash_left_of_a_line_is_dropped(file: Path):
    """The beginning of a line that was never finished is no verb, and the next one takes its place."""
    async with opened(LogStorage(file)) as storage:
        row, _ = await create(storage, new_run())
    with file.open("ab") as broken:
        broken.write(file.read_bytes()[:-9])

    async with opened(LogStorage(file)) as storage:
        assert [(row, False)] == await storage.create_runs([new_run()])
    assert row == await get(LogStorage(file))


@pytest.mark.parametrize("content", [b"a letter", b"a letter\n", b'{"verb":"delete_everything"}\n'])
async def test_a_foreign_file_is_left_alone(content: bytes, file: Path):
    """A file that is no file of verbs is refused and stays as it is."""
    file.write_bytes(content)

    with pytest.raises(StorageFormatError):
        await LogStorage(file).initialize()

    assert content == file.read_bytes()


async def test_a_file_that_cannot_be_opened_says_so(tmp_path: Path):
    """A path that leads nowhere is a StorageAccessError."""
    with pytest.raises(StorageAccessError):
        await LogStorage(tmp_path / "missing" / "verbs.jsonl").initialize()
