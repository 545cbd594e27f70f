"""Every promise to users is proved: docs/reference/promises.md numbers them, and tests begin with these numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from tests.repo.sources import ROOT, at, python_files, tree_of
from tests.repo.test_tests import those_of

PAGE = ROOT / "docs" / "reference" / "promises.md"
NUMBERS = re.compile(r"((?:\[\d+\])+) \S")

# Promises without a test, because what they are about is not there yet. Take a number out with its first test.
NOT_YET: set[int] = set()


def promises() -> list[int]:
    """The numbers of the page, in its order."""
    return [int(number) for number in re.findall(r"^(\d+)\. ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)]


def docstrings() -> Iterator[tuple[str, str]]:
    """(place, docstring) of every test; what type checkers are to see is one test for each file."""
    for path in python_files("tests", "reflow/testing/conformance"):
        files = [tree_of(path)] if path.parent.name == "typing" else []
        for node in (*files, *those_of(path)):
            yield at(path, node), ast.get_docstring(node) or ""


@cache
def named() -> dict[int, list[str]]:
    """The places of the tests that name a number."""
    places: dict[int, list[str]] = {}
    for place, text in docstrings():
        if match := NUMBERS.match(text):
            for number in re.findall(r"\d+", match[1]):
                places.setdefault(int(number), []).append(place)
    return places


def test_promises_are_numbered():
    """The page has the numbers from 1 to 201, each once and in order."""
    assert [*range(1, 202)] == promises()


def test_every_promise_has_a_test():
    """Each promise is named by a test, but for those that are listed here."""
    assert set() == set(promises()) - set(named()) - NOT_YET


def test_what_has_a_test_is_not_listed():
    """No promise is listed here that a test names, so the list only gets shorter; nor a number that is none."""
    listed = {number: named().get(number, []) for number in NOT_YET}

    assert {} == {number: places for number, places in listed.items() if places or number not in promises()}


def test_every_number_is_a_promise():
    """No test names a number that the page does not have."""
    assert {} == {number: places for number, places in named().items() if number not in promises()}


def test_numbers_are_written_alike():
    """A docstring that begins with a bracket begins with numbers, `[n]` or `[n][m]`, of which each stands there once,
    in order."""
    numbers = {place: re.findall(r"\[(.*?)\]", text.split(" ")[0]) for place, text in docstrings() if text[:1] == "["}
    odd = [place for place, text in docstrings() if text[:1] == "[" and not NUMBERS.match(text)]

    assert [] == odd
    assert [] == [place for place, found in numbers.items() if found != [str(n) for n in sorted({*map(int, found)})]]
