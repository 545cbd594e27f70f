"""Hearing of what other processes did, and telling them: `listen` and `notify`.

A notice means "there may be something new to do" and nothing else; who must not miss anything looks now and then as
well. It is sent after the commit, never within it: a `notify` inside a transaction makes all commits of a server wait
for each other. And it is sent by a connection of its own, at most once in `_PAUSE_S`, however much was written.

Each of the two is a thread, because it waits for most of its life. Where its connection breaks it makes a new one, with
growing pauses; the listener wakes everybody when it is back, for what it has missed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from reflow.storage._postgres.connection import Server

__all__ = ["Notices"]

_PAUSE_S = 0.01
# How long it takes a listener to see that it is to stop.
_LOOK_EVERY_S = 0.5
_SHORTEST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0


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
        """Stop; blocks, for half a second at most."""
        self._listener.stop()
        # Our own notice is what the listener wakes up by.
        self._notifier.tell()
        self._listener.close()
        self._notifier.close()


class _Notifier:
    """Tells other processes that there may be something new to do."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._has_news = Event()
        self._is_closed = Event()
        self._connection: Connection[tuple[Any, ...]] | None = None
        self._thread = Thread(target=self._work, name=f"reflow notifying {server.name}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The server's process that our notices come from; None before the first."""
        return self._connection.info.backend_pid if self._connection and not self._connection.closed else None

    def tell(self) -> None:
        """Have a notice sent soon."""
        self._has_news.set()

    def close(self) -> None:
        """Stop; blocks."""
        self._is_closed.set()
        self._has_news.set()
        self._thread.join()

    def _work(self) -> None:
        while self._has_news.wait() and not self._is_closed.is_set():
            self._has_news.clear()
            with suppress(psycopg.Error):  # it was a hint
                self._notify()
            self._is_closed.wait(_PAUSE_S)
        if self._connection:
            self._connection.close()

    def _notify(self) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = self._server.connect()
        self._connection.execute("select pg_notify(%s::text, '')", (_channel(self._server),))


class _Listener:
    """Calls `wake`, in a thread of its own, when another connection has told that there may be something new."""

    def __init__(self, server: Server, wake: Callable[[], object], own: _Notifier) -> None:
        self._server = server
        self._wake = wake
        self._own = own
        self._is_closed = Event()
        # What is told from now on is heard.
        self._connection = self._connected()
        self._thread = Thread(target=self._work, name=f"reflow listening {server.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End when something is heard, or in half a second."""
        self._is_closed.set()

    def close(self) -> None:
        """Wait until it has ended."""
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        wait_s = _SHORTEST_WAIT_S
        while not self._is_closed.is_set():
            try:
                if self._connection.closed:
                    self._connection = self._connected()
                    self._wake()
                self._hear()
                wait_s = _SHORTEST_WAIT_S
            except psycopg.Error:
                self._connection.close()
                self._is_closed.wait(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)

    def _hear(self) -> None:
        for notice in self._connection.notifies(timeout=_LOOK_EVERY_S):
            if self._is_closed.is_set():
                return
            # What this process did was told to everybody in it, without a journey.
            if notice.pid != self._own.pid:
                self._wake()

    def _connected(self) -> Connection[tuple[Any, ...]]:
        connection = self._server.connect()
        connection.execute(SQL("listen {}").format(Identifier(_channel(self._server))))
        return connection
