"""Looking at runs and steering them from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from reflow import Call, Client, Engine, RunInfo, SQLiteStorage
from reflow.cli import main
from tests.cli.jobs import echoing, failing, giving, resting, waiting


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


def fill(file: Path, *calls: Call[Any]) -> None:
    """Let runs begin whose ids are the names of their workflows, and go on as far as they can."""

    async def main() -> None:
        async with Engine(SQLiteStorage(file), [waiting, echoing]) as engine:
            for call in calls:
                await engine.enqueue(call, run_id=call.workflow.name)
            await engine.drain()

    anyio.run(main)


def found(file: Path, run_id: str) -> RunInfo:
    """A run as it is stored."""

    async def main() -> RunInfo:
        async with Client(SQLiteStorage(file)) as client:
            return await (await client.handle(run_id)).info()

    return anyio.run(main)


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


def test_show(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` prints how a run stands, its input and output as JSON, and its journal."""
    code, lines = answer(capsys, "show", "done", "--storage", file)

    said = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", "NOW", "\n".join(lines[1:]))
    expected = """
run_id      done
workflow    giving
status      completed
input       {"value":7}
output      7
created     NOW
ended       NOW
executions  1

POSITION  KIND  NAME  STATUS     ATTEMPTS  AT                    VALUE_OR_ERROR
0         step  give  completed  1         NOW  7"""
    assert (0, True, expected) == (code, lines[0].startswith("run 'done' of 'giving' completed at"), said)


def test_show_a_failed_run(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` of a failed run has its error, its tags, and where in the code it was raised."""
    _, lines = answer(capsys, "show", "wrong", "--storage", file)

    assert ["error       ValueError: boom", "tags        vip, eu"] == [
        line for line in lines if line.startswith(("error", "tags"))
    ]
    assert "ValueError: boom" == lines[-1]
    assert any("jobs.py" in line for line in lines)


def test_show_a_run_that_waits(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` has a line for what is not settled, below the journal."""
    fill(file, waiting())
    _, lines = answer(capsys, "show", "waiting", "--storage", file)

    assert lines[0].startswith("run 'waiting' of 'waiting' waits until")
    assert re.fullmatch(r"0 +wait_event +go +waiting +0 +20\S+ +until 20\S+Z", lines[-1])


def test_a_long_value_is_shortened(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` shortens what entries hold, and no input or output."""
    fill(file, echoing("z" * 300))
    _, lines = answer(capsys, "show", "echoing", "--storage", file)

    assert [300, 300, 96] == [line.count("z") for line in lines if "zzz" in line]


def test_enqueue(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`enqueue` stores a run by the name of its workflow, with its arguments as JSON, and prints its id."""
    options = ["--run-id=new", "--idempotency-key=k", "--tag=a", "--tag=b", "--priority=5", "--delay=1h"]
    first = answer(capsys, "enqueue", "giving", '{"value": 8}', "--storage", file, *options)
    again = answer(capsys, "enqueue", "giving", '{"value": 8}', "--storage", file, "--idempotency-key=k")
    code, [plain] = answer(capsys, "enqueue", "failing", "--storage", file)

    run, other = found(file, "new"), found(file, plain)
    assert ((0, ["new"]), (0, ["new"]), 0) == (first, again, code)
    assert ({"value": 8}, "k", ("a", "b"), 5, "pending") == (
        *(run.input, run.idempotency_key, run.tags, run.priority, run.status),
    )
    assert ({}, "failing", 1) == (other.input, other.workflow, other.version)


def test_send(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`send` sends an event with a payload in JSON; to a run that has ended it sends none, and says so."""
    fill(file, waiting())
    sent = answer(capsys, "send", "waiting", "go", '"on"', "--storage", file)
    code, [late] = answer(capsys, "send", "done", "go", "--storage", file)
    fill(file)

    assert (0, ["event 'go' is sent to run 'waiting'"]) == sent
    assert (1, True) == (code, late.startswith("nothing was done: run 'done' of 'giving' completed"))
    assert "on" == found(file, "waiting").output


def test_an_event_is_sent_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With an `--event-id` the same event is taken once."""
    fill(file, waiting(2))
    for _ in range(2):
        answer(capsys, "send", "waiting", "go", '"on"', "--event-id", "e", "--storage", file)
    fill(file)

    assert "waiting" == found(file, "waiting").status


def test_cancel(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cancel` ends a run that was never started there and then; of one that has ended it says so, with exit code 1."""
    first = answer(capsys, "cancel", "later", "--storage", file)
    code, [again] = answer(capsys, "cancel", "later", "--storage", file)

    assert (0, ["run 'later' is cancelled"]) == first
    assert (1, True) == (code, again.startswith("nothing was done: run 'later' of 'resting' was cancelled"))
    assert ["later"] == ids(capsys, "--status=cancelled", "--storage", file)


def test_cancel_a_run_that_has_begun(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`cancel` says of a run that has begun that it is to be cancelled, since it cleans up first."""

    fill(file, waiting())
    said = answer(capsys, "cancel", "waiting", "--storage", file)

    assert (0, ["run 'waiting' is to be cancelled: it cleans up first"]) == said


def test_resume(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resume` lets a failed run go on; of any other it says what that does, with exit code 1."""
    first = answer(capsys, "resume", "wrong", "--storage", file)
    code, [again] = answer(capsys, "resume", "wrong", "--storage", file)

    assert (0, ["run 'wrong' goes on"]) == first
    assert (1, True) == (code, again.startswith("nothing was done: run 'wrong' of 'failing' is due since"))


@pytest.mark.parametrize("verb", ["cancel", "resume", "send", "show", "why"])
def test_a_run_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """Verbs on an unknown run are errors of one line, with exit code 1."""
    words = ["go"] if verb == "send" else []
    assert 1 == main([verb, "nothing", *words, "--storage", str(file)])
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
