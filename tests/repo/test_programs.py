"""The programs in the README and in docs/ run as they stand there, and print what the page says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repo.sources import ROOT, shown

# A program imports what it needs; where the next thing on the page is a text block, that is its output. One that begins
# with its name is a file, from which the others on the page may import.
PROGRAM = re.compile(
    r"^```python\n((?:# (\w+\.py)\n)?(?:from|import) .*?)^```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE
)


def programs_of(page: Path) -> Iterator[Any]:
    """Each program on a page, the output that the page shows, and the files of the page by name."""
    found = list(PROGRAM.finditer(page.read_text(encoding="utf-8")))
    files = {match[2]: match[1] for match in found if match[2]}
    for number, match in enumerate(found, 1):
        yield pytest.param(match[1], match[3], files, id=f"{shown(page)}-{number}")


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [program for page in PAGES for program in programs_of(page)]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "output", "files"), PROGRAMS)
def test_program_does_what_the_page_says(code: str, output: str | None, files: dict[str, str], tmp_path: Path):
    """The program ends without error or warning, and its output is the one on the page."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (0, "") == (ended.returncode, ended.stderr)
    assert output is None or output == ended.stdout


def test_there_are_programs():
    """The pages are read as they are meant: they have programs, and some show their output; in the README, all that is
    Python is a program."""
    assert (
        (ROOT / "README.md").read_text(encoding="utf-8").count("```python\n")
        == len(list(programs_of(ROOT / "README.md")))
        >= 2
    )
    assert len(PROGRAMS) >= 20
    assert len([program for program in PROGRAMS if program.values[1]]) >= 10
