"""Connections to a file that strike their own process at a statement: SIGKILL it, or SIGSTOP.

Model. The *points* of a process are the moments just before a statement runs, as SQLite tells it, and just after a call
of the driver has returned; they are counted over all connections and threads. The look at `data_version`, of which an
idle lane makes fifty in a second, is no point. The signal goes to the thread that has come to the point, which
therefore does not get past it, and takes the whole process with it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")

_connect = sqlite3.connect


def strike(point: int, how: int, log: int) -> Iterator[int]:
    """Have every connection of this process be a mortal one. At that point a line is written to the file descriptor
    `log`: before or after, whether in a transaction, and what statement; then the signal `how` is sent. What is
    returned gives the number of the next point."""
    points = count(1)

    def reach(db: sqlite3.Connection, when: str, statement: str) -> None:
        if "data_version" not in statement and next(points) == point:
            where = "in a transaction" if db.in_transaction else "outside transactions"
            os.write(log, f"{when} a statement, {where}\t{' '.join(statement.split())}\n".encode())
            signal.pthread_kill(threading.get_ident(), how)

    sqlite3.connect = partial(_connect, factory=partial(_Mortal, reach))
    return points


class _Mortal(sqlite3.Connection):
    def __init__(self, reach: Callable[[sqlite3.Connection, str, str], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reach = reach
        self.set_trace_callback(partial(reach, self, "before"))

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        return self._returned(super().execute(sql, *args), sql)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        return self._returned(super().executemany(sql, *args), sql)

    def _returned(self, answer: T, sql: str) -> T:
        self._reach(self, "after", sql)
        return answer
