"""`reflow copy`: all runs of one storage into another, exactly."""

from __future__ import annotations

from reflow._engine.clock import SystemClock
from reflow.cli.storages import are_same, reading, shown, writing
from reflow.errors import ConfigError, StorageError
from reflow.storage._sql.copying import copy

__all__ = ["copy_all"]


def copy_all(source: str, target: str, *, schema: str | None = None, force: bool = False) -> None:
    """Copy all tables and print how many rows each has. `StorageError` where that cannot be, and nothing is copied."""
    if are_same(source, target):
        raise ConfigError(f"source and target are the same, {shown(source, schema)}; name a new one as the target")
    here, there = shown(source, schema), shown(target, schema)
    with reading(source, schema) as tables:
        held = tables.held_leases(SystemClock().now())
        if held and not force:
            raise StorageError(
                "copy",
                f"workers hold {held} runs of {here}; stop them first (of one that was killed, the lease has to run "
                "out), or write --force if you are sure that none goes on",
            )
        with writing(target, schema) as new_tables:
            counts = copy(tables, new_tables)
    for table, rows in counts.items():
        print(f"{rows:>10} {table}")
    print(f"{here} is copied to {there}, and both were compared. From now on run workers on {there} only.")
