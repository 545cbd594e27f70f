"""Under what conditions a workload runs, and how its figures are shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reflow import Engine, SQLiteStorage, Workflow
from reflow.storage._sqlite.connection import Durability


@dataclass(frozen=True)
class Setting:
    """One event loop, one durability, a folder of its own; `quick` asks for a size that shows the shape only."""

    folder: Path
    backend: str
    durability: Durability
    quick: bool

    def storage(self, name: str) -> SQLiteStorage:
        """A file of its own for each measurement."""
        return SQLiteStorage(self.folder / f"{name}.db", durability=self.durability)

    def engine(self, storage: SQLiteStorage, *workflows: Workflow[..., Any], **options: Any) -> Engine:
        """An engine on that file."""
        return Engine(storage, workflows, **options)

    def show(self, workload: str, **figures: Any) -> None:
        """One JSON line for machines, one table for people."""
        figures = {"backend": self.backend, "durability": self.durability, **figures}
        print(json.dumps({"workload": workload, **figures}))
        width = max(map(len, figures))
        print(workload)
        for name, value in figures.items():
            shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            print(f"    {name:<{width}}  {shown}")
        print(flush=True)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {f"p{p}_ms": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1e3 for p in (50, 99)}
