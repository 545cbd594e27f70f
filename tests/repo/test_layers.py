"""Imports go inward only, and the inner rings are pure."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.repo.sources import at, imported_names, imports, modules, shown, texts, tree_of

# From the inside out. What stands in one line may not import each other; `reflow` itself is the outermost of the core.
RINGS = (
    ("errors",),
    ("codec",),
    ("events",),
    ("_core",),
    ("storage",),
    ("_engine",),
    ("",),
    ("testing", "cli", "dashboard", "contrib"),
    ("__main__",),
)
ALLOWED_ASIDE = {("reflow.cli", "reflow.testing.replaying")}

PURE_LIBRARY = {
    *("__future__", "collections", "collections.abc", "contextlib", "contextvars", "dataclasses", "datetime", "enum"),
    *("functools", "hashlib", "heapq", "inspect", "itertools", "math", "re", "traceback", "types", "typing", "weakref"),
    "zoneinfo",
}
# What one module of the core may use beyond that, and why it is still pure.
EXCEPTIONS = {
    # Values computed from (run id, position).
    ("reflow._core.derived", "random", "Random"),
    ("reflow._core.derived", "uuid", "UUID"),
    # Types in annotations.
    ("reflow._core.values", "random", "Random"),
    ("reflow._core.values", "uuid", "UUID"),
    # The instruction at which a command was dropped, or something else than a command was delegated to.
    ("reflow._core.forgotten", "dis", "opmap"),
    ("reflow._core.misuse", "dis", "opmap"),
    ("reflow._core.forgotten", "sys", "_getframe"),
}
NOT_IN_STORAGE = {"time", "datetime", "random", "uuid", "secrets", "logging"}
MAY_SLEEP = "reflow.storage._sqlite.connection"
# What makes code, or imports, of data.
FROM_DATA = {"pickle", "marshal", "shelve", "importlib", "pkgutil", "runpy", "code", "codeop"}
# Imports what the words of a command line name. They come from whoever starts it, not from what is stored.
FROM_COMMAND_LINE = {"reflow.cli.loading": {"importlib"}}
CLOCK_IN_SQL = re.compile(
    r"current_(time|date|timestamp)|\bnow\b\s*\(|'now'|julianday|unixepoch|strftime|random\w*\s*\(|gen_random_uuid",
    re.I,
)

CORE = [name for name in modules() if name.startswith("reflow._core")]
STORAGE = [name for name in modules() if name.startswith("reflow.storage")]
PACKAGES = [name for name, path in modules().items() if path.name == "__init__.py"]


def ring_of(module: str) -> int:
    """The number of the ring that a module belongs to."""
    top = [*module.split("."), ""][1]
    numbers = [number for number, names in enumerate(RINGS) if top in names]
    assert len(numbers) == 1, f"{module} belongs to no ring; add it to RINGS"
    return numbers[0]


def part_of(module: str) -> str:
    """The package or module directly under `reflow` that a module belongs to."""
    return ".".join(module.split(".")[:2])


def own(names: frozenset[str]) -> set[str]:
    """Those of our package."""
    return {name for name in names if name.split(".")[0] == "reflow"}


@pytest.mark.parametrize("module", modules())
def test_imports_go_inward(module: str):
    """A module imports nothing from a ring further out, nor from another part of its own ring."""
    outward = {
        name
        for name in own(imports(module))
        if part_of(name) != part_of(module)
        and ring_of(name) >= ring_of(module)
        and (part_of(module), name) not in ALLOWED_ASIDE
    }

    assert set() == outward


def test_there_is_no_cycle():
    """No module imports itself through others, not even for type checkers only; a package's `__init__` counts too."""
    graph = {module: {name for name in own(imports(module)) if name != module} for module in modules()}
    try:
        list(TopologicalSorter(graph).static_order())
        cycle = []
    except CycleError as error:
        cycle = error.args[1]

    assert [] == cycle


def reading_order(package: str) -> list[str]:
    """The modules of a package in the order that its docstring gives, those it names; empty where it gives none.

    Either "Reading order: a, b, c." in a sentence, or a list with one module and its description a line.
    """
    text = ast.get_docstring(tree_of(modules()[package])) or ""
    if sentence := re.search(r"Reading order: ([^.]*)", text):
        words = re.findall(r"\w+", sentence[1])
    else:
        words = re.findall(r"^(\w+)  +\S", text, re.MULTILINE)
    return [f"{package}.{word}" for word in words if f"{package}.{word}" in modules()]


