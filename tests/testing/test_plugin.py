"""The pytest plugin: a test for each transcript of a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from reflow.testing import pytest_plugin

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "rules_1" / "chain.jsonl"

TESTS = """
import pytest
from reflow.testing import assert_replays
from tests.golden.workflows import ALL


@pytest.mark.transcripts("kept")
def test_replays(transcript):
    assert_replays(ALL, transcript)
"""


def outcome(folder: Path, tests: str = TESTS) -> tuple[int, str]:
    """How a pytest of its own ends, in which no plugin is loaded but this one; and what it prints."""
    (folder / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "reflow.testing.pytest_plugin", "-p", "no:cacheprovider", "-v"]
    ended = subprocess.run(
        [*command, "-W", "error", "--strict-markers", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout


def keep(folder: Path, name: str, text: str) -> None:
    """Keep a transcript."""
    file = folder / "kept" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_each_transcript_is_a_test(tmp_path: Path) -> None:
    """[193] Every transcript of the folder, and of folders in it, is replayed by a test of its name."""
    keep(tmp_path, "first.jsonl", GOLDEN.read_text())
    keep(tmp_path, "more/second.jsonl", GOLDEN.read_text())
    code, text = outcome(tmp_path)

    assert (0, True, True) == (code, "test_replays[first] PASSED" in text, "test_replays[more/second] PASSED" in text)


CHECKS = """
import random
import pytest
from reflow import sleep, step, wait_event, workflow
from reflow.testing import crash_everywhere, explore, run_workflow, simulate


def give():
    pass

@workflow
def random_name():
    yield step(give).options(name=str(random.random()))

@workflow
def giving():
    yield step(give)

@workflow
def waiting():
    yield wait_event("never")

def test_explore(): explore(giving(), outcomes={give: [None]}, invariant=lambda story: not story.has_ended)
def test_run(): run_workflow(random_name())
def test_incomplete(): run_workflow(waiting(), backend="trio")
def test_stub(): run_workflow(giving(), stubs={"gave": 1})
def test_crash(): crash_everywhere(giving(), fails=True)
def test_simulate(): simulate([giving()], seeds=[1], invariant=lambda ended: False)
def test_own_error(): crash_everywhere(giving(), before_each=lambda: 1 / 0)
"""


def test_a_failed_check_shows_the_test(tmp_path: Path) -> None:
    """What the kit finds is told at the line of the test, without the way through Reflow and the event loop; an error
    of the test's own comes with the way there."""
    code, text = outcome(tmp_path, CHECKS)

    sections = re.split(r"\n_{5,} (\w+) _{5,}\n", text.partition("= short test summary")[0])
    named = zip(sections[1::2], sections[2::2], strict=True)
    places = {name: re.findall(r"^(\S+):\d+: ", section, re.MULTILINE) for name, section in named}
    own = places.pop("test_own_error")
    assert (1, {"test_it.py"}) == (code, {own[0]})
    assert {name: ["test_it.py"] for name in places} == places
    assert 6 == len(places)


def test_changed_code_fails_the_test(tmp_path: Path) -> None:
    """[193] A transcript that the code does not replay any more fails, with position, file and line."""
    keep(tmp_path, "first.jsonl", GOLDEN.read_text().replace('"name":"add"', '"name":"plus"'))
    code, text = outcome(tmp_path)

    assert (1, True) == (code, "at position 0: recorded step 'plus', now step 'add'" in text)
    assert "tests/golden/workflows.py:" in text


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """[193] A folder without transcripts, or none at all, fails the test that asks for them: a test of nothing always
    passes. Others in the same file run."""
    tests = f"{TESTS}\n\ndef test_other():\n    pass\n"
    missing = outcome(tmp_path, tests)
    (tmp_path / "kept").mkdir()
    empty = outcome(tmp_path, tests)

    assert [(1, True, True)] * 2 == [
        (code, "there is no transcript (*.jsonl) in" in text, "1 passed, 1 error" in text)
        for code, text in (missing, empty)
    ]


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (TESTS.replace('("kept")', ""), "write @pytest.mark.transcripts('folder')"),
        (TESTS.replace("(transcript)", "()"), "write @pytest.mark.transcripts('folder')"),
        (TESTS.replace('@pytest.mark.transcripts("kept")', ""), "mark this test with @pytest.mark.transcripts"),
    ],
)
def test_a_wrong_use_says_what_to_write(tmp_path: Path, tests: str, message: str) -> None:
    """A marker without a folder, without the argument, or the argument without a marker: an error that tells."""
    keep(tmp_path, "first.jsonl", GOLDEN.read_text())
    code, text = outcome(tmp_path, tests)

    assert code != 0
    assert message in text


def test_it_is_idle_where_nobody_asks(tmp_path: Path) -> None:
    """Tests that do not ask for transcripts are as they were."""
    code, text = outcome(tmp_path, "def test_nothing():\n    pass\n")

    assert (0, True) == (code, "1 passed" in text)


def test_pytest_finds_it() -> None:
    """The package says where pytest finds the plugin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert {"reflow": pytest_plugin.__name__} == project["entry-points"]["pytest11"]
