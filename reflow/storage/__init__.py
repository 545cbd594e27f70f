"""The storage contract and its adapters: bytes in, bytes out; no policy, no clock, no objects.

Reading order: records, loop, listeners, contract, _memory, memory, _sqlite, sqlite.
"""

from reflow.storage.contract import StorageAdapter
from reflow.storage.memory import MemoryStorage
from reflow.storage.sqlite import SQLiteStorage

__all__ = ["MemoryStorage", "SQLiteStorage", "StorageAdapter"]
