"""What a power cut leaves of the files of a directory.

Model. A file has a content that is durable, and operations on it that are only pending: writes and truncations since it
was last synced. A sync makes the pending ones durable. A sync that fails may have done so with any part of them; the
rest is lost for good, even if a later sync succeeds (what Linux does with pages that it could not write). The directory
is like a file: creations and deletions are pending until it is synced, which SQLite does with the first sync of a new
journal or log.

At a cut, each pending operation is durable or not, independently of all others: writes are lost, torn, and reordered at
will. A write is taken apart into sectors of 512 or 4,096 bytes, each with a fate of its own: its bytes are there, or
those from before, or none were written where the file has grown (zeros), or garbage. Bytes that no pending write
touches stay as they are: SQLite counts on that unless it is told otherwise (SQLITE_IOCAP_POWERSAFE_OVERWRITE).

What is not modelled: a drive that says to have synced and has not. Against that, nothing helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Literal, TypeAlias

from msgspec import Struct, msgpack

from reflow._core.journal import Entry

__all__ = [
    "Created",
    "Deleted",
    "Enqueued",
    "Operation",
    "Record",
    "Saved",
    "Synced",
    "Truncated",
    "Written",
    "after_a_cut",
    "decoded",
    "encoded",
    "laid_down",
]


class Created(Struct, frozen=True, tag=True):
    """A file that was not there is."""

    name: str


class Written(Struct, frozen=True, tag=True):
    """Bytes at a place of a file."""

    name: str
    offset: int
    data: bytes


class Truncated(Struct, frozen=True, tag=True):
    """A file was cut to, or extended to, a size."""

    name: str
    size: int


class Synced(Struct, frozen=True, tag=True):
    """What is pending of a file is durable; with `directory`, what is pending there too. Or that was tried in vain."""

    name: str
    directory: bool = False
    failed: bool = False


class Deleted(Struct, frozen=True, tag=True):
    """A file is gone; with `directory`, for good."""

    name: str
    directory: bool


class Enqueued(Struct, frozen=True, tag=True):
    """Reflow has acknowledged that this run exists."""

    run_id: str


class Saved(Struct, frozen=True, tag=True):
    """Entries that Reflow was asked to append to the journal of a run, and what it answered."""

    run_id: str
    entries: list[Entry]
    answer: Literal["none yet", "done", "refused"]


Operation: TypeAlias = Created | Written | Truncated | Synced | Deleted
Record: TypeAlias = Operation | Enqueued | Saved


def encoded(log: Sequence[Record]) -> bytes:
    """A log as bytes."""
    return msgpack.encode(log)


def decoded(data: bytes) -> list[Record]:
    """The log that was made these bytes."""
    return msgpack.decode(data, type=list[Record])


def laid_down(files: dict[str, bytes]) -> list[Record]:
    """The log of a directory in which these files are durable."""
    log: list[Record] = []
    for name, content in files.items():
        log += [Created(name), Written(name, 0, content), Synced(name, directory=True)]
    return log


class _Odds(Struct, frozen=True):
    """How likely things are at a cut: that a sector is kept, and, where it is not, that it is spoilt."""

    sector: int
    kept: float
    spoilt: float

    @classmethod
    def drawn(cls, dice: Random) -> _Odds:
        return cls(dice.choice((512, 4_096)), dice.choice((0, 0.1, 0.5, 0.9, 0.99, 1)), dice.choice((0, 0, 0.2, 1)))


class _File:
    """A file, as far as it is durable, and what is pending."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.pending: list[Written | Truncated] = []

    def sync(self) -> None:
        for operation in self.pending:
            if isinstance(operation, Written):
                self._put(operation.offset, operation.data)
            else:
                self._resize(operation.size)
        self.pending.clear()

    def cut(self, odds: _Odds, dice: Random) -> None:
        """Some of what is pending becomes durable, the rest never will."""
        for operation in self.pending:
            if isinstance(operation, Written):
                for offset, data in _sectors(operation, odds.sector):
                    if dice.random() < odds.kept:
                        self._put(offset, data)
                    elif dice.random() < odds.spoilt:
                        self._put(offset, dice.choice((dice.randbytes(len(data)), bytes(len(data)))))
            elif dice.random() < odds.kept:
                self._resize(operation.size)
        self.pending.clear()

    def _put(self, offset: int, data: bytes) -> None:
        self._resize(max(len(self.content), offset))
        self.content[offset : offset + len(data)] = data

    def _resize(self, size: int) -> None:
        if size < len(self.content):
            del self.content[size:]
        else:
            self.content.extend(bytes(size - len(self.content)))


def _sectors(write: Written, size: int) -> Iterator[tuple[int, bytes]]:
    """The parts of a write that are in different sectors."""
    start, end = write.offset, write.offset + len(write.data)
    while start < end:
        stop = min(end, start - start % size + size)
        yield start, write.data[start - write.offset : stop - write.offset]
        start = stop


class _Directory:
    """Files by name, as programs see them and as far as that is durable."""

    def __init__(self) -> None:
        self._seen: dict[str, _File] = {}
        self._durable: dict[str, _File] = {}
        self._pending: list[tuple[str, _File | None]] = []

    def apply(self, operation: Operation, odds: _Odds, dice: Random) -> None:
        match operation:
            case Created(name):
                self._change(name, _File())
            case Written(name) | Truncated(name):
                self._seen[name].pending.append(operation)
            case Synced(name, failed=True):
                self._seen[name].cut(odds, dice)
            case Synced(name):
                self._seen[name].sync()
            case Deleted(name):
                self._change(name, None)
        if isinstance(operation, (Synced, Deleted)) and operation.directory:
            self._settle(self._pending)

    def _change(self, name: str, file: _File | None) -> None:
        self._pending.append((name, file))
        _set(self._seen, name, file)

    def _settle(self, changes: Iterable[tuple[str, _File | None]]) -> None:
        for name, file in changes:
            _set(self._durable, name, file)
        self._pending.clear()

    def cut(self, odds: _Odds, dice: Random) -> dict[str, bytes]:
        self._settle([change for change in self._pending if dice.random() < odds.kept])
        for file in self._durable.values():
            file.cut(odds, dice)
        return {name: bytes(file.content) for name, file in self._durable.items()}


def _set(files: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        files.pop(name, None)
    else:
        files[name] = file


def after_a_cut(log: Sequence[Record], dice: Random) -> dict[str, bytes]:
    """The files that are there after what the log tells and a power cut."""
    odds = _Odds.drawn(dice)
    directory = _Directory()
    for record in log:
        if not isinstance(record, (Enqueued, Saved)):
            directory.apply(record, odds, dice)
    return directory.cut(odds, dice)
