"""Looking at runs and steering them from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import anyio
import pytest

from reflow import Client, Engine, SQLiteStorage
from reflow.cli import main
from tests.cli.jobs import failing, giving, resting, waiting


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a run that has completed, one that has failed, and one that is not due for long."""

    async def fill() -> None:
        async with Engine(SQLiteStorage(tmp_path / "app.db"), [giving, failing, resting]) as engine:
            await engine.enqueue(giving(7), run_id="done")
            await engine.enqueue(failing(), run_id="wrong", tags=["vip", "eu"])
            await engine.enqueue(resting(), run_id="later", delay="52w")
            await engine.drain()

    anyio.run(fill)
    return tmp_path / "app.db"


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """The exit code of a command, and the lines that it prints; it complains of nothing."""
    capsys.readouterr()
    code = main([*map(str, words)])
    said = capsys.readouterr()
    assert "" == said.err
    return code, said.out.splitlines()


def ids(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    """The ids of the runs that `reflow runs` lists, under its header."""
    header, *lines = answer(capsys, "runs", *words)[1]
    assert header.startswith("RUN_ID ")
    return [line.split()[0] for line in lines]


def test_runs_are_listed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each run has a line with id, workflow, status, when it was created and ended, and its error or when it is due;
    the latest come first, below the names of the columns."""
    code, lines = answer(capsys, "runs", "--storage", file)

    now = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    expected = [
        "RUN_ID  WORKFLOW  STATUS     CREATED               ENDED                 ERROR_OR_DUE",
        rf"later   resting   pending    {now}  -                     due {now}",
        rf"wrong   failing   failed     {now}  {now}  ValueError: boom",
        rf"done    giving    completed  {now}  {now}  -",
    ]
    assert (0, 4) == (code, len(lines))
    assert [] == [line for line, pattern in zip(lines, expected, strict=True) if not re.fullmatch(pattern, line)]


def test_no_runs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where no run is as was asked, nothing is printed, and standard error says so."""
    code = main(["runs", "--tag", "none", "--storage", str(file)])

    assert (0, ("", "no runs\n")) == (code, capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--status", "failed"), ["wrong"]),
        (("--status", "failed", "--status", "completed"), ["wrong", "done"]),
        (("--workflow", "giving"), ["done"]),
        (("--tag", "vip"), ["wrong"]),
        (("--tag", "vip", "--tag", "eu"), ["wrong"]),
        (("--limit", "2"), ["later", "wrong"]),
    ],
)
def test_runs_are_chosen(
    file: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[str]
) -> None:
    """Status, workflow, tags and number say which."""
    assert expected == ids(capsys, "--storage", file, *words)


def test_why(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`why` says in a sentence how a run ended."""
    code, lines = answer(capsys, "why", "wrong", "--storage", file)

    assert (0, True) == (code, lines[0].endswith("at position 0 with ValueError: boom"))


def test_cancel(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cancel` ends a run that was never started there and then; of one that has ended it says so, with exit code 1."""
    first = answer(capsys, "cancel", "later", "--storage", file)
    code, [again] = answer(capsys, "cancel", "later", "--storage", file)

    assert (0, ["run 'later' is cancelled"]) == first
    assert (1, True) == (code, again.startswith("nothing was done: run 'later' of 'resting' was cancelled"))
    assert ["later"] == ids(capsys, "--status=cancelled", "--storage", file)


def test_cancel_a_run_that_has_begun(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cancel` says of a run that has begun that it is to be cancelled, since it cleans up first."""

    async def fill() -> None:
        async with Engine(SQLiteStorage(file), [waiting]) as engine:
            await engine.enqueue(waiting(), run_id="begun")
            await engine.drain()

    anyio.run(fill)
    said = answer(capsys, "cancel", "begun", "--storage", file)

    assert (0, ["run 'begun' is to be cancelled: it cleans up first"]) == said


def test_resume(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resume` lets a failed run go on; of any other it says what that does, with exit code 1."""
    first = answer(capsys, "resume", "wrong", "--storage", file)
    code, [again] = answer(capsys, "resume", "wrong", "--storage", file)

    assert (0, ["run 'wrong' goes on"]) == first
    assert (1, True) == (code, again.startswith("nothing was done: run 'wrong' of 'failing' is due since"))


@pytest.mark.parametrize("verb", ["cancel", "resume", "why"])
def test_a_run_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Verbs on an unknown run are errors of one line, with exit code 1."""
    assert 1 == main([verb, "nothing", "--storage", str(file)])
    assert f"reflow {verb}: there is no run 'nothing' in this storage\n" == capsys.readouterr().err


def test_prune(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prune` deletes runs that ended long enough ago, and says how many."""
    few = answer(capsys, "prune", "--older-than", "1h", "--storage", file)
    all_ended = answer(capsys, "prune", "--older-than", "0s", "--storage", file)

    async def left() -> list[str]:
        async with Client(SQLiteStorage(file)) as client:
            return [run.run_id for run in (await client.list_runs()).runs]

    assert ((0, ["0 runs deleted"]), (0, ["2 runs deleted"])) == (few, all_ended)
    assert ["later"] == anyio.run(left)
