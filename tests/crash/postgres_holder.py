"""A process that holds a Postgres server in a folder until it is killed or its standard input ends.

`python -m tests.crash.postgres_holder FOLDER [nobody]`: as `nobody` it gives up being root first, if it is. When the
server has answered, it prints the server's process. `... FOLDER --pooled` holds a pooler too, and prints its process.
"""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import ExitStack

import psycopg

from tests.support.postgres import Pooler, Server
from tests.support.postgres.programs import WHEEL


def main() -> None:
    """Serve."""
    within, *words = sys.argv[1:]
    user = [word for word in words if word != "--pooled"]
    if user and os.getuid() == 0:
        # From here on, not even this program's own modules need be readable.
        nobody = pwd.getpwnam(*user)
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        assert os.getuid() != 0
    with Server(within=within) as server, ExitStack() as stack:
        with psycopg.connect(server.dsn) as connection:
            assert (1,) == connection.execute("select 1").fetchone()
        assert WHEEL not in sys.modules
        print(server.pid, flush=True)
        if "--pooled" in words:
            print(stack.enter_context(Pooler(server.dsn, within=within)).pid, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
