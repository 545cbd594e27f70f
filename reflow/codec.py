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
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, cast

import msgspec

from reflow.errors import ConfigError, SerializationError

__all__ = ["Codec", "JsonCodec", "MsgpackCodec"]

# As deep as trouble is looked for: every level costs the length of its path.
_DEEPEST = 500
_NO_VALUE: Any = object()


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
        except Exception as error:
            # Classes are the user's, and so is what their fields raise.
            path, reason = self._find_trouble(value) or ("$", _said(error))
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
        except Exception as error:
            # Also what a class of the user's raises when it is built, and a set that is to hold what cannot be hashed.
            # "Expected ... - at `$.items[0]`", or "... - at `key` in `$.items`".
            reason, _, path = _said(error).partition(" - at `")
            raise SerializationError("value", reason, path.rstrip("`").replace("` in `", " in ") or "$") from None

    def _decoder(self, type: Any) -> Callable[[bytes], Any]:
        try:
            decode: Callable[[bytes], Any] = self._new_decoder(type).decode
        except Exception as error:
            # A type that msgspec does not know, or a name in a class's own annotations that cannot be found.
            raise ConfigError(f"Reflow cannot read values of the annotated type {type!r}: {error}") from None
        if left_out := _left_out(type):
            raise ConfigError(
                f"Reflow cannot store all of the annotated type {type!r}: the encoder leaves out {left_out}, because "
                "of the underscore; give the field another name, or make the class a dataclass"
            )
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
            if item is _NO_VALUE:
                return path, "has no value"
            members = list(_members(item, path))
            if members:
                stack.extend((inner, member, (*above, id(item))) for inner, member in reversed(members))
            elif reason := self._refuses(item):
                return path, reason
        return None

    def _refuses(self, leaf: Any) -> str | None:
        try:
            self._encode(leaf)
        except Exception as error:
            kind = type(leaf).__name__
            return (
                f"a value of type {kind} is not data ({_said(error)}); use plain values, dataclasses or msgspec Structs"
            )
        return None


def _members(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in cast("Mapping[object, object]", value).items():
            shown = _shown(key)
            yield f"{path}.<key {shown}>", key
            yield (f"{path}.{key}" if isinstance(key, str) else f"{path}[{shown}]"), member
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, member in enumerate(cast("Iterable[Any]", value)):
            yield f"{path}[{index}]", member
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield f"{path}.{name}", getattr(value, name, _NO_VALUE)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield f"{path}.{field.name}", getattr(value, field.name, None)
    elif attributes := getattr(type(value), "__attrs_attrs__", None):
        for attribute in attributes:
            yield f"{path}.{attribute.name}", getattr(value, attribute.name, None)


def _shown(key: object) -> str:
    try:
        return repr(key)
    except Exception:
        return f"of type {type(key).__name__}"


def _said(error: Exception) -> str:
    if isinstance(error, (TypeError, ValueError, OverflowError, RecursionError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _left_out(type: Any) -> str | None:
    """The first private field in `type` that msgspec does not write: it takes all that attrs classes call so for no
    fields, and on reading they would silently have their defaults again."""
    if "attr" not in sys.modules:
        return None
    from msgspec import inspect

    stack: list[Any] = [inspect.type_info(type)]
    seen = set[int]()
    while stack:
        node = stack.pop()
        if isinstance(node, tuple):
            stack.extend(cast("Iterable[Any]", node))
        elif isinstance(node, (inspect.Type, inspect.Field)) and id(node) not in seen:
            seen.add(id(node))
            stack.extend(getattr(node, name) for name in node.__struct_fields__)
            cls: Any = getattr(node, "cls", None)
            for attribute in getattr(cls, "__attrs_attrs__", ()):
                if attribute.init and attribute.name.startswith("_"):
                    return f"{cls.__qualname__}.{attribute.name}"
    return None


class MsgpackCodec(_MsgspecCodec):
    """The default: msgpack, compact and quick."""

    def __init__(self) -> None:
        # A float is 0xcb and eight bytes; NaN and the infinities are those whose eleven exponent bits are all set.
        nonfinite = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
        super().__init__(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder, nonfinite)


class JsonCodec(_MsgspecCodec):
    """JSON, for stores that people read with other tools."""

    def __init__(self) -> None:
        # msgspec writes NaN and the infinities as null, and where they are keys, as texts.
        nonfinite = re.compile(rb'null|"(?:nan|-?inf)":')
        super().__init__(msgspec.json.Encoder().encode, msgspec.json.Decoder, nonfinite)
