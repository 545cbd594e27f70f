"""Values to bytes and back: the one door through which everything stored passes.

What may be stored is data: whatever msgspec encodes, except NaN and the infinities (JSON has no word for them, and
`nan != nan` would break "live equals replay"). Decoding is by the type that the code declares, never by what the bytes
say, so stored data can name no code. A value that cannot pass is refused with its path (`$.items[3].price`).

The fast path is msgspec's C encoder and one search over the bytes; only when that finds something suspicious is the
value walked in Python, to say where the trouble is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, cast

import msgspec

from reflow.errors import ConfigError, SerializationError

__all__ = ["Codec", "JsonCodec", "MsgpackCodec"]

# As deep as trouble is looked for: every level costs the length of its path.
_DEEPEST = 500


class Codec(Protocol):
    """Turns every stored value into bytes and back: inputs, results, outputs, failures.

    A codec of your own (encryption, compression) usually wraps `MsgpackCodec`. It must be able to read everything it
    ever wrote.
    """

    def encode(self, value: Any) -> bytes:
        """The bytes of `value`; `SerializationError` with the path where it is not data."""
        ...

    def decode(self, data: bytes, type: Any) -> Any:
        """The value of `data` as a `type` (an annotation); `SerializationError` with the path where it does not fit."""
        ...


class _MsgspecCodec:
    """What the two msgspec formats share."""

    def __init__(self, encode: Callable[[Any], bytes], decoder: Callable[[Any], Any], suspicious: re.Pattern[bytes]):
        self._encode = encode
        self._new_decoder = decoder
        self._suspicious = suspicious
        self._decoders: dict[Any, Callable[[bytes], Any]] = {}

    def encode(self, value: Any) -> bytes:
        """The bytes of `value`; `SerializationError` with the path where it is not data."""
        try:
            data = self._encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            path, reason = self._find_trouble(value) or ("$", str(error))
            raise SerializationError("value", reason, path) from None
        if self._suspicious.search(data) and (trouble := self._find_trouble(value)):
            path, reason = trouble
            raise SerializationError("value", reason, path)
        return data

    def decode(self, data: bytes, type: Any) -> Any:
        """The value of `data` as a `type`; `SerializationError` with the path where it does not fit."""
        try:
            decode = self._decoders[type]
        except (KeyError, TypeError):
            decode = self._decoder(type)
        try:
            return decode(data)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError, RecursionError) as error:
            # "Expected ... - at `$.items[0]`", or "... - at `key` in `$.items`".
            reason, _, path = str(error).partition(" - at `")
            raise SerializationError("value", reason, path.rstrip("`").replace("` in `", " in ") or "$") from None

    def _decoder(self, type: Any) -> Callable[[bytes], Any]:
        try:
            decode: Callable[[bytes], Any] = self._new_decoder(type).decode
        except Exception as error:
            # A type that msgspec does not know, or a name in a class's own annotations that cannot be found.
            raise ConfigError(f"Reflow cannot read values of the annotated type {type!r}: {error}") from None
        with suppress(TypeError):  # metadata in Annotated need not be hashable
            self._decoders[type] = decode
        return decode

    def _find_trouble(self, value: Any) -> tuple[str, str] | None:
        """Where in `value` the first thing is that is not data, and why; None where all of it is."""
        stack: list[tuple[str, Any, tuple[int, ...]]] = [("$", value, ())]
        while stack:
            path, item, above = stack.pop()
            if id(item) in above:
                return path, "refers to itself, so it has no end"
            if len(above) == _DEEPEST:
                return f"{path[:60]}...", f"is nested more than {_DEEPEST} deep"
            if isinstance(item, float) and not math.isfinite(item):
                return path, f"{item} is not data; use None, or a Decimal"
            members = list(_members(item, path))
            if members:
                stack.extend((inner, member, (*above, id(item))) for inner, member in reversed(members))
            elif reason := self._refuses(item):
                return path, reason
        return None

    def _refuses(self, leaf: Any) -> str | None:
        try:
            self._encode(leaf)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            kind = type(leaf).__name__
            return f"a value of type {kind} is not data ({error}); use plain values, dataclasses or msgspec Structs"
        return None


def _members(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in cast("Mapping[object, object]", value).items():
            yield f"{path}.<key {key!r}>", key
            yield (f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"), member
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, member in enumerate(cast("Iterable[Any]", value)):
            yield f"{path}[{index}]", member
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f"{path}.{name}", getattr(value, name)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield f"{path}.{field.name}", getattr(value, field.name, None)
    elif attributes := getattr(type(value), "__attrs_attrs__", None):
        for attribute in attributes:
            yield f"{path}.{attribute.name}", getattr(value, attribute.name, None)


class MsgpackCodec(_MsgspecCodec):
    """The default: msgpack, compact and quick."""

    def __init__(self) -> None:
        # A float is 0xcb and eight bytes; NaN and the infinities are those whose eleven exponent bits are all set.
        nonfinite = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
        super().__init__(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder, nonfinite)


class JsonCodec(_MsgspecCodec):
    """JSON, for stores that people read with other tools."""

    def __init__(self) -> None:
        # msgspec writes NaN and the infinities as null.
        super().__init__(msgspec.json.Encoder().encode, msgspec.json.Decoder, re.compile(rb"null"))
