"""docs/reference/cli.md, made from what the commands say of themselves:
`python -m tests.repo.cli_page > docs/reference/cli.md`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.repo.sources import ROOT

__all__ = ["page"]

_HEAD = """\
# The command line

<!-- Generated from `reflow ... --help`. Write it again with:
     python -m tests.repo.cli_page > docs/reference/cli.md -->

`reflow`, or `python -m reflow`. [Workers](../how-to/workers.md) tells how to deploy one.

| exit code | meaning |
|---|---|
| 0 | it is done; a worker was told to stop, and has drained |
| 1 | it could not be done; one line says why |
| 2 | the command line is wrong; one line says what to write instead |
"""


def page() -> str:
    """The page as it has to be."""
    whole = _block()
    names = re.findall(r"^    (\w+) ", whole, re.MULTILINE)
    return "\n".join([_HEAD, whole, *(f"## `reflow {name}`\n\n{_block(name)}" for name in names)])


def _block(*words: str) -> str:
    command = [sys.executable, "-m", "reflow", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    said = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
    return f"```text\n{said.strip()}\n```\n"


if __name__ == "__main__":
    print(page(), end="")
