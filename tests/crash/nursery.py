"""Child processes in a few milliseconds: forked by one that has imported what they need. A new interpreter takes half a
second, which is longer than many a child of these tests lives.

Model. A nursery is a process with one thread, no event loop and no open database, so nothing is forked that would not
survive it: children inherit modules, and nothing else. A child goes on as `python -m MODULE ARGUMENTS` would; it is a
process of its own, with its own event loop, threads and connections. Its parent is the nursery, which therefore says
how it ended. A child has a pipe as its standard input, which ends when the tests do.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent.parent
_LONGEST_REQUEST = 65_536


class Child:
    """A forked process, with those methods of `subprocess.Popen` that tests need."""

    def __init__(self, nursery: Nursery, pid: int, stdin: IO[bytes]) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None
        self._nursery = nursery

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """How it ended: an exit code, or a signal as a negative number; None where it has not."""
        self._ask(os.WNOHANG)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """How it ended, when it has."""
        if timeout is None:
            self._ask(0)
        else:
            self._wait_for(lambda: self.poll() is not None, timeout)
        assert self.returncode is not None
        return self.returncode

    def wait_until_stopped(self, timeout: float) -> None:
        """Wait until it was stopped, by SIGSTOP."""
        self._wait_for(lambda: os.WIFSTOPPED(self._ask(os.WNOHANG | os.WUNTRACED)), timeout)

    def _wait_for(self, is_so: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not is_so():
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.002)

    def _ask(self, options: int) -> int:
        """The status of `os.waitpid`; 0 where it has nothing to say."""
        if self.returncode is not None:
            return 0
        pid, status = self._nursery.ask({"wait": [self.pid, options]})
        if pid == self.pid and not os.WIFSTOPPED(status):
            self.returncode = os.waitstatus_to_exitcode(status)
        return int(status)


class Nursery:
    """The end of it that tests have."""

    def __init__(self) -> None:
        self._requests, there = socket.socketpair()
        command = [sys.executable, "-X", "faulthandler", "-m", "tests.crash.nursery", str(there.fileno())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()], cwd=ROOT)
        there.close()
        self._asking = threading.Lock()

    def start(self, command: Sequence[str], environment: Mapping[str, str], errors: IO[bytes]) -> Child:
        """Fork a child that is `python -m` with this command."""
        theirs, ours = os.pipe()
        request = {"command": list(command), "environment": dict(environment)}
        try:
            pid = self.ask(request, theirs, errors.fileno())
        finally:
            os.close(theirs)
        return Child(self, pid, os.fdopen(ours, "wb"))

    def ask(self, request: object, *files: int) -> Any:
        """The answer of the process."""
        with self._asking:
            socket.send_fds(self._requests, [json.dumps(request).encode()], files)
            return json.loads(self._requests.recv(_LONGEST_REQUEST))

    def close(self) -> None:
        """End the process; children that still live go on until their standard input is closed."""
        self._requests.close()
        self._process.wait(30)


# ---- in the process --------------------------------------------------------------------------------------------------


def _warm_up() -> None:
    """Import what children do."""
    for name in ("anyio._backends._asyncio", "anyio._backends._trio", "reflow.testing", "tests.support.workflows"):
        import_module(name)

    # A collection in a child would write to, and so copy, all that is shared.
    gc.freeze()


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork children until nobody asks any more; in a child, returns what it is to be."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 2)
        if not message:
            return None
        request = json.loads(message)
        if "wait" in request:
            requests.send(json.dumps(os.waitpid(*request["wait"])).encode())
            continue
        assert 1 == threading.active_count(), "a thread would be missing in the child"
        if (pid := os.fork()) == 0:
            requests.close()
            for ours, theirs in enumerate(files):
                os.dup2(theirs, 2 * ours)
                os.close(theirs)
            os.environ.update(request["environment"])
            return list(request["command"])
        for theirs in files:
            os.close(theirs)
        requests.send(json.dumps(pid).encode())


if __name__ == "__main__":
    _warm_up()
    if command := _serve(socket.socket(fileno=int(sys.argv[1]))):
        sys.argv = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
