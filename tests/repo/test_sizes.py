"""Files and functions stay small, and are called after what they are about."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reflow import RunStatus
from tests.repo.sources import ROOT, at, modules, python_files, shown, texts, tree_of

LONGEST_FILE = 500
LONGEST_TEST_FILE = 800
LONGEST_FUNCTION = 70
LONGEST_EXAMPLE = 120
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers", "types"}


@pytest.mark.parametrize(
    ("folder", "limit"), [("reflow", LONGEST_FILE), ("tests", LONGEST_TEST_FILE), ("examples", LONGEST_EXAMPLE)]
)
def test_no_file_is_too_long(folder: str, limit: int):
    """A file of the package has at most 500 lines, one of the tests 800, an example 120."""
    lengths = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(folder)}

    assert {} == {name: length for name, length in lengths.items() if length > limit}


def test_no_function_is_too_long():
    """A function has at most 70 lines, docstring included."""
    long = {
        f"{at(path, node)} {node.name}": length
        for path in python_files("reflow", "tests", "examples")
        for node in functions(tree_of(path))
        if (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }

    assert {} == long


def test_a_module_is_called_after_its_noun():
    """No module or package is called `utils`, `helpers`, `common`, `misc`, `base`, `manager` or `types`."""
    paths = [path for folder in ("reflow", "tests", "examples") for path in (ROOT / folder).rglob("*")]

    assert [] == [shown(path) for path in paths if path.stem.strip("_") in BANNED_NAMES and is_module(path)]


def test_sql_takes_status_words_from_the_enum():
    """No SQL text in the storage has a status word of its own: each is put in from `RunStatus`."""
    word = re.compile(rf"""['"]({"|".join(RunStatus)})['"]""")

    assert [] == [
        at(path, text)
        for name, path in modules().items()
        if name.startswith("reflow.storage")
        for text in texts(tree_of(path))
        if word.search(str(text.value))
    ]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def is_module(path: Path) -> bool:
    """Whether a path is a Python file or a folder with some."""
    return path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
