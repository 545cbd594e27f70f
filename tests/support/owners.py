"""Files of several owners, for tests that run as root, and the same with permissions only, for those that do not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["folder_for_all", "own", "unprivileged"]

_NOBODY = 65534


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that everybody may use; that of pytest is closed to other users."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o777)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Permissions hold: root, whom they do not bind, becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def own(*paths: Path) -> None:
    """Give what root made to nobody."""
    for path in paths:
        if os.geteuid() == 0:
            os.chown(path, _NOBODY, _NOBODY)
