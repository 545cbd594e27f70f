"""What Reflow costs: each workload on both event loops, with fsync on every commit, its results verified.

Of each measurement there is one line of JSON and one table. Throughputs are shown beside a floor: a bare loop over the
driver that writes the same rows in as many commits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from reflow.storage._sqlite.connection import Durability
from tests.bench import backlog, chain, dispatch, many, recovery, scaling, sleepers, wide
from tests.bench.result import Result
from tests.bench.setting import Setting
from tests.support.postgres import Server

BACKENDS = ("asyncio", "trio")

WORKLOADS: dict[str, Callable[[Setting], Iterator[Result]]] = {
    "chain": chain.measure,
    "many": many.measure,
    "recovery": recovery.measure,
    "dispatch": dispatch.measure,
    "wide": wide.measure,
    "sleepers": sleepers.measure,
    "backlog": backlog.measure,
    "scaling": scaling.measure,
}
ON_POSTGRES = tuple(name for name in WORKLOADS if name != "recovery")
"""Recovery kills a process and copies its file."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the named workloads, or all, each in a temporary folder of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which workloads: {', '.join(WORKLOADS)} (all)")
    add_setting(parser)
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", help="less, to see the shape only")
    parser.add_argument("--tiny", dest="size", action="store_const", const="tiny", help="to see only that it runs")
    parser.set_defaults(size="full")
    parser.add_argument("--storage", choices=("sqlite", "postgres"), default="sqlite", help="where runs are kept")
    parser.add_argument("--json", action="store_true", help="lines of JSON only")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(WORKLOADS):
        parser.error(f"unknown: {', '.join(unknown)}")
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(machine), flush=True)
    for name in options.names or (WORKLOADS if options.storage == "sqlite" else ON_POSTGRES):
        for backend in options.backend or BACKENDS:
            with tempfile.TemporaryDirectory(prefix="reflow-bench-") as folder, server(options.storage) as dsn:
                setting = Setting(Path(folder), backend, options.durability, options.size, dsn)
                for workload, figures in WORKLOADS[name](setting):
                    named = Result(workload, {"backend": backend, "durability": setting.durability, **figures})
                    print(named.line() if options.json else f"\n{named.line()}\n{named.table()}", flush=True)


@contextmanager
def server(storage: str) -> Iterator[str | None]:
    """A server that syncs every commit, where one is asked for: that of `REFLOW_TEST_PG_DSN`, else one of our own."""
    if storage == "sqlite":
        yield None
    elif dsn := os.environ.get("REFLOW_TEST_PG_DSN"):
        yield dsn
    else:
        with Server(durable=True, settings={"shared_buffers": "256MB", "autovacuum": "on"}) as own:
            yield own.dsn


def add_setting(parser: argparse.ArgumentParser) -> None:
    """The options that every measurement has."""
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="the event loop (both)")
    parser.add_argument(
        "--durability", choices=get_args(Durability), default="full", help="full (default): fsync on every commit"
    )


if __name__ == "__main__":
    main()
