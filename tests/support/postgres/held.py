"""Programs in a temporary directory, which end with this process, however that ends."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

# $1: what ends everything. A reply that nobody reads must not end this shell.
_SHELL = """
trap '' PIPE
exec 2>>log
while read -r command; do eval "$command" >>log </dev/null; echo $?; done
eval "$1" >>log
cd / && rm -rf "$2"
"""
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class Held:
    """A directory, and a shell that performs our commands in it, as `nobody` where we are root. When this process ends,
    by SIGKILL too, the shell performs `ending` and removes the directory."""

    def __init__(self, ending: str, within: str) -> None:
        user = harmless()
        self.directory = Path(mkdtemp(prefix="reflow-pg-", dir=within))
        if user:
            shutil.chown(self.directory, user["user"], user["group"])
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "sh", ending, self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.directory,
            env=ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is for the tests.
            text=True,
            bufsize=1,
            **user,
        )

    @property
    def log(self) -> str:
        """What the programs had to say."""
        return (self.directory / "log").read_text()

    def perform(self, *command: str, aside: bool = False) -> None:
        """Perform a command, with success; or begin to, aside from all others."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{shlex.join(command)}{' &' if aside else ''}\n")
        if (reply := self._shell.stdout.readline()) != "0\n":
            raise RuntimeError(
                f"{Path(command[0]).name} ended with {reply!r}; {self.directory}/log ends with:\n{self.log[-2000:]}"
            )

    def close(self) -> None:
        """End everything in whatever state it is, and remove the directory; again is nothing."""
        with self._shell:  # Closes the pipe, and waits.
            pass
        # The shell cannot remove it from a folder where its user may not write.
        shutil.rmtree(self.directory, ignore_errors=True)


def harmless() -> dict[str, Any]:
    """Arguments for `subprocess` that make a child of root's run as `nobody`; none for anybody else's."""
    if os.getuid() != 0:
        return {}
    import pwd  # Windows has none, nor root.

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
