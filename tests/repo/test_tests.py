"""The tests themselves: each says what it checks, none sleeps, none mocks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from reflow.testing.conformance import cases
from tests.repo.sources import at, python_files, shown, tree_of

SLEEPERS = {"time", "anyio", "asyncio", "trio"}
# Real processes that are really killed: there is no signal to wait for.
MAY_SLEEP = ("tests/crash/", "tests/bench/")
CASES = "reflow/testing/conformance/"
NEVER_SKIPPED = (CASES, "tests/storage/test_contract.py", "tests/storage/test_agreement.py", "tests/testing/")


def test_every_test_says_what_it_checks():
    """Each test, and each case of the contract, has a docstring that is a sentence."""
    silent = [
        f"{at(path, node)} {node.name}"
        for path in python_files("tests", CASES)
        for node in those_of(path)
        if not (ast.get_docstring(node) or "").rstrip().endswith((".", "?", "!"))
    ]

    assert [] == silent


def test_no_test_sleeps():
    """No test waits for time to pass, outside those that kill real processes, and benchmarks; `sleep(0)` only lets
    others run."""
    paths = [path for path in python_files("tests", CASES) if not shown(path).startswith(MAY_SLEEP)]

    assert [] == [at(path, node) for path in paths for node in ast.walk(tree_of(path)) if is_sleep(node)]


def test_no_test_mocks():
    """No test replaces parts of ours or of the system by mocks."""
    mocking = [
        at(path, node)
        for path in python_files("tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "mock" in ast.unparse(node).split(" as ")[0].lower()
    ]

    assert [] == mocking


def test_the_contract_suite_skips_nothing():
    """No case of the contract is skipped or expected to fail for any adapter."""
    skipping = [
        at(path, node)
        for path in python_files("tests", CASES)
        if shown(path).startswith(NEVER_SKIPPED)
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.Name, ast.Attribute))
        and (node.id if isinstance(node, ast.Name) else node.attr) in {"skip", "skipif", "xfail", "importorskip"}
    ]

    assert [] == skipping


def test_the_cases_are_seen():
    """The cases of the contract are where these checks look for them."""
    assert len(cases()) == sum(len(list(those_of(path))) for path in python_files(CASES))


def those_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The tests and cases of a file."""
    is_case = shown(path).startswith(CASES)
    name = re.compile(r"[a-z]\d+_" if is_case else r"test")
    if path.name.startswith("test_") or is_case:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and name.match(node.name):
                yield node


def is_sleep(node: ast.AST) -> bool:
    """Whether this is a call that sleeps, or the import of a function that does."""
    match node:
        case ast.ImportFrom(module=module, names=names):
            return module in SLEEPERS and any(name.name == "sleep" for name in names)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="sleep"), args=args):
            return module in SLEEPERS and not (len(args) == 1 and ast.unparse(args[0]) == "0")
        case _:
            return False
