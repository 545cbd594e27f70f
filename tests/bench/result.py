"""What a workload has found out, for machines and for people."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Result(NamedTuple):
    """The figures of one measurement by name, units last."""

    workload: str
    figures: dict[str, Any]

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {"workload": self.workload, **{name: _rounded(value) for name, value in self.figures.items()}}
        )

    def table(self) -> str:
        """The same as a table."""
        width = max(map(len, self.figures))
        return "\n".join(
            [self.workload, *(f"    {name:<{width}}  {_shown(value):>12}" for name, value in self.figures.items())]
        )


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {f"p{percent}_ms": ordered[(len(ordered) - 1) * percent // 100] * 1e3 for percent in (50, 99)}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _shown(value: Any) -> str:
    match value:
        case float():
            return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.3f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
