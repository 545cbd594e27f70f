"""What is wrong with a command line is said in one line, with exit code 2; what cannot be done, with exit code 1."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import reflow
from reflow.cli import main
from tests.support.commands import FOLDER, started

WRONG = {
    "nope": "reflow: argument COMMAND: invalid choice: 'nope' *; see reflow --help",
    "worker nojobs": f"reflow worker: there is no module 'nojobs' in {FOLDER}, nor among what is installed",
    "worker jobs.deeper": f"reflow worker: there is no module 'jobs.deeper' in {FOLDER}, nor among what is installed",
    "worker jobs.py": (
        f"reflow worker: there is no module 'jobs.py' in {FOLDER}, nor among what is installed; write 'jobs'"
    ),
    "worker ./jobs": (
        "reflow worker: './jobs' names no module; write it as in an import, with a workflow of it: app.jobs:signup"
    ),
    "worker jobs:": (
        "reflow worker: 'jobs:' names no module; write it as in an import, with a workflow of it: app.jobs:signup"
    ),
    "worker jobs:nope": (
        "reflow worker: module 'jobs' has no 'nope'; its workflows are: "
        "echoing, failing, giving, giving_again, reading, resting, sticking, waiting, weighing"
    ),
    "worker jobs:give": "reflow worker: jobs:give is no workflow, nor a list of them: <function give at *",
    "worker jobs:MIXED": "reflow worker: jobs:MIXED is no workflow, nor a list of them: <function give at *",
    "worker jobs:NONE": "reflow worker: jobs:NONE is an empty list; put workflows into it",
    "worker os": "reflow worker: module 'os' defines no workflow; name one that it imports, or a list: os:NAME",
    "worker jobs": "reflow worker: two workflows are called 'giving' in version 1; *",
    "worker jobs:giving jobs:giving_again": "reflow worker: two workflows are called 'giving' in version 1; *",
    "worker": "reflow worker: the following arguments are required: MODULE[:NAME]; see reflow worker --help",
    "worker jobs:GOOD --lease 30": (
        "reflow worker: argument --lease: '30' is no duration; write 500ms, 30s, 1h30m or 14d; see reflow worker --help"
    ),
    "worker jobs:GOOD --grace soon": "reflow worker: argument --grace: 'soon' is no duration; *",
    "worker jobs:GOOD --retention 0s": "reflow worker: retention is '0s'; it must be longer than nothing",
    "worker jobs:GOOD --lease 1ms": "reflow worker: lease is '1ms'; it has to last through a heartbeat: *",
    "worker jobs:GOOD --processes 0": "reflow worker: argument --processes: '0' is no whole number from 1 up; *",
    "worker jobs:GOOD --concurrency x": "reflow worker: argument --concurrency: 'x' is no whole number from 1 up; *",
    "worker jobs:GOOD --backend uvloop": "reflow worker: argument --backend: invalid choice: 'uvloop' *",
    "worker jobs:GOOD --schema s": (
        "reflow worker: schema is 's', and app.db is a file; only databases of a server have schemas"
    ),
    "runs": "reflow runs: there is no file app.db",
    "runs --status done": "reflow runs: argument --status: invalid choice: 'done' *",
    "enqueue giving {": "reflow enqueue: argument JSON: '{' is no object in JSON; write arguments by name: '{*",
    "enqueue giving [7]": "reflow enqueue: argument JSON: '[7]' is no object in JSON; *",
    "enqueue giving --priority x": "reflow enqueue: argument --priority: invalid int value: 'x'; *",
    "send r go on": """reflow send: argument JSON: 'on' is no JSON; write '7', '"text"' or '{"name": 7}'; *""",
    "prune --older-than x": "reflow prune: argument --older-than: 'x' is no duration; *",
}
STORAGES = {
    "mysql://host/db": "storage is 'mysql://host/db'; write a file (app.db, sqlite:///app.db) or postgresql://*",
    "sqlite://app.db": "storage is 'sqlite://app.db'; write a file (app.db, sqlite:///app.db) or postgresql://*",
    ":memory:": "path is ':memory:'; name a file, or use MemoryStorage() to keep runs in memory",
    "": "path is ''; name a file, or use MemoryStorage() to keep runs in memory",
    "postgresql://host/db": "a storage in Postgres needs psycopg: pip install 'reflow[postgres]'",
}


@pytest.fixture(autouse=True)
def _in_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current directory of the commands, where psycopg is as where it was never installed."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv("REFLOW_STORAGE", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)


def code_of(*words: str) -> int | str | None:
    """The exit code of a command."""
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code


def is_like(said: str, expected: str) -> bool:
    """Whether this is one line, and the one that is expected; `*` stands for anything."""
    start, star, end = expected.partition("*")
    fits = said.startswith(start) and said.endswith(f"{end}\n") if star else said == f"{expected}\n"
    return fits and said.count("\n") == 1


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is answered by one line that says what to write, and exit code 2."""
    has_storage = not words.startswith("nope")

    code = code_of(*words.split(), *(["--storage", "app.db"] if has_storage else []))

    said = capsys.readouterr()
    assert (2, "", True) == (code, said.out, is_like(said.err, WRONG[words])), said.err


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """`reflow` alone says on standard error what there is, with exit code 2."""
    code = code_of()

    said = capsys.readouterr()
    assert (2, "", True, True) == (code, said.out, said.err.startswith("usage: reflow"), "\n    worker " in said.err)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`reflow --version` says which one it is."""
    code = code_of("--version")

    assert (0, f"reflow {reflow.__version__}\n") == (code, capsys.readouterr().out)


@pytest.mark.parametrize("text", STORAGES)
def test_a_text_that_names_no_storage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A text that names no storage is refused in one line that says what to write, and so is a server without its
    driver."""
    code = code_of("worker", "jobs:GOOD", f"--storage={text}")

    said = capsys.readouterr().err
    assert (2, True) == (code, is_like(said, f"reflow worker: {STORAGES[text]}")), said


