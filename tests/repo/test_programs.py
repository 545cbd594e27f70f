"""The programs in docs/ run as they stand there, and print what the page says they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.sources import ROOT, shown

# A program imports what it needs; where the next thing on the page is a text block, that is its output.
PROGRAM = re.compile(r"^```python\n((?:from|import) .*?)^```\n(?:\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)

PROGRAMS = [
    pytest.param(match[1], match[2], id=f"{shown(page)}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, match in enumerate(PROGRAM.finditer(page.read_text(encoding="utf-8")), 1)
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_program_does_what_the_page_says(code: str, output: str | None, tmp_path: Path):
    """The program ends without error or warning, and its output is the one on the page."""
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
    """The pages are read as they are meant: they have programs, and some show their output."""
    assert len(PROGRAMS) >= 20
    assert len([program for program in PROGRAMS if program.values[1]]) >= 10
