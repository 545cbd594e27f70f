"""Import the time zone database's table of places (418 rows) into a SQLite file of your own, durably.

    python examples/import_zones.py [FOLDER]

Kill it at any moment, in any way, and start it again: it goes on where it stopped. Each batch takes four steps, four
batches are under way at a time, and every third announcement fails at first and is tried again. FOLDER/effects.log
notes the beginning and the end of every step body, outside the database, so that you can see what ran when. The table
comes with the `tzdata` package (public domain).
"""

import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo

import reflow
from reflow import Flow, Retry, current_step, gather, now, step, workflow

FOLDER = Path("zones")


@dataclass
class Place:
    country: str
    zone: str
    latitude: float
    longitude: float
    offset_hours: float | None = None


@contextmanager
def effect(pace_s: float = 0.05) -> Iterator[None]:
    """Note a body's beginning and end in the log, and take as long as a real service would."""
    note("began")
    time.sleep(pace_s)
    yield
    note("ended")


def note(what: str) -> None:
    me = current_step()
    line = {"what": what, "step": me.step, "position": me.position, "attempt": me.attempt, "pid": os.getpid()}
    with open(FOLDER / "effects.log", "a") as log:
        log.write(json.dumps(line) + "\n")


def read_table() -> list[str]:
    with effect():
        text = (files("tzdata") / "zoneinfo" / "zone.tab").read_text()
        return [line for line in text.splitlines() if not line.startswith("#")]


def parse(lines: list[str]) -> list[Place]:
    with effect():
        return [Place(code, zone, *coordinates(where)) for code, where, zone, *_ in (row.split("\t") for row in lines)]


def coordinates(text: str) -> list[float]:
    """`+4230+00131` (degrees and minutes, or with seconds) as two numbers of degrees."""
    parts = re.fullmatch(r"([+-])(\d\d)(\d\d)(\d\d)?([+-])(\d\d\d)(\d\d)(\d\d)?", text)
    assert parts, text
    north, east = parts.groups()[:4], parts.groups()[4:]
    return [float(f"{s}1") * (int(d) + int(m) / 60 + int(sec or 0) / 3600) for s, d, m, sec in (north, east)]


def look_up_offsets(places: list[Place], at: datetime) -> list[Place]:
    with effect():
        for place in places:
            offset = at.astimezone(ZoneInfo(place.zone)).utcoffset()
            place.offset_hours = None if offset is None else offset.total_seconds() / 3600
        return places


def store(places: list[Place]) -> int:
    """Writes by key, so that doing it twice does no harm: a crash can come between the effect and its record."""
    with effect(), closing(sqlite3.connect(FOLDER / "zones.db", timeout=30)) as db, db:
        db.execute("create table if not exists place (zone primary key, country, latitude, longitude, offset_hours)")
        rows = [(place.zone, place.country, place.latitude, place.longitude, place.offset_hours) for place in places]
        db.executemany("insert or replace into place values (?, ?, ?, ?, ?)", rows)
        return len(rows)


async def announce(batch: int, count: int) -> None:
    with effect(0):
        if batch % 3 == 0 and current_step().attempt == 1:
            raise ConnectionError("the service is busy")
        print(f"  batch {batch + 1:2}: {count} places stored", flush=True)


def import_batch(batch: int, lines: list[str], at: datetime) -> Flow[int]:
    places = yield from step(parse, lines)
    places = yield from step(look_up_offsets, places, at)
    count = yield from step(store, places)
    yield step(announce, batch, count).options(retry=Retry(max_attempts=5, initial_delay="100ms"))
    return count


@workflow
def import_zones(rows_per_batch: int = 20) -> Flow[int]:
    lines = yield from step(read_table)
    at = yield from now()
    batches = [lines[start : start + rows_per_batch] for start in range(0, len(lines), rows_per_batch)]
    counts = yield from gather(*(import_batch(n, batch, at) for n, batch in enumerate(batches)), limit=4)
    return sum(counts)


if __name__ == "__main__":
    FOLDER = Path(*sys.argv[1:2] or ["zones"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    total = reflow.run(import_zones(), storage=FOLDER / "reflow.db", run_id="import-zones")
    print(f"done: {total} places in {FOLDER / 'zones.db'}")
