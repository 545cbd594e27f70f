"""A clock that is ahead of the machine's, or behind, by what a file says: others may put it on or back at any time."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from reflow._engine.clock import SystemClock

_MICROSECONDS = struct.Struct("<q")


class ShiftedClock(SystemClock):
    """The clock of whoever has opened the file; all of them see at once when it is put."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with file.open("r+b") as opened:
            self._shift = mmap.mmap(opened.fileno(), _MICROSECONDS.size)

    @classmethod
    def new(cls, file: Path) -> ShiftedClock:
        """One that shows the time."""
        file.write_bytes(_MICROSECONDS.pack(0))
        return cls(file)

    def now(self) -> int:
        """Microseconds since 1970 UTC."""
        return super().now() + self.ahead_us

    @property
    def ahead_us(self) -> int:
        """How far it is ahead."""
        [ahead_us] = _MICROSECONDS.unpack(self._shift[:])
        return int(ahead_us)

    def put(self, ahead_us: int) -> None:
        """Have it be so far ahead."""
        self._shift[:] = _MICROSECONDS.pack(ahead_us)
