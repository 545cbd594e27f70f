"""Every adapter keeps every clause of the contract, and every clause has a case."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from reflow.storage import contract
from reflow.testing.conformance import Another, Case, cases

pytestmark = pytest.mark.anyio

# Clauses about files and tables, which differ from adapter to adapter: each adapter has tests of its own.
OF_EACH_ADAPTER = {"A2", "A3"}


@pytest.mark.parametrize("case", cases(), ids=str)
async def test_clause(case: Case, another: Another):
    """[189] What the case says holds for this adapter."""
    await case(another)


def test_every_clause_has_a_case():
    """Each numbered clause of the contract has a case in the suite, or tests of its own beside each adapter."""
    assert set() == clauses() - {case.clause for case in cases()} - OF_EACH_ADAPTER
    assert set() == OF_EACH_ADAPTER - clauses_in("test_sqlite.py", "test_schema.py")
    assert set() == OF_EACH_ADAPTER - clauses_in("test_postgres.py")


def test_every_case_has_a_clause():
    """Each case belongs to a clause that the contract has, and is called after it."""
    assert set() == {case.name for case in cases() if case.clause not in clauses()}
    assert [case.clause for case in cases()] == [case.name.split("_")[0].upper() for case in cases()]


def clauses() -> set[str]:
    """The numbers of the clauses in the docstrings of the contract."""
    tree = ast.parse(Path(contract.__file__).read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.AsyncFunctionDef))]
    texts = [ast.get_docstring(node) or "" for node in documented]
    return {number for text in texts for number in re.findall(r"^([A-Z]\d+)\. ", text, re.MULTILINE)}


def clauses_in(*files: str) -> set[str]:
    """The clauses that tests in these files are named after."""
    texts = [(Path(__file__).parent / file).read_text() for file in files]
    return {number.upper() for text in texts for number in re.findall(r"def test_([a-z]\d+)_", text)}
