"""Watch a durable import survive: start examples/import_zones.py, kill -9 it, start it again, until it is done.

    python examples/kill_and_resume.py [FOLDER]

Before each restart the journal tells which steps have a stored result; the import's own log tells which bodies began
after that. No body with a stored result may begin again. FOLDER (default: a new temporary one) keeps all files.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio

from reflow import Engine, RunInfo, SQLiteStorage

IMPORT = Path(__file__).with_name("import_zones.py")
KILL_AFTER_BATCHES = (3, 5, 5)


def main(folder: Path) -> int:
    finished: set[str] = set()
    repeated: set[str] = set()
    for batches in (*KILL_AFTER_BATCHES, None):
        seen = len(bodies_begun(folder))
        print(f"\n$ python examples/import_zones.py {folder}")
        started = time.monotonic()
        status = import_until_killed(folder, batches)
        repeated |= finished & set(bodies_begun(folder)[seen:])
        info = anyio.run(journal, folder)
        finished = {entry.position for entry in info.entries if entry.kind == "step" and entry.finished_at}
        if status == -signal.SIGKILL:
            print(
                f"--- kill -9 after {time.monotonic() - started:.1f} s; {len(finished)} steps have a stored result ---"
            )
    return report(info, finished, repeated, bodies_begun(folder))


def import_until_killed(folder: Path, batches: int | None) -> int:
    """Run the import, and kill it after so many batches have been announced; returns its exit status."""
    child = subprocess.Popen([sys.executable, str(IMPORT), str(folder)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout
        for number, line in enumerate(child.stdout, 1):
            print(line, end="", flush=True)
            if number == batches:
                child.kill()
                break
    return child.returncode


async def journal(folder: Path) -> RunInfo:
    """The run as it is stored. An engine without workflows claims nothing; it only looks."""
    async with Engine(SQLiteStorage(folder / "reflow.db"), []) as engine:
        info = await engine.get_run("import-zones")
        assert info is not None
        return info


def bodies_begun(folder: Path) -> list[str]:
    """The positions whose bodies began, in order; of a retried step, each attempt."""
    log = folder / "effects.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line["position"] for line in map(json.loads, lines) if line["what"] == "began"]


def report(info: RunInfo, finished: set[str], repeated: set[str], begun: list[str]) -> int:
    cut_short = len(begun) - sum(entry.attempts for entry in info.entries if entry.kind == "step")
    print(
        f"\nThe run is {info.status}: {info.output} places in {len(finished)} steps, in {info.executions} executions."
    )
    print(f"Bodies that a kill cut short, and that ran again: {cut_short}")
    print(f"Steps with a stored result that ran again: {len(repeated)}")
    return 0 if info.status == "completed" and not repeated else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="reflow-demo-"))
    sys.exit(main(folder))
