"""What a case asserts by: a comparison that says both sides under any test runner, and under `python -O` too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from msgspec import Struct

__all__ = ["expect", "expect_one_of"]

_LONGEST = 2_000


def expect(expected: Any, actual: Any) -> None:
    """AssertionError with both sides, and the first place where they differ, unless they are equal.

    Types count: `1` is not `True`, a `memoryview` is not `bytes`, and a status is a `RunStatus` and no plain text.
    """
    for difference in _differences(expected, actual, "the answer"):
        raise AssertionError(f"{difference}\nexpected: {_shown(expected)}\nactual:   {_shown(actual)}")


def expect_one_of(expected: Sequence[Any], actual: Any) -> None:
    """AssertionError with all that was allowed, unless `actual` is one of it."""
    if actual not in expected:
        raise AssertionError(f"expected one of: {_shown(expected)}\nactual: {_shown(actual)}")


def _differences(expected: Any, actual: Any, place: str) -> Iterator[str]:
    """Where two values differ, in words; nothing where they are the same."""
    if type(expected) is not type(actual):
        yield f"{place} is a {type(actual).__name__}, not a {type(expected).__name__}"
        return
    parts, others = _parts(expected), _parts(actual)
    if len(parts) != len(others):
        yield f"{place} has {len(others)} elements, not {len(parts)}"
    elif not parts and expected != actual:
        yield f"{place} differs"
    for name in [name for name in parts if name in others]:
        yield from _differences(parts[name], others[name], place + name)


def _parts(value: Any) -> dict[str, Any]:
    """The parts of a record or a sequence, by how one gets to them; empty for a plain value."""
    if isinstance(value, Struct):
        return {f".{name}": getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, (list, tuple)):
        return {f"[{number}]": part for number, part in enumerate(cast("Sequence[Any]", value))}
    return {}


def _shown(value: object) -> str:
    """A value as a message shows it; of a very long one the beginning."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"
