"""A Postgres server in a temporary directory, which ends with this process, however that ends."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

from tests.support.postgres.held import ENVIRONMENT, Held, harmless
from tests.support.postgres.programs import Missing, find_programs, wheel

# What is not synced survives the kill of a server, though not of the machine: enough for tests. `synchronous_commit`
# stays on: without it the last commits are in the server's memory only, and that saves 5 us of 36.
_HASTY = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off"}


class Server:
    """Runs when made; ends with `close`, with its `with` block, or with this process.

    `dsn` is what `psycopg.connect` takes, and stays the same over `stop` and `start`. What is committed survives any
    `stop`; `durable` syncs each commit to the disk too, as production does. `tcp` listens on the loopback, where
    anybody on this machine may connect; else there is a socket in `directory` only. `settings` are more of
    postgresql.conf. `folder` has the programs. `within` is where the directory is made: its path must be short,
    because a socket's has at most 100 bytes, and `nobody` must get there.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        tcp: bool = False,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
        within: str = "/tmp",
    ) -> None:
        folder = folder or find_programs()
        user = harmless()
        is_closed = bool(user) and not _may_run(folder / "initdb", user)
        place = Path(folder.parent.parent.name, folder.parent.name, "bin") if is_closed else folder
        stop = shlex.join([f"{place}/pg_ctl", "stop", "-D", "data", "-m", "immediate"])
        # Whoever is stopped by a signal hears of no other.
        self._held = Held(f'kill -CONT "$(head -n 1 data/postmaster.pid)"; {stop}', within)
        self.directory = self._held.directory
        self._folder = self.directory / place
        port = _free_port() if tcp else 5432
        self.dsn = f"host={'127.0.0.1' if tcp else self.directory} port={port} user=postgres dbname=postgres"
        self._settings = {
            **({} if durable else _HASTY),
            "listen_addresses": "127.0.0.1" if tcp else "",
            "unix_socket_directories": str(self.directory),
            "port": str(port),
            "shared_buffers": "32MB",
            "max_connections": "200",
            **(settings or {}),
        }
        try:
            if is_closed:
                _copy(folder, self.directory, user)
            self._perform(
                "initdb",
                "--no-sync",
                "--no-locale",
                "-E",
                "UTF8",
                "-A",
                "trust",
                "-U",
                "postgres",
                "--no-instructions",
                "data",
            )
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it after `stop`, on the same data; returns when it takes connections."""
        settings = [f"-c{name}={value}" for name, value in self._settings.items()]
        self._perform("pg_ctl", "start", "-D", "data", "-l", "log", "-o", shlex.join(settings))

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Roll back what is open and shut down; or "immediate": drop everything at once, and recover at the next
        start, as after a crash."""
        self._perform("pg_ctl", "stop", "-D", "data", "-m", mode)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    @contextmanager
    def frozen(self, *, connections: bool = True) -> Iterator[None]:
        """Within it the server takes part in nothing: who connects waits, and so does who is connected, unless these
        `connections` live on."""
        stopped = [self.pid]
        os.kill(self.pid, signal.SIGSTOP)
        try:
            if connections:
                # No more of them come into being.
                children = subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(self.pid)], text=True)
                for pid in map(int, children.split()):
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process of the server, while it runs; its parent is not this process."""
        return int((self.directory / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def log(self) -> str:
        """What the server, and the programs that made it, had to say."""
        return self._held.log

    def close(self) -> None:
        """Stop it in whatever state it is, and remove the directory; again is nothing."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _perform(self, program: str, *arguments: str) -> None:
        self._held.perform(str(self._folder / program), *arguments)


@contextmanager
def serving() -> Iterator[str]:
    """The DSN of a server: the one that `REFLOW_TEST_PG_DSN` names, else of one that lives as long as the block."""
    if dsn := os.environ.get("REFLOW_TEST_PG_DSN"):
        yield dsn
    else:
        with Server() as server:
            yield server.dsn


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _may_run(program: Path, user: Mapping[str, Any]) -> bool:
    try:
        tried = subprocess.run([program, "--version"], capture_output=True, cwd="/", env=ENVIRONMENT, **user)
    except PermissionError:
        return False
    return tried.returncode == 0


def _copy(folder: Path, directory: Path, user: Mapping[str, Any]) -> None:
    """The programs and what they read, laid out as in the wheel, for a user who cannot get at it."""
    package = wheel()
    if package is None or package not in folder.parents:
        raise Missing(f"no Postgres: {folder} may not be used by nobody, as whom root has to run it")
    ignored = shutil.ignore_patterns("include", "pkgconfig", "__pycache__", "*.py")
    shutil.copytree(folder.parent, directory / package.name / folder.parent.name, ignore=ignored)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / libraries.name)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user["user"], user["group"], follow_symlinks=False)
