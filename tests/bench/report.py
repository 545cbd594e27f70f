"""How a measurement is shown: one JSON line for machines, one table for people."""

from __future__ import annotations

import json
from typing import Any


def show(workload: str, **figures: Any) -> None:
    """Print one measurement."""
    print(json.dumps({"workload": workload, **figures}))
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        shown = f"{value:,.2f}" if isinstance(value, float) else str(value)
        print(f"    {name:<{width}}  {shown}")
    print(flush=True)
