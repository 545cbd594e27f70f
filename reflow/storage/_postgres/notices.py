"""Hearing of what other processes did, and telling them: `listen` and `notify`.

A notice means "there may be something new to do" and nothing else; who must not miss anything looks now and then as
well. It is sent after the commit, never within it: a `notify` inside a transaction makes all commits of a server wait
for each other. And it is sent by a connection of its own, at most once in `_PAUSE_S`, however much was written.

Each of the two is a thread, because it waits for most of its life. Where its connection breaks it makes a new one, with
growing pauses; the listener wakes everybody when it is back, for what it has missed.

Closing waits for neither: a server that does not answer may keep a thread until the system gives up. What a thread
waits for on its line is ended by hanging up; where it is about to connect, it finds the line closed when it is through.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from reflow.storage._postgres.connection import Server
from reflow.storage._postgres.pooler import process_of

__all__ = ["Notices"]

_PAUSE_S = 0.01
_SHORTEST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
# How long closing waits for a last notice to be sent, and for a thread to end.
_GRACE_S = 0.5


def _channel(server: Server) -> str:
    return f"reflow_{server.schema}"


class Notices:
    """Both directions, for one process: `wake` is called when others have told something; `tell` tells them."""

    def __init__(self, server: Server, wake: Callable[[], object]) -> None:
        self._notifier = _Notifier(server)
        try:
            self._listener = _Listener(server, wake, self._notifier)
        except BaseException:
            self._notifier.close()
            raise

    def tell(self) -> None:
        """Have a notice sent soon."""
        self._notifier.tell()

    def close(self) -> None:
        """Stop; blocks, for about a second at most."""
        self._listener.close()
        self._notifier.close()


class _Line:
    """A connection for one thread, made again when it broke. `hang_up` is for any other thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._changing = Lock()
        self._connection: Connection[tuple[Any, ...]] | None = None
        # The same socket by another number, which stays ours whatever the driver does.
        self._plug: socket.socket | None = None
        self.is_closed = Event()

    def current(self) -> Connection[tuple[Any, ...]] | None:
        """The connection, where there is one that is not known to be broken."""
        return None if self._connection is None or self._connection.closed else self._connection

    def connect(self) -> Connection[tuple[Any, ...]]:
        """A new connection in place of the old one."""
        self.drop()
        connection = self._server.connect()
        with self._changing:
            if self.is_closed.is_set():
                connection.close()
                raise psycopg.OperationalError("closed while it was connecting")
            self._connection = connection
            self._plug = socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        return connection

    def drop(self) -> None:
        """Close the connection, if there is one."""
        with self._changing:
            if self._connection:
                self._connection.close()
            if self._plug:
                self._plug.close()
            self._connection = self._plug = None

    def hang_up(self) -> None:
        """Make whatever is waited for on the connection fail, now and from now on."""
        with self._changing:
            self.is_closed.set()
            if self._plug:
                with suppress(OSError):  # the other side was first
                    self._plug.shutdown(socket.SHUT_RDWR)


class _Notifier:
    """Tells other processes that there may be something new to do."""

    def __init__(self, server: Server) -> None:
        self._telling = SQL("select pg_notify({}, '')").format(_channel(server))
        self._line = _Line(server)
        self._has_news = Event()
        self._is_stopping = Event()
        self.process: int | None = None
        """The server's process that our notices come from; None before the first."""
        self._thread = Thread(target=self._work, name=f"reflow notifying {server.name}", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Have a notice sent soon."""
        self._has_news.set()

    def close(self) -> None:
        """Stop; blocks, but not for a server that does not answer."""
        self._is_stopping.set()
        self._has_news.set()
        self._thread.join(_GRACE_S)
        self._line.hang_up()
        self._thread.join(_GRACE_S)

    def _work(self) -> None:
        while self._has_news.wait() and not self._is_stopping.is_set():
            self._has_news.clear()
            with suppress(psycopg.Error):  # it was a hint
                self._notify()
            self._is_stopping.wait(_PAUSE_S)
        self._line.drop()

    def _notify(self) -> None:
        if connection := self._line.current():
            try:
                connection.execute(self._telling)
                return
            except psycopg.OperationalError:
                # It broke while nobody used it; if this is not about that, the next one will say so.
                self._line.drop()
        connection = self._line.connect()
        self.process = process_of(connection)
        connection.execute(self._telling)


class _Listener:
    """Calls `wake`, in a thread of its own, when another connection has told that there may be something new."""

    def __init__(self, server: Server, wake: Callable[[], object], own: _Notifier) -> None:
        self._listening = SQL("listen {}").format(Identifier(_channel(server)))
        self._line = _Line(server)
        self._wake = wake
        self._own = own
        try:
            # What is told from now on is heard.
            self._connect()
        except BaseException:
            self._line.drop()
            raise
        self._thread = Thread(target=self._work, name=f"reflow listening {server.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; blocks, but not for a server that does not answer."""
        self._line.hang_up()
        self._thread.join(_GRACE_S)

    def _work(self) -> None:
        wait_s = _SHORTEST_WAIT_S
        while not self._line.is_closed.is_set():
            try:
                connection = self._line.current()
                if connection is None:
                    connection = self._connect()
                    self._wake()
                self._hear(connection)
                wait_s = _SHORTEST_WAIT_S
            except psycopg.Error:
                self._line.drop()
                self._line.is_closed.wait(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        self._line.drop()

    def _connect(self) -> Connection[tuple[Any, ...]]:
        connection = self._line.connect()
        connection.execute(self._listening)
        return connection

    def _hear(self, connection: Connection[tuple[Any, ...]]) -> None:
        for notice in connection.notifies():
            # What this process did was told to everybody in it, without a journey.
            if notice.pid != self._own.process:
                self._wake()
