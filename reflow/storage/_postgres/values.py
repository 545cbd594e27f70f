"""How values travel between Python and Postgres: in binary form, and exactly.

Integers are always sent as `bigint`, a truth value too, so that a statement is prepared once. Postgres has no text with
a NUL in it; where there is one it is stored as two characters that keep the order of code points: U+0001 U+0001 for
NUL, and U+0001 U+0002 for U+0001.
"""

from __future__ import annotations

from typing import Any

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper

__all__ = ["register"]


class _TextDumper(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        if "\0" in obj or "\1" in obj:
            obj = obj.replace("\1", "\1\2").replace("\0", "\1\1")
        return obj.encode()


class _TextLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text


class _TruthDumper(Int8BinaryDumper):
    def dump(self, obj: Any) -> Buffer | None:
        return super().dump(int(obj))


def register(adapters: AdaptersMap) -> None:
    """Have the values of a connection travel so."""
    adapters.register_dumper(str, _TextDumper)
    adapters.register_dumper(int, Int8BinaryDumper)
    adapters.register_dumper(bool, _TruthDumper)
    adapters.register_loader("text", _TextLoader)
