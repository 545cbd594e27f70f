"""Real worker processes on one storage, and what they did."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from tests.crash.nursery import ROOT, Child, Nursery

Worker: TypeAlias = subprocess.Popen[bytes] | Child


class Fleet:
    """Worker processes (tests/crash/fleet_worker.py) with one database and one log of bodies that began.

    The database is a file in `folder`, and each worker runs on the event loop `backend`: in an interpreter of its own,
    or forked by a `nursery`.
    """

    def __init__(self, folder: Path, backend: str, nursery: Nursery | None = None) -> None:
        self.database = folder / "fleet.db"
        self.log = folder / "began.log"
        self._errors = folder / "stderr.txt"
        self._backend = backend
        self._nursery = nursery

    @contextmanager
    def worker(self, *, lease: str, **settings: object) -> Iterator[Worker]:
        """A worker that is asked to stop at the end, if it is still alive; fleet_worker.py has the settings."""
        environment = {f"REFLOW_FLEET_{name.upper()}": str(value) for name, value in settings.items()}
        with self._errors.open("ab") as errors:
            process = self._start(self._command(lease), {"REFLOW_FLEET_LOG": str(self.log), **environment}, errors)
        try:
            yield process
        finally:
            if process.stdin:
                process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def _start(self, command: list[str], environment: Mapping[str, str], errors: IO[bytes]) -> Worker:
        if self._nursery is not None:
            return self._nursery.start(command, environment, errors)
        python = [sys.executable, "-X", "faulthandler", "-m", *command]
        return subprocess.Popen(
            python, stdin=subprocess.PIPE, stderr=errors, cwd=ROOT, env={**os.environ, **environment}
        )

    def _command(self, lease: str) -> list[str]:
        """A module, and what it is told: serves until its standard input is closed."""
        return ["tests.crash.fleet_worker", str(self.database), self._backend, lease]

    @property
    def errors(self) -> str:
        """All that workers wrote to standard error."""
        return self._errors.read_text() if self._errors.exists() else ""

    def began(self, since: int = 0) -> list[tuple[str, str, int, int]]:
        """(run, position, attempt, process) of all bodies that began, but for the first so many."""
        text = self.log.read_text() if self.log.exists() else ""
        rows = (line.split() for line in text.splitlines()[since:])
        return [(run, position, int(attempt), int(pid)) for run, position, attempt, pid in rows]

    def began_count(self) -> int:
        """How many bodies began so far, cheaply."""
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def wait_for_bodies(self, count: int, limit_s: float = 30) -> bool:
        """Wait until so many bodies have begun in all; False when nothing happens any more."""
        deadline = time.monotonic() + limit_s
        while self.began_count() < count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def more_than_once(self) -> list[tuple[str, str, int]]:
        """Bodies that began more than once in the same attempt."""
        counts = Counter((run, position, attempt) for run, position, attempt, _ in self.began())
        return [body for body, count in counts.items() if count > 1]
