"""A limit that the system sets to the size of files: no space, for the driver of the standard library too, and for
shared memory too."""

from __future__ import annotations

from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit, setrlimit

from tests.crash.disk.faults import Trouble

__all__ = ["Limit"]

_PAGE = 4_096


class Limit:
    """Has the face of a disk, for which it stands. The trouble is that no file may have more than `at` pages; what
    fails for that, only the system knows."""

    struck = 0

    def begin(self, trouble: Trouble) -> None:
        """From now on files cannot grow."""
        _set(trouble.at * _PAGE)

    def heal(self) -> None:
        """From now on they can."""
        _set(RLIM_INFINITY)


def _set(size: int) -> None:
    _, most = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (size, most))
