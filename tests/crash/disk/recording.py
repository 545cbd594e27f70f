"""Recordings, and what power cuts make of them; in the test process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.crash.disk import model
from tests.crash.disk.judge import judge

__all__ = ["ROOT", "SEED", "Cuts", "Recording", "cut", "record"]

ROOT = Path(__file__).parent.parent.parent.parent
SEED = 20261128


class Recording(NamedTuple):
    """What happened to the files of a process, and how many operations failed."""

    log: list[model.Record]
    struck: int


class Cuts(NamedTuple):
    """Power cuts: how many, in how many of them something acknowledged was lost, and how many runs and entries."""

    count: int = 0
    lossy: int = 0
    runs: int = 0
    entries: int = 0


def record(folder: Path, backend: str, durability: str, pages: int, *trouble: object) -> Recording:
    """Have a process work in `folder` (tests/crash/disk/recorder.py) until all runs have ended as they must."""
    log = folder.with_suffix(".log")
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.crash.disk.recorder", folder, log, backend, durability, pages, *trouble]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return Recording(model.decoded(log.read_bytes()), int(done.stdout))


async def cut(folder: Path, log: list[model.Record], ends: Iterable[int]) -> Cuts:
    """Cut the power after each of these numbers of records."""
    total = Cuts()
    for number, end in enumerate(ends):
        dice = Random(f"{SEED} {number} {end}")
        try:
            with TemporaryDirectory(dir=folder) as files:
                lost = await judge(Path(files), log[:end], dice)
        except BaseException as error:
            error.add_note(f"cut number {number}, after record {end} of {len(log)}; the log is in {folder}")
            raise
        lossy = lost.runs + lost.entries > 0
        total = Cuts(total.count + 1, total.lossy + lossy, total.runs + lost.runs, total.entries + lost.entries)
    return total
