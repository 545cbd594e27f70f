"""`reflow.testing.conformance`: an adapter of somebody else passes it, and each flaw in that one is found."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import pytest
from anyio import sleep_forever

from reflow import MemoryStorage, RunStatus, StorageError
from reflow.storage.records import Lease
from reflow.testing import conformance
from reflow.testing.conformance import Another, Broken, Case, Report, cases, check
from reflow.testing.conformance.expectation import expect, expect_one_of
from tests.crash.ledger import caught
from tests.testing.flawed import FLAWS, Flaw, FlawedStorage

ROOT = Path(__file__).parent.parent.parent
PARTS = sorted(Path(conformance.__file__).parent.glob("*.py"))
FLAW = {flaw.clause: flaw for flaw in FLAWS}


def with_flaw(flaw: Flaw, folder: Path) -> Callable[[], Another]:
    """Makes ready a new file for adapters with this flaw."""
    return lambda: partial(FlawedStorage, Path(mkdtemp(dir=folder), "verbs.jsonl"), flaw)


def case(function: Callable[..., object]) -> Case:
    """A case of ours."""
    return Case("Z9", "z9_made_up", "Everything is fine.", function)  # type: ignore[arg-type]


# ---- flaws ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("flaw", FLAWS, ids=str)
async def test_a_flaw_is_found(flaw: Flaw, tmp_path: Path):
    """A case of the clause that the flaw breaks fails, by what the adapter answers or by what it raises."""
    fresh, found = with_flaw(flaw, tmp_path), []
    for each in cases():
        if each.clause == flaw.clause:
            try:
                await each(fresh(), limit_s=1)
            except (AssertionError, StorageError, ValueError):
                found.append(each.clause)

    assert [flaw.clause] == list(dict.fromkeys(found))
    caught("an adapter has a flaw", "reflow.testing.conformance", str(flaw))


@pytest.mark.anyio
@pytest.mark.parametrize(("clause", "also"), [("D3", []), ("F5", []), ("J2", ["F8", "F12", "F14"])])
async def test_a_report_names_what_is_broken(clause: str, also: list[str], tmp_path: Path):
    """The report has the clauses that a flaw breaks, and as text says which cases fail, and why."""
    report = await check(with_flaw(FLAW[clause], tmp_path))

    assert {clause, *also} <= set(report.broken_clauses)
    assert len(cases()) == len(report.passed) + len(report.broken)
    for broken in report.broken:
        assert f"\n{broken.case.clause} {broken.case.name}\n    " in str(report)
        assert broken.case.fact in str(report)


# ---- cases ----------------------------------------------------------------------------------------------------------


def test_a_case_is_a_fact():
    """A case knows its clause, its name, and in a sentence what it asserts."""
    [first, *_] = cases()

    assert ("A1", "a1_initialize_again_keeps_what_is_stored", "a1_initialize_again_keeps_what_is_stored") == (
        first.clause,
        first.name,
        str(first),
    )
    assert "[187] `initialize` may be called again; what is stored stays." == first.fact


@pytest.mark.anyio
async def test_a_failing_case_tells_its_clause():
    """What a case raises carries a note with the clause and the fact, under any test framework."""

    async def function(storage: MemoryStorage, another: Another) -> None:
        expect(1, 2)

    with pytest.raises(AssertionError) as caught:
        await case(function)(MemoryStorage)

    assert ["Clause Z9, z9_made_up: Everything is fine."] == caught.value.__notes__


@pytest.mark.anyio
async def test_a_case_that_hangs_fails():
    """A case that waits for what never comes ends with an AssertionError after its limit."""

    async def function(storage: MemoryStorage, another: Another) -> None:
        await sleep_forever()

    with pytest.raises(AssertionError) as caught:
        await case(function)(MemoryStorage, limit_s=0.01)

    assert "not done after 0.01 s" == str(caught.value)


def test_a_report_without_failures_says_so():
    """A report where nothing is broken is one sentence."""
    assert "Every case of the storage contract holds." == str(Report(cases(), []))


def test_an_error_of_the_adapter_is_shown_with_its_place():
    """Of an error that is no AssertionError the report has the traceback, so that its author finds the line."""
    try:
        raise KeyError("row")
    except KeyError as error:
        broken = Broken(case(check), error)

    assert "test_conformance.py" in str(broken)
    assert str(broken).splitlines()[-1] == "    KeyError: 'row'"


# ---- expect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        (1, 2, "the answer differs"),
        (True, 1, "the answer is a int, not a bool"),
        (b"a", memoryview(b"a"), "the answer is a memoryview, not a bytes"),
        ([RunStatus.FAILED], ["failed"], "the answer[0] is a str, not a RunStatus"),
        ([1, 2], [1], "the answer has 1 elements, not 2"),
        ((1, [Lease("r", "a")]), (1, [Lease("r", "b")]), "the answer[1][0].lease_id differs"),
        ({"a": 1}, {"a": 2}, "the answer differs"),
        ([], (), "the answer is a tuple, not a list"),
    ],
)
def test_expect_says_both_sides(expected: object, actual: object, difference: str):
    """What differs is told, with its place and with both sides; types count."""
    with pytest.raises(AssertionError) as caught:
        expect(expected, actual)

    assert [difference, f"expected: {expected!r}", f"actual:   {actual!r}"] == str(caught.value).splitlines()


def test_expect_is_content_with_the_same():
    """Equal values of the same types pass, wherever they are."""
    value = [Lease("r", "a"), (1, None, {"a": b""}), [], set()]

    expect(value, [Lease("r", "a"), (1, None, {"a": b""}), [], set()])


def test_expect_keeps_messages_short():
    """Of a megabyte the beginning is shown."""
    with pytest.raises(AssertionError) as caught:
        expect(b"a" * 2**20, b"b")

    assert len(str(caught.value)) < 3_000
    assert "(1048579 characters)" in str(caught.value)


def test_one_of_several_may_be_expected():
    """Where several answers are right, each of them passes, and the message for another one has them all."""
    expect_one_of([1, 2], 2)

    with pytest.raises(AssertionError, match=r"^expected one of: \[1, 2\]\nactual: 3$"):
        expect_one_of([1, 2], 3)


# ---- the package ----------------------------------------------------------------------------------------------------


def loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter has after importing one."""
    code = f"import json, sys, {module}; print(json.dumps(list(sys.modules)))"
    return set(
        json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True).stdout)
    )


def test_the_package_is_loaded_only_when_asked_for():
    """`import reflow` loads nothing of `reflow.testing`."""
    assert set() == {name for name in loaded_by("reflow") if name.startswith("reflow.testing")}


def test_no_test_framework_is_loaded():
    """The suite needs no test framework, nor the event loop that is not in use."""
    loaded = {name.split(".")[0] for name in loaded_by("reflow.testing.conformance")}

    assert set() == loaded & {"pytest", "_pytest", "unittest", "hypothesis", "trio"}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.stem)
def test_no_case_depends_on_assert_statements(part: Path):
    """The suite asserts under `python -O` too, and without a framework that rewrites assertions."""
    assert [] == [node.lineno for node in ast.walk(ast.parse(part.read_text())) if isinstance(node, ast.Assert)]
