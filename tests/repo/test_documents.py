"""README and docs: links lead somewhere, and Python code is Python."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.repo.sources import ROOT, shown

PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors that the headings of a page make."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def dead_links(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    for match in LINK.finditer(prose(page)):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """(line, code) of the Python blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match[2].strip().split(" ")[0] in ("python", "py"):
            yield text.count("\n", 0, match.start()) + 1, textwrap.dedent(match[3])


def problem_of(code: str) -> str | None:
    """Why code is not Python; None where it is, as a module or as the body of an async function or a generator."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    bodies = [code, *(f"{start}\n{textwrap.indent(code, '    ')}" for start in ("def _():", "async def _():"))]
    problems = []
    for body in bodies:
        try:
            compile(body, "block", "exec", flags=flags, dont_inherit=True)
            return None
        except SyntaxError as error:
            problems.append(f"{error.msg}: {error.text}")
    return problems[0]


def test_there_are_pages():
    """The documentation is there."""
    assert PAGES


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path):
    """Each relative link leads to a file of the project, and to a heading where it names one."""
    assert [] == list(dead_links(page))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_code_is_python(page: Path):
    """Each block marked as Python compiles."""
    problems = {f"{shown(page)}:{line}": problem_of(code) for line, code in blocks(page)}

    assert {} == {place: problem for place, problem in problems.items() if problem}