@pytest.mark.parametrize("package", [package for package in PACKAGES if reading_order(package)])
def test_a_package_is_read_from_top_to_bottom(package: str):
    """In a package whose docstring gives a reading order, a module imports only from those before it."""
    order = reading_order(package)
    upward = {
        f"{module} imports {name}"
        for number, module in enumerate(order)
        for inner in modules()
        if inner == module or inner.startswith(f"{module}.")
        for name in imports(inner)
        for later in order[number + 1 :]
        if name == later or name.startswith(f"{later}.")
    }

    assert set() == upward


def test_three_packages_have_a_reading_order():
    """The core, the storage and the engine say in which order to read them."""
    assert set() == {"reflow._core", "reflow.storage", "reflow._engine"} - {
        package for package in PACKAGES if reading_order(package)
    }


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_nothing_impure(module: str):
    """The core imports msgspec, the vocabulary, itself, and what is pure of the standard library."""
    impure = {
        (name, what)
        for name, what in imported_names(module)
        if name not in PURE_LIBRARY
        and name.split(".")[0] not in ("reflow", "msgspec")
        and (module, name, what) not in EXCEPTIONS
        and (module, name) != ("reflow._core.schedule", "cronsim")
    }

    assert set() == impure


def test_every_exception_is_needed():
    """What a module of the core may import beyond the rule, it does import."""
    assert set() == EXCEPTIONS - {(module, name, what) for module in CORE for name, what in imported_names(module)}


@pytest.mark.parametrize("module", CORE)
def test_the_core_does_not_wait(module: str):
    """Nothing in the core is async."""
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    assert [] == found(module, lambda node: isinstance(node, waiting))


@pytest.mark.parametrize("module", CORE + STORAGE)
def test_no_clock_no_output_within(module: str):
    """The core and the storage learn the time by argument, print nothing, and open no file themselves."""
    assert [] == found(module, _is_impure_call)


def _is_impure_call(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="print" | "open" | "input" | "breakpoint")):
            return True
        case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr="now" | "utcnow" | "today"):
            return True
        case _:
            return False


def test_types_for_annotations_are_not_called():
    """The commands name `Random` and `UUID` in annotations and make none."""
    assert [] == found(
        "reflow._core.values",
        lambda node: (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Random", "UUID")
        ),
    )


@pytest.mark.parametrize("module", STORAGE)
def test_the_storage_has_no_clock_and_no_entropy(module: str):
    """The storage imports no clock, no randomness and no logging; one module may sleep, while it waits for a lock."""
    banned = imports(module) & NOT_IN_STORAGE
    if module == MAY_SLEEP:
        banned -= {"time"}
        assert {"sleep"} == {
            node.attr
            for node in ast.walk(tree_of(modules()[module]))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
        }

    assert set() == banned


@pytest.mark.parametrize("module", STORAGE)
def test_sql_has_no_clock_and_no_entropy(module: str):
    """No SQL text asks the database for the time or for randomness."""
    path = modules()[module]

    assert [] == [at(path, text) for text in texts(tree_of(path)) if CLOCK_IN_SQL.search(str(text.value))]


@pytest.mark.parametrize("module", modules())
def test_no_data_becomes_code(module: str):
    """[21] Nothing in the package unpickles, imports by a name that it was given, or compiles a text; but for the one
    module that imports what a command line names."""
    builtins = {"eval", "exec", "compile", "__import__"}
    calls = found(module, lambda node: isinstance(node, ast.Name) and node.id in builtins)

    used = FROM_DATA & {name.split(".")[0] for name in imports(module)}
    assert (FROM_COMMAND_LINE.get(module, set()), []) == (used, calls)


def found(module: str, matches: object) -> list[str]:
    """file:line of every node for which `matches` is true."""
    path: Path = modules()[module]
    return [at(path, node) for node in ast.walk(tree_of(path)) if matches(node)]  # type: ignore[operator]


def test_the_checks_see_something():
    """The files that these checks are about are there."""
    expected = {"reflow/_core/replay.py", "reflow/storage/_sql/verbs/progress.py"}

    assert expected <= {shown(path) for path in modules().values()}
