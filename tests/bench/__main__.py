"""`python -m tests.bench [NAME ...]`: each workload on both event loops, with fsync on every commit.

`--durability process` measures without fsync on every commit, `--quick` smaller sizes.
"""

from __future__ import annotations

import argparse
import platform
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import get_args

import anyio

from reflow.storage._sqlite.connection import Durability
from tests.bench import backlog, chain, dispatch, many, recovery, sleepers, wide
from tests.bench.setting import Setting

WORKLOADS: dict[str, Callable[[Setting], Awaitable[None]]] = {
    "chain": chain.measure,
    "many": many.measure,
    "recovery": recovery.measure,
    "dispatch": dispatch.measure,
    "wide": wide.measure,
    "sleepers": sleepers.measure,
    "backlog": backlog.measure,
}


def main() -> None:
    """Run the named workloads, or all, each in a temporary folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--backend", choices=["asyncio", "trio"], action="append")
    parser.add_argument("--durability", choices=get_args(Durability), default="full")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(WORKLOADS):
        parser.error(f"unknown: {', '.join(unknown)}")
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}\n")
    for name in options.names or WORKLOADS:
        for backend in options.backend or ["asyncio", "trio"]:
            with tempfile.TemporaryDirectory(prefix="reflow-bench-") as folder:
                setting = Setting(Path(folder), backend, options.durability, options.quick)
                anyio.run(WORKLOADS[name], setting, backend=backend)


if __name__ == "__main__":
    main()
