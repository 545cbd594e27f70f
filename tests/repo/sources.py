"""The project's own source as data: files, syntax trees, imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def python_files(*folders: str) -> list[Path]:
    """All Python files below these folders of the project."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def shown(path: Path) -> str:
    """A path as a message shows it."""
    return path.relative_to(ROOT).as_posix()


def at(path: Path, node: ast.AST) -> str:
    """file:line of a node."""
    return f"{shown(path)}:{getattr(node, 'lineno', 1)}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in python_files("reflow")}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a module of the package imports, wherever in the file: in functions and for type checkers
    too."""
    return frozenset(name for name, _ in imported_names(module))


def imported_names(module: str) -> Iterator[tuple[str, str | None]]:
    """(module, name in it) of all imports of a module; None where the module as such is imported."""
    for node in ast.walk(tree_of(modules()[module])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                if f"{source}.{alias.name}" in modules():
                    yield f"{source}.{alias.name}", None
                else:
                    yield source, alias.name


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


def documentation_of(tree: ast.AST) -> set[ast.Constant]:
    """The constants that are docstrings, also those under assignments."""
    expressions = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {value for value in expressions if isinstance(value, ast.Constant) and isinstance(value.value, str)}


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string that is not a docstring."""
    documentation = documentation_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node