def test_no_storage(capsys: pytest.CaptureFixture[str]) -> None:
    """Where neither option nor environment names a storage, one line says so."""
    code = code_of("worker", "jobs:GOOD")

    expected = "reflow worker: the following arguments are required: --storage; see reflow worker --help\n"
    assert (2, expected) == (code, capsys.readouterr().err)


def test_a_storage_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`REFLOW_STORAGE` names the storage where no option does."""
    monkeypatch.setenv("REFLOW_STORAGE", str(tmp_path / "other.db"))

    code = code_of("runs")

    assert (2, f"reflow runs: there is no file {tmp_path / 'other.db'}\n") == (code, capsys.readouterr().err)


def test_a_module_that_breaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that a module raises when it is imported is shown with its traceback, then in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_jobs.py").write_text("import no_such_module\n")

    code = code_of("worker", "broken_jobs", "--storage", "app.db")

    lines = capsys.readouterr().err.splitlines()
    expected = "reflow worker: importing 'broken_jobs' failed: ModuleNotFoundError: No module named 'no_such_module'"
    assert (2, "Traceback (most recent call last):", expected) == (code, lines[0], lines[-1])
    assert any("broken_jobs.py" in line for line in lines)


@pytest.mark.slow
def test_a_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    """A worker whose storage cannot be opened says why in one line, and ends with exit code 1."""
    with started("worker", "jobs:GOOD", "--storage", tmp_path / "nowhere" / "app.db") as worker:
        said = worker.left()

    why = f"the directory {tmp_path / 'nowhere'} does not exist; create it first"
    assert (1, f"reflow worker: storage could not open: {why}\n") == said


@pytest.mark.slow
def test_the_current_directory_comes_first() -> None:
    """`reflow` finds modules of the current directory, and tells mistakes from a real process in the same way."""
    with started("worker", "jobs", "--storage", "app.db") as worker:
        code, said = worker.left()

    assert (2, True) == (code, is_like(said, WRONG["worker jobs"])), said
