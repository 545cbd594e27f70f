"""A storage of one's own: a file of JSON lines, one for each verb that changed something.

    python examples/own_storage.py     # runs the conformance suite over it

Verbs have no clock and no randomness, so the same ones in the same order make the same state: the file keeps the verbs,
and a `MemoryStorage` carries them out. Any number of adapters and processes share a file: each locks it for a verb, and
first carries out what others have added. Not for real use: the file only grows, and the locks are those of POSIX.
"""

import fcntl
import os
from contextlib import suppress
from functools import partial, reduce
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import get_type_hints

import anyio
import msgspec

from reflow import MemoryStorage, StorageAccessError, StorageAdapter, StorageFormatError
from reflow.testing.conformance import check

WRITTEN = (
    *("create_runs", "claim_runs", "heartbeat", "save_progress", "send_message", "request_cancel", "resume_run"),
    *("prune", "put_schedule", "delete_schedule", "pause_schedule", "fire_schedule"),
)


def line_of(verb):
    """The line that a verb writes: its name, and its arguments."""
    hints = get_type_hints(getattr(MemoryStorage, verb)).items()
    fields = [(name, hint, None) if hint == str | None else (name, hint) for name, hint in hints if name != "return"]
    return msgspec.defstruct(verb, fields, tag=verb, tag_field="verb")


LINES = {verb: line_of(verb) for verb in WRITTEN}
DECODER = msgspec.json.Decoder(reduce(or_, LINES.values()))
HEAD = b'{"verb":"'


class LogStorage:
    def __init__(self, path):
        self._path = Path(path)
        self._state, self._size = MemoryStorage(), 0  # what the first so many bytes of the file make

    def __getattr__(self, verb):
        if verb not in vars(StorageAdapter):
            raise AttributeError(verb)
        return partial(self._carry_out, verb)

    async def initialize(self):
        await self.count_runs()  # any verb opens the file

    async def close(self):
        """No verb leaves it open."""

    async def listen(self, wake):
        while True:
            size = self._size
            await anyio.sleep(0.02)
            await self.count_runs()  # any verb hears of what others have added
            if size != self._size:
                wake(None)

    async def _carry_out(self, verb, *args, **kwargs):
        try:
            with self._path.open("a+b", buffering=0) as file:
                await lock(file)
                with anyio.CancelScope(shield=True):  # it happens as a whole, also where its caller is cancelled
                    await self._catch_up(file)
                    answer = await getattr(self._state, verb)(*args, **kwargs)
                    if verb in LINES and not (verb == "claim_runs" and not answer.runs):
                        line = msgspec.json.encode(LINES[verb](*args, **kwargs)) + b"\n"
                        await anyio.to_thread.run_sync(append, file, self._size, line)
                        self._size += len(line)
                    return answer
        except OSError as error:
            self._state, self._size = MemoryStorage(), 0  # it may be ahead of the file
            raise StorageAccessError(verb, str(error)) from error

    async def _catch_up(self, file):
        file.seek(self._size)
        *texts, rest = file.read().split(b"\n")  # the rest is of somebody who died while writing
        try:
            lines = [DECODER.decode(text) for text in texts]
            if not HEAD.startswith(rest[: len(HEAD)]):
                raise msgspec.DecodeError("this is no line of verbs")
        except msgspec.MsgspecError as error:
            raise StorageFormatError("initialize", f"{self._path}: {error}") from error
        for line in lines:
            await getattr(self._state, type(line).__name__)(**msgspec.structs.asdict(line))
        self._size += sum(len(text) + 1 for text in texts)


async def lock(file):
    """Wait until nobody else has locked the file. Closing it lets go of it."""
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        await anyio.sleep(0.001)


def append(file, size, line):
    """Put a line behind the first `size` bytes, on the disk; where that fails, nothing else is there."""
    file.truncate(size)
    try:
        if file.write(line) < len(line):
            raise OSError("the disk is full")
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        report = anyio.run(check, lambda: partial(LogStorage, Path(mkdtemp(dir=folder), "verbs.jsonl")))
    print(report)
