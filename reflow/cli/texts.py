"""How times, values and tables look in a terminal: easy to read, and easy to search line by line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from reflow.codec import JsonCodec
from reflow.errors import SerializationError

__all__ = ["columns", "json", "moment", "one_line"]

_NONE = "-"


def moment(at: datetime | None) -> str:
    """A time in UTC, as ISO 8601 has it, to the second."""
    return _NONE if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def json(value: Any) -> str:
    """A value as JSON; what JSON cannot say, as Python shows it."""
    try:
        return JsonCodec().encode(value).decode()
    except SerializationError:
        return repr(value)


def one_line(text: str, most: int | None = None) -> str:
    """A text in one line, of at most so many characters."""
    line = " ".join(text.split())
    return line if most is None or len(line) <= most else f"{line[: most - 3]}..."


def columns(rows: Sequence[Sequence[object]]) -> list[str]:
    """A line for each row, whose parts stand below each other; those that are empty show as a dash."""
    texts = [[str(part) or _NONE for part in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    # The last one is as long as it is.
    return ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in texts]
