"""What the words of a command line name: workflows in modules, packages that are installed.

This is the only place where Reflow imports by a name that it was given: the words come from whoever starts the command,
never from what is stored.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard, cast

from reflow._core.definition import Workflow
from reflow._engine.registry import Registry
from reflow.errors import ConfigError

__all__ = ["is_installed", "load"]

_Workflow: TypeAlias = Workflow[..., Any]


def is_installed(package: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(package) is not None


def load(names: Iterable[str]) -> list[_Workflow]:
    """The workflows that `names` stand for, each once: `module:workflow`, `module:list_of_them`, or `module` for all
    that it defines. Modules of the current directory are found.

    `ConfigError` where a name stands for no workflow, and where two have one name and version.
    """
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    found = {id(workflow): workflow for name in names for workflow in _named(name)}
    workflows = list(found.values())
    Registry(workflows)
    return workflows


def _named(name: str) -> list[_Workflow]:
    module_name, colon, attribute = name.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or bool(colon) != bool(attribute):
        raise ConfigError(f"{name!r} names no module; write it as in an import, with a workflow of it: app.jobs:signup")
    module = _imported(module_name)
    own = [value for value in vars(module).values() if _is_workflow(value)]
    if not attribute:
        own = [workflow for workflow in own if workflow.function.__module__ == module.__name__]
        if not own:
            raise ConfigError(
                f"module {module_name!r} defines no workflow; name one that it imports, or a list: {module_name}:NAME"
            )
        return own
    if not hasattr(module, attribute):
        there = ", ".join(sorted(name for name, value in vars(module).items() if _is_workflow(value)))
        raise ConfigError(f"module {module_name!r} has no {attribute!r}; its workflows are: {there or 'none'}")
    return _workflows_in(getattr(module, attribute), name)


def _workflows_in(value: object, name: str) -> list[_Workflow]:
    members = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
    workflows = [member for member in members if _is_workflow(member)]
    if strangers := [member for member in members if not _is_workflow(member)]:
        raise ConfigError(f"{name} is no workflow, nor a list of them: {strangers[0]!r}; decorate it with @workflow")
    if not workflows:
        raise ConfigError(f"{name} is an empty list; put workflows into it")
    return workflows


def _is_workflow(value: object) -> TypeGuard[_Workflow]:
    return isinstance(value, Workflow)


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            hint = f"; write {name.removesuffix('.py')!r}" if name.endswith(".py") else ""
            raise ConfigError(
                f"there is no module {name!r} in {os.getcwd()}, nor among what is installed{hint}"
            ) from None
        # It is the module's own, and where it comes from matters.
        traceback.print_exc()
        raise ConfigError(f"importing {name!r} failed: {type(error).__name__}: {error}") from None
