"""The suite is tested: each bug that is planted in a copy of the product fails the test that is there to find it.

Model. A copy of the project gets one bug (planted.py), and a pytest of its own runs two tests in it: the one that must
fail, and a plain run of a few steps, which must not, or the bug would be one that nobody could overlook. The same tests
pass in a copy without a bug, so what fails them is the bug.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.crash.ledger import caught
from tests.crash.planted import PLANTS, Plant

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PLAIN_RUN = (
    "features/test_enqueue.py::test_a_completed_run[asyncio-memory]",
    "features/test_enqueue.py::test_a_completed_run[asyncio-sqlite]",
)
LIMIT_S = 60


class Outcome(NamedTuple):
    """What came of tests that ran in a copy, and what pytest said."""

    passed: set[str]
    failed: set[str]
    skipped: set[str]
    said: str


def copied(folder: Path) -> Path:
    """A copy of the project, as far as tests need it."""
    for part in ("reflow", "tests", "examples"):
        copytree(ROOT / part, folder / part)
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    return folder


def planted(plant: Plant, folder: Path) -> Path:
    """A copy with the bug."""
    file = copied(folder) / "reflow" / plant.file
    file.write_text(file.read_text().replace(plant.old, plant.new))
    return folder


def outcome_in(folder: Path, tests: Sequence[str], *, limit_s: float = LIMIT_S) -> Outcome:
    """Run tests in a copy. The folder of a module that is run comes first: it is the copy that they import."""
    report = folder / "report.xml"
    # Loading the plugin of Hypothesis would take as long as all the rest.
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:hypothesispytest", f"--junit-xml={report}"]
    names = [f"tests/{test}" for test in tests]
    run = subprocess.run([*command, *names], cwd=folder, capture_output=True, text=True, timeout=limit_s, check=False)
    passed, failed, skipped = set[str](), set[str](), set[str]()
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname', '').replace('.', '/').removeprefix('tests/')}.py::{case.get('name')}"
        kinds = {part.tag for part in case}
        (failed if kinds & {"failure", "error"} else skipped if kinds else passed).add(name)
    return Outcome(passed - failed, failed, skipped, run.stdout + run.stderr)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Plant, Future[Outcome]]]:
    """What comes of the selected plants, two at a time."""

    def outcome(plant: Plant) -> Outcome:
        return outcome_in(planted(plant, tmp_path_factory.mktemp("planted")), (*PLAIN_RUN, plant.caught_by))

    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    selected = [item.callspec.params["plant"] for item in items if item.originalname == test_a_bug_is_caught.__name__]
    with ThreadPoolExecutor(2) as pool:
        yield {plant: pool.submit(outcome, plant) for plant in selected}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_bug_fits(plant: Plant):
    """The place where the bug is planted is in the product, once."""
    source = (ROOT / "reflow" / plant.file).read_text()

    assert 1 == source.count(plant.old), f"reflow/{plant.file} has changed; where could this bug be made now?"


def test_without_a_bug_the_same_tests_pass(tmp_path: Path):
    """In a copy without a bug all tests pass that are there to find one."""
    tests = {*PLAIN_RUN, *(plant.caught_by for plant in PLANTS)}
    outcome = outcome_in(copied(tmp_path / "project"), sorted(tests))

    without_a_server = {test for test in outcome.skipped if "postgres" in test}
    assert (tests - without_a_server, set()) == (outcome.passed, outcome.failed), outcome.said


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_bug_is_caught(plant: Plant, outcomes: dict[Plant, Future[Outcome]]):
    """With the bug, the test fails that is there to find it, and a plain run succeeds."""
    outcome = outcomes[plant].result()
    if outcome.skipped:
        pytest.skip("there is no Postgres")

    assert (set(PLAIN_RUN), {plant.caught_by}) == (outcome.passed, outcome.failed), outcome.said
    caught(plant.bug, f"tests/{plant.caught_by}")
