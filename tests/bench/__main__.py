"""`python -m tests.bench`: every workload on both event loops, with fsync on every commit and without."""

from __future__ import annotations

import platform
import sqlite3
import tempfile
from pathlib import Path

import anyio

from reflow.storage._sqlite.connection import Durability
from tests.bench.chain import run_chain

DURABILITIES: tuple[Durability, ...] = ("full", "process")


def main() -> None:
    """Run all workloads in a temporary folder."""
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}\n")
    for durability in DURABILITIES:
        for backend in ("asyncio", "trio"):
            with tempfile.TemporaryDirectory(prefix="reflow-bench-") as folder:
                anyio.run(run_chain, Path(folder), durability, backend, backend=backend)


if __name__ == "__main__":
    main()
