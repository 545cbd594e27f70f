"""Every example runs, from an empty folder, as its docstring says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.slow


def run(folder: Path, example: str, *arguments: str) -> list[str]:
    """The lines that an example prints."""
    command = [sys.executable, str(EXAMPLES / f"{example}.py"), *arguments]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, timeout=100)
    assert ("", 0) == (result.stderr, result.returncode)
    return result.stdout.splitlines()


def test_every_example_is_tested():
    """No example is left out here."""
    tested = {"approval", "child_workflows", "import_zones", "kill_and_resume", "own_storage", "signup"}

    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


def test_signup(tmp_path: Path):
    """[198] A signup runs once; the same line again gives the stored result, and its steps do not run again."""
    first = run(tmp_path, "signup", "a@b.c")
    second = run(tmp_path, "signup", "a@b.c")

    assert [
        "created an account for a@b.c",
        "charged 500 cents to 4711 (idempotency key signup:a@b.c:1, attempt 1)",
        "mail to a@b.c: how do you like it so far?",
        "Receipt(account=4711, outcome='done')",
    ] == first
    assert first[-1:] == second


def test_signup_declined(tmp_path: Path):
    """A declined card is compensated: the account is closed."""
    lines = run(tmp_path, "signup", "x@b.c", "20000")

    assert ["closed account 4711", "Receipt(account=4711, outcome='declined: over the limit')"] == lines[-2:]


def test_import(tmp_path: Path):
    """The import stores all places of the table, and a second start has nothing left to do."""
    first = run(tmp_path, "import_zones")
    second = run(tmp_path, "import_zones")

    assert ["done: 418 places in zones/zones.db"] == first[-1:] == second


def test_kill_and_resume(tmp_path: Path):
    """[28] The import survives three kills: all places are there, and no step with a stored result ran again."""
    lines = run(tmp_path, "kill_and_resume", "demo")

    assert 3 == sum(line.startswith("--- kill -9") for line in lines)
    assert "The run is completed: 418 places in 85 steps, in 4 executions." == lines[-3]
    assert "Steps with a stored result that ran again: 0" == lines[-1]


def test_own_storage(tmp_path: Path):
    """The storage of one's own keeps the contract."""
    assert ["Every case of the storage contract holds."] == run(tmp_path, "own_storage")


def test_approval(tmp_path: Path):
    """[87][88] A run waits in no process; another process answers, and a third one goes on."""
    lines = [
        run(tmp_path, "approval", *arguments)
        for arguments in (
            ("ask", "a chair", "120"),
            ("ask", "a pencil", "1"),
            ("answer", "a chair", "no", "anna"),
            ("answer", "a pencil", "yes", "anna"),
            ("work",),
        )
    ]

    assert [
        ["mail to boss: may we buy a chair?", "purchase: a chair is waiting"],
        ["ordered a pencil", "purchase: a pencil is completed"],
        ["sent"],
        ["nobody asks for that (any more)"],
        [
            "purchase: a pencil is completed: a pencil: done",
            "purchase: a chair is completed: a chair: refused by anna",
        ],
    ] == lines


def test_child_workflows(tmp_path: Path):
    """[149][150] One parcel fails and the others go out; a spawned run ends by itself, and each run keeps its state."""
    lines = run(tmp_path, "child_workflows", "apple", "bread", "unicorn")

    assert {"handed over: parcel with apple", "handed over: parcel with bread"} == set(lines[:2])
    assert [
        "parcel with apple, on its way",
        "parcel with bread, on its way",
        "no unicorn: step 'pack' failed after 2 attempts: LookupError: no unicorns in stock",
        "mail: how was order-1?",
        "order-1 (order) completed",
        "order-1:0.0.0 (shipment) completed",
        "order-1:0.1.0 (shipment) completed",
        "order-1:0.2.0 (shipment) failed",
        "order-1:survey (survey) completed",
    ] == lines[2:]
