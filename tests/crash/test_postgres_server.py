"""The Postgres server of the tests: it answers, can be broken, and is gone when the tests are, however they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import psycopg
import pytest

from tests.crash.fleet import ROOT
from tests.crash.ledger import fired
from tests.support.postgres import Missing, Schemas, Server, find_programs, or_skip, serving
from tests.support.postgres import programs as programs_module
from tests.support.postgres.programs import WHEEL, find_pooler, wheel

pwd = pytest.importorskip("pwd", reason="Windows has a server by REFLOW_TEST_PG_DSN only")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def programs() -> Path:
    """Where there are no programs there is nothing to test, except for what is said then."""
    with or_skip():
        return find_programs()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder where anybody may write; the test has to leave it empty. Pytest's own are only for their owner."""
    path = Path(mkdtemp(prefix="reflow-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    left = [*path.iterdir()]
    shutil.rmtree(path)
    assert [] == left


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    """A folder with a copy of the wheel in it, readable by anybody: an environment."""
    package = wheel()
    if package is None:
        with or_skip():
            raise Missing(f"{WHEEL} is not installed")
    path = Path(mkdtemp(prefix="reflow-site-", dir="/tmp"))
    for part in (package, package.with_name(f"{WHEEL}.libs")):
        if part.is_dir():
            shutil.copytree(part, path / part.name, ignore=shutil.ignore_patterns("pginstall", "include"))
    for each in (path, *path.rglob("*")):
        each.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def holder(folder: Path, *user: str, site: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process with a server in the folder; it is made to end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.postgres_holder", str(folder), *user],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | ({"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"} if site else {}),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(is_so: Callable[[], bool], limit_s: float = 20) -> None:
    """Wait for what other processes do."""
    until = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def query(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows that a query gives, on a connection of its own."""
    with psycopg.connect(dsn) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_it_answers_and_leaves_nothing(folder: Path):
    """A server answers as soon as it is made; closed, it is gone, and so is its directory."""
    with Server(within=str(folder)) as server:
        assert [(1,)] == query(server.dsn, "select 1")
        pid = server.pid

    assert [] == [*folder.iterdir()]
    wait_until(lambda: not is_alive(pid))
    server.close()


def test_another_user(folder: Path, site: Path):
    """Who is not root has a server too."""
    with holder(folder, "nobody", site=site) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        owner = pid_owner(pid)
        process.communicate()

    assert (0, True) == (process.returncode, owner != 0)
    wait_until(lambda: not is_alive(pid))


def test_the_tests_are_killed(folder: Path):
    """When the process that holds a server is killed, the server ends, and the directory is removed."""
    with holder(folder) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        began = time.monotonic()
        process.kill()
        process.wait()
        fired("SIGKILL", "tests that hold a Postgres server")

        wait_until(lambda: not is_alive(pid) and not any(folder.iterdir()))
    assert time.monotonic() - began < 10


def test_the_tests_are_killed_that_hold_a_pooler(folder: Path):
    """When the process that holds a server and a pooler is killed, both end, and their directories are removed."""
    with or_skip():
        find_pooler()
    with holder(folder, "--pooled") as process:
        assert process.stdout
        pids = [int(process.stdout.readline()) for _ in range(2)]
        assert [True, True] == [*map(is_alive, pids)]
        owners = {pid_owner(pid) for pid in pids}
        process.kill()
        process.wait()
        fired("SIGKILL", "tests that hold a pooler")

        wait_until(lambda: not any(map(is_alive, pids)) and not any(folder.iterdir()))
    assert (1, False) == (len(owners), 0 in owners)


@pytest.mark.parametrize("required", ["0", "1"])
def test_no_pooler_is_found(tmp_path: Path, required: str, monkeypatch: pytest.MonkeyPatch):
    """Without a pooler its tests are skipped and say so, though a server is required; they fail with
    `REFLOW_REQUIRE_PGBOUNCER=1`."""
    monkeypatch.setattr(programs_module, "POOLERS", str(tmp_path))
    monkeypatch.setenv("REFLOW_REQUIRE_PG", "1")
    monkeypatch.setenv("REFLOW_REQUIRE_PGBOUNCER", required)

    with pytest.raises(pytest.fail.Exception if required == "1" else pytest.skip.Exception, match="no pgbouncer"):
        with or_skip():
            find_pooler()


@pytest.mark.parametrize("seen", ["log", "data/PG_VERSION", "data/postmaster.pid"])
def test_the_tests_are_killed_before_it_answers(folder: Path, seen: str):
    """A process that is killed while its server is being made leaves nothing either."""
    with holder(folder) as process:
        wait_until(lambda: any(folder.glob(f"*/{seen}")))
        process.kill()
        process.wait()
        fired("SIGKILL", "tests that make a Postgres server")

        wait_until(lambda: not any(folder.iterdir()))


def test_a_closed_environment(folder: Path, site: Path):
    """Where only we may read the programs, the server runs all the same, and nothing has changed: no mode, no owner, no
    file, no user."""
    site.chmod(0o700)
    before = state(site), pwd.getpwall()
    with holder(folder, site=site) as process:
        assert process.stdout
        assert int(process.stdout.readline())
        copies = [path.name for path in folder.glob("*/*") if path.name == WHEEL]
        process.communicate()
    after = state(site), pwd.getpwall()
    site.chmod(0o755)

    assert (0, before) == (process.returncode, after)
    assert ([WHEEL] if os.getuid() == 0 else []) == copies


def test_two_side_by_side():
    """Servers start at the same time, and have nothing to do with each other."""
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: Server(), range(2))
    with one, other:
        query(one.dsn, "create table only_here ()")

        assert [(None,)] == query(other.dsn, "select to_regclass('only_here')")
        assert [("only_here",)] == query(one.dsn, "select to_regclass('only_here')::text")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stop_in_mid_transaction(server: Server, mode: Literal["fast", "immediate"]):
    """A server that stops in the middle of a transaction starts again at the same place, with what was committed and
    without what was not."""
    query(server.dsn, "drop table if exists t; create table t (v int); insert into t values (1)")
    with psycopg.connect(server.dsn) as connection:
        connection.execute("insert into t values (2)")
        server.stop(mode)
        fired(f"{mode} shutdown", "Postgres, in a transaction")

        with pytest.raises(psycopg.OperationalError):
            connection.execute("insert into t values (3)")
    with pytest.raises(psycopg.OperationalError):
        query(server.dsn, "select 1")
    server.start()

    assert [(1,)] == query(server.dsn, "select v from t")


def test_the_server_is_killed(server: Server):
    """A server whose process is gone can be started again, and has what was committed."""
    query(server.dsn, "drop table if exists t; create table t (v int); insert into t values (1)")
    pid = server.pid
    backends = [pid for (pid,) in query(server.dsn, "select pid from pg_stat_activity where pid <> pg_backend_pid()")]
    os.kill(pid, 9)
    wait_until(lambda: not any(map(is_alive, [pid, *backends])))
    fired("SIGKILL", "Postgres")
    server.start()

    assert [(1,)] == query(server.dsn, "select v from t")


def test_options():
    """A durable server syncs each commit, others do not; one is reached by TCP if that is asked for; settings count."""
    sql = "select current_setting('fsync'), current_setting('full_page_writes'), current_setting('work_mem')"
    with Server(durable=True, tcp=True, settings={"work_mem": "5MB"}) as server:
        assert [("on", "on", "5MB")] == query(server.dsn, sql)
        assert [(True,)] == query(server.dsn, "select inet_client_addr() = '127.0.0.1'")
        server.restart()
        assert [("on", "on", "5MB")] == query(server.dsn, sql)
    with Server() as server:
        assert [("off", "off", "4MB")] == query(server.dsn, sql)
        assert [(None,)] == query(server.dsn, "select inet_client_addr()")


def test_what_cannot_start_says_why(folder: Path):
    """A server that does not start is an error with its log in it, and leaves nothing."""
    with pytest.raises(RuntimeError, match=r"(?s)pg_ctl ended with.*invalid value for parameter \"shared_buffers\""):
        Server(settings={"shared_buffers": "much"}, within=str(folder))


def test_a_server_by_its_dsn(server: Server, monkeypatch: pytest.MonkeyPatch):
    """`REFLOW_TEST_PG_DSN` goes before everything else; that server still runs afterwards, and has no schema of
    ours."""
    monkeypatch.setenv("REFLOW_TEST_PG_DSN", server.dsn)
    sql = "select nspname from pg_namespace where nspname like 'rf_test_%'"
    with serving() as dsn, Schemas(dsn) as schemas:
        with schemas.lend() as place:
            query(place.dsn, f"create schema {place.schema}")
        assert server.dsn == dsn
        assert [(place.schema,)] == query(dsn, sql)

    assert [] == query(server.dsn, sql)


def test_programs_of_the_system(site: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the wheel, the programs on `PATH` serve."""
    folder = site / WHEEL / "pginstall18" / "bin"
    monkeypatch.setitem(sys.modules, WHEEL, None)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    assert folder == find_programs()
    with Server() as server:
        assert [(1,)] == query(server.dsn, "select 1")


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_nothing_is_found(tmp_path: Path, required: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch):
    """Without a DSN, a wheel and programs, the tests are skipped and say so; with `REFLOW_REQUIRE_PG=1` they fail."""
    monkeypatch.delenv("REFLOW_TEST_PG_DSN", raising=False)
    monkeypatch.setitem(sys.modules, WHEEL, None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs_module, "DEBIAN", tmp_path)
    monkeypatch.setenv("REFLOW_REQUIRE_PG", required)

    with pytest.raises(outcome, match=f"no Postgres: {WHEEL} is not installed, and the system has no postgres"):
        with or_skip(), serving():
            pass


def pid_owner(pid: int) -> int:
    """Whose process this is."""
    return int(subprocess.check_output(["ps", "-o", "uid=", "-p", str(pid)]))


def state(site: Path) -> dict[Path, tuple[int, ...]]:
    """The modes and owners of everything in a folder and of the folders around it, and when their content changed."""
    around = {path: (status.st_mode, status.st_uid) for path in site.parents for status in [path.stat()]}
    within = {
        path: (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        for path in (site, *site.rglob("*"))
        for status in [path.lstat()]
    }
    return around | within
