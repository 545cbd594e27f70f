"""`import reflow` is cheap and brings nothing along that its user did not ask for."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.repo.sources import ROOT

MOST_MS = 150
ROUNDS = 7
# What the package may load besides the standard library.
DEPENDENCIES = {"reflow", "msgspec", "anyio", "sniffio", "idna", "typing_extensions", "exceptiongroup", "cronsim"}


def python(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_import_loads_only_the_dependencies():
    """`import reflow` loads its dependencies and the standard library: no package for tests, servers, web or command
    line, and not the event loop that is not in use."""
    before = "import sys; before = set(sys.modules)"
    after = "import json; print(json.dumps(sorted({name.split('.')[0] for name in set(sys.modules) - before})))"
    loaded = set(json.loads(python("-c", f"{before}\nimport reflow\n{after}")))

    # zoneinfo reads how Python was built, from a module of the standard library that is called after the platform.
    foreign = {name for name in loaded if not name.startswith("_sysconfigdata")}
    assert set() == foreign - DEPENDENCIES - sys.stdlib_module_names


def test_import_loads_nothing_for_tests():
    """`import reflow` loads nothing of the standard library that is for tests, web servers or the command line."""
    loaded = set(json.loads(python("-c", "import reflow, sys, json; print(json.dumps(sorted(sys.modules)))")))

    assert set() == loaded & {"unittest", "doctest", "http.server", "argparse", "multiprocessing", "tkinter", "pdb"}


def test_import_is_quick():
    """`import reflow` takes less than 150 ms of processor time more than starting an interpreter: the best of several
    runs in turns, so that a busy machine does not decide."""
    bare, importing = [], []
    python("-c", "import reflow")
    for _ in range(ROUNDS):
        bare.append(seconds("pass"))
        importing.append(seconds("import reflow"))

    assert (min(importing) - min(bare)) * 1_000 < MOST_MS


def seconds(code: str) -> float:
    """How much processor time a fresh interpreter takes for this."""
    return float(python("-c", f"{code}\nimport time\nprint(time.process_time())"))
