"""What befalls a fleet on Postgres: its server is stopped, its connections end, its workers are killed.

Everything is counted after it has happened: a connection by the server's own answer, and by what it was doing then.
"""

from __future__ import annotations

import random
import subprocess
from contextlib import ExitStack
from typing import Literal

import anyio
import psycopg
from anyio import CancelScope, to_thread

from tests.crash.ledger import fired
from tests.crash.postgres_fleet import MEMBER, Beside, ServerFleet
from tests.support.postgres import Server

_STOPS: tuple[Literal["immediate", "fast"], ...] = ("immediate", "fast")
# Those that are in the middle of something are preferred, or most would be idle.
_END = f"""select state, pg_terminate_backend(pid) from (
        select pid, state from pg_stat_activity where application_name = '{MEMBER}' and state is not null
        order by (state <> 'idle' and random() < 0.8) desc, random() limit 1
    ) as victim"""
_DOING = {
    "starting": "while it is made",
    "idle": "between transactions",
    "active": "in a statement",
    "idle in transaction": "in a transaction",
    "idle in transaction (aborted)": "in a transaction",
}


class Storm:
    """On a fleet of `size` workers, from `begin` until its `with` block is left."""

    def __init__(self, fleet: ServerFleet, server: Server, size: int, *, lease: str, seed: int) -> None:
        self.ended_connections = 0
        self.kills = 0
        self.stops = 0
        self._fleet = fleet
        self._server = server
        self._lease = lease
        self._dice = random.Random(seed)
        self._stack = ExitStack()
        self._workers: list[subprocess.Popen[bytes]] = [self._new_worker() for _ in range(size)]

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    async def rage(self) -> None:
        """Until cancelled; the server runs then, and so do all workers."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop_the_server)
                tasks.start_soon(self._end_connections)
                tasks.start_soon(self._kill_workers)
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._replace_the_dead)

    async def _stop_the_server(self) -> None:
        while True:
            for mode in _STOPS:
                await anyio.sleep(self._dice.uniform(2, 4))
                with CancelScope(shield=True):
                    await to_thread.run_sync(self._server.stop, mode)
                    fired("server stopped", mode)
                    self.stops += 1
                    await anyio.sleep(self._dice.uniform(0, 0.5))
                    await to_thread.run_sync(self._server.start)

    async def _end_connections(self) -> None:
        beside = Beside(self._server)
        try:
            while True:
                await anyio.sleep(self._dice.uniform(0, 0.1))
                try:
                    rows = await to_thread.run_sync(beside, _END)
                except psycopg.OperationalError:
                    continue
                for state, is_ended in rows:
                    if is_ended:
                        fired("connection terminated", _DOING[state])
                        self.ended_connections += 1
        finally:
            beside.close()

    async def _kill_workers(self) -> None:
        while True:
            await anyio.sleep(self._dice.uniform(1, 4))
            victim = self._dice.choice(self._workers)
            if victim.poll() is None:
                victim.kill()
                victim.wait()
                fired("SIGKILL", f"one of {len(self._workers)} workers on a server")
                self.kills += 1
            with CancelScope(shield=True):
                await to_thread.run_sync(self._replace_the_dead)

    def _replace_the_dead(self) -> None:
        """Of killed ones, and of those whose server was down when they began."""
        for number, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self._workers[number] = self._new_worker()

    def _new_worker(self) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(self._fleet.worker(lease=self._lease, pace_s=0.02))
