"""A real Postgres server for the tests, with nothing but pip.

Where it comes from, in this order:

1. `REFLOW_TEST_PG_DSN` names one that runs. Only schemas called `rf_test_...` are made there, and dropped.
2. `REFLOW_TEST_PG_BIN` names the folder of programs that are to be used, of whatever version.
3. A wheel with the programs of Postgres in it, of the extra `tests`. It is a folder of programs to us: importing it
   would change the modes of folders, add a user, and start servers that outlive us.
4. The programs of the system, on `PATH` or where Debian puts them.
5. None: what needs one is skipped, and says why. With `REFLOW_REQUIRE_PG=1` it fails.

A `Server` is a temporary directory and a shell, as is a `Pooler` in front of one, for which the system needs to have
`pgbouncer`. The directory has everything: data, socket, log. The shell performs our
commands, one a line; its standard input is a pipe whose other end only this process has. However this process ends, by
SIGKILL too, the shell reads the end of the pipe, stops the server, removes the directory, and ends. So no lock, no
registry of servers and no clean-up at exit is needed, and any number of servers may run side by side.

Postgres refuses to run as root. Root's server therefore runs as `nobody`, to whom the directory belongs. If `nobody`
may not read the programs of the wheel, they are copied into the directory; nothing that was there before is changed.

Reading order: programs, held, server, pooler, schemas.
"""

from tests.support.postgres.pooler import Pooler
from tests.support.postgres.programs import Missing, find_programs, or_skip
from tests.support.postgres.schemas import Schemas
from tests.support.postgres.server import Server, serving

__all__ = ["Missing", "Pooler", "Schemas", "Server", "find_programs", "or_skip", "serving"]
