"""Where the time of a workload goes: `python -m tests.bench.profile NAME`, by cProfile, the event loop's thread and the
writing thread each by itself, the 25 functions with the most time of their own.

cProfile makes Python's calls dearer than they are, and C's not: read it as a list of suspects. For a picture without
that, run the same under an external sampler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from cProfile import Profile
from functools import partial
from pathlib import Path
from pstats import Stats
from typing import Any

from tests.bench import chain, dispatch, many, recovery, sleepers, wide
from tests.bench.__main__ import add_setting
from tests.bench.setting import Setting

SHOWN = 25

PROFILED: dict[str, Callable[[Setting], Awaitable[Any]]] = {
    "chain": chain.once,
    "many": many.once,
    "recovery": recovery.once,
    "dispatch": dispatch.once,
    "wide": wide.once,
    "sleepers": sleepers.once,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one workload once, without its floor, in this process."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", choices=PROFILED, help=f"one of {', '.join(PROFILED)}")
    add_setting(parser)
    options = parser.parse_args(arguments)
    for backend in options.backend or ["asyncio"]:
        with tempfile.TemporaryDirectory(prefix="reflow-bench-") as folder:
            setting = Setting(Path(folder), backend, options.durability, "full")
            for thread, profile in _profiles(partial(setting.run, PROFILED[options.name], setting)):
                print(f"{options.name}, {backend}, durability {options.durability}: {thread}")
                Stats(profile).strip_dirs().sort_stats("tottime").print_stats(SHOWN)


def _profiles(do: Callable[[], object]) -> list[tuple[str, Profile]]:
    """The profile of each thread that takes part; from Python 3.12 on, cProfile sees all of them as one."""
    profiles: list[tuple[str, Profile]] = []

    def watch() -> None:
        profiles.append((threading.current_thread().name, Profile()))
        profiles[-1][1].enable()

    if sys.version_info < (3, 12):
        # Called by each new thread with its first event; `enable` takes its place.
        threading.setprofile(lambda *_: watch())
    watch()
    try:
        do()
    finally:
        profiles[0][1].disable()
        threading.setprofile(None)
    return profiles


if __name__ == "__main__":
    main()
