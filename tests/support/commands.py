"""`reflow` as a process of its own, started in a folder with a module of workflows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The current directory of the commands: `jobs` is there.
FOLDER = ROOT / "tests" / "cli"


class Command:
    """A running `reflow ...`. Whatever it and its children write is read line by line: what they say is the signal."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def until(self, text: str) -> str:
        """Read until a line has this text, and give that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said, but:\n{''.join(self.said)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, to it alone."""
        self.process.send_signal(number)

    def left(self) -> tuple[int, str]:
        """Its exit code and all that was said, once it and all its children have ended."""
        assert self.process.stdout is not None
        # Ends when the last process that could write to it has ended.
        self.said += list(self.process.stdout)
        return self.process.wait(), "".join(self.said)

    def killed_by(self, number: signal.Signals) -> int:
        """Send a signal until the process has ended; its exit code."""
        while self.process.poll() is None:
            self.send(number)
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        return self.process.returncode


@contextmanager
def started(*words: object, folder: Path = FOLDER) -> Iterator[Command]:
    """`reflow` with these words, in a folder; killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reflow", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield Command(process)
        finally:
            process.kill()
