"""Several workers: processes of their own, and a parent that starts them, replaces those that die, and stops them all.

Model. The parent runs no workflows and opens no storage. Each worker is this command again, as a member: its standard
input is a pipe from the parent. To stop, the parent closes the pipes, and waits. If it is killed the system closes
them, so no worker outlives it for longer than draining takes. Workers are in sessions of their own: Ctrl-C at a
terminal reaches the parent alone, and none of them takes it for a second signal.

A worker that ends without being asked to is replaced after a pause, which doubles each time up to a limit, and begins
anew once one has lasted. Its runs are taken over by others when its leases are over. A second signal kills all workers.
"""

from __future__ import annotations

import logging
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio.abc import Process

from reflow.cli.signals import Signals

__all__ = ["Fleet"]

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# A worker that has lived so long has begun well: what ended it is news.
_LASTED_S = 60.0

_log = logging.getLogger("reflow")


class Fleet:
    """`size` processes of `command`."""

    def __init__(self, command: Sequence[str], size: int) -> None:
        self._command = command
        self._size = size
        self._members: dict[int, Process] = {}
        self._stopping: anyio.Event
        self._exit_code = 0

    async def serve(self) -> int:
        """Keep all workers alive until a signal comes, and wait for their ends; gives the exit code."""
        self._stopping = anyio.Event()
        signals = Signals(self._stopping, self._kill)
        async with anyio.create_task_group() as keeping:
            for number in range(1, self._size + 1):
                keeping.start_soon(self._keep, number)
            await self._stopping.wait()
            _log.info("told to stop by %s: %d workers are to stop", signals.name, len(self._members))
            for process in list(self._members.values()):
                await _ask_to_stop(process)
        signals.hurry(self._exit_code)
        _log.info("all workers have stopped")
        return self._exit_code

    def _kill(self, number: int) -> None:
        _log.warning("%s again: %d workers are killed", signal.Signals(number).name, len(self._members))
        for process in self._members.values():
            with suppress(ProcessLookupError):  # it has ended by itself
                process.kill()

    async def _keep(self, number: int) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began_at = anyio.current_time()
            pid, code = await self._live(number)
            if self._stopping.is_set():
                self._exit_code = self._exit_code or (1 if code else 0)
                return
            if anyio.current_time() - began_at > _LASTED_S:
                pause_s = _FIRST_PAUSE_S
            _log.error("worker %d, pid %d, %s; the next one starts in %g s", number, pid, _told(code), pause_s)
            with anyio.move_on_after(pause_s):
                await self._stopping.wait()
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _live(self, number: int) -> tuple[int, int]:
        """One life of a worker: its process id, and its exit code."""
        process = await anyio.open_process(
            self._command, stdin=subprocess.PIPE, stdout=None, stderr=None, start_new_session=True
        )
        async with process:
            self._members[number] = process
            _log.info("worker %d has pid %d", number, process.pid)
            if self._stopping.is_set():
                await _ask_to_stop(process)
            code = await process.wait()
            del self._members[number]
        return process.pid, code


async def _ask_to_stop(process: Process) -> None:
    assert process.stdin is not None, "a member is told by its standard input"
    await process.stdin.aclose()


def _told(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
