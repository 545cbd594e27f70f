"""A file that is only looked at: where it may not be written, it is read all the same."""

from __future__ import annotations

from reflow.errors import StorageAccessError
from reflow.storage import SQLiteStorage
from reflow.storage._sql.lane import Lane
from reflow.storage._sql.storage import Lanes
from reflow.storage._sql.transactions import Transactions
from reflow.storage._sqlite.looking import open_looking

__all__ = ["LookedAtFile"]


class LookedAtFile(SQLiteStorage):
    """Opened as any other; or, where that is refused for want of permission, to be read only."""

    def _open_lanes(self) -> Lanes:
        try:
            return super()._open_lanes()
        except StorageAccessError:
            if not self.path.is_file():
                raise
        sessions = [open_looking(self.path) for _ in range(2)]
        writing, reading = (Lane(session, name) for session, name in zip(sessions, ("writing", "reading"), strict=True))
        return Lanes(writing, reading, Transactions(lambda: open_looking(self.path)))
