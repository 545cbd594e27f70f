"""The workflows an engine was given, by name and version."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reflow._core.definition import Workflow
from reflow.errors import ConfigError, DuplicateWorkflowError, WorkflowNotFoundError

__all__ = ["Registry"]


class Registry:
    """Which workflows are known. Their annotations are resolved here, so that a wrong one shows at once."""

    def __init__(self, workflows: Iterable[Workflow[..., Any]]) -> None:
        self._known: dict[tuple[str, int], Workflow[..., Any]] = {}
        self._latest: dict[str, Workflow[..., Any]] = {}
        if not isinstance(workflows, Iterable):
            raise ConfigError(f"workflows is {workflows!r}; write a list of them: Engine(storage, [signup])")
        for workflow in workflows:
            if not isinstance(workflow, Workflow):
                name = getattr(workflow, "__name__", repr(workflow))
                raise ConfigError(f"{name} is not a workflow; decorate it with @workflow, and do not call it here")
            key = (workflow.name, workflow.version)
            if key in self._known:
                raise DuplicateWorkflowError(*key)
            _ = workflow.input_type, workflow.output_type
            self._known[key] = workflow
            if (latest := self._latest.get(workflow.name)) is None or latest.version < workflow.version:
                self._latest[workflow.name] = workflow

    @property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """All (name, version) pairs."""
        return tuple(self._known)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, each once."""
        return tuple(self._latest)

    def knows(self, name: str, version: int) -> bool:
        """Whether there is a workflow of this name and version."""
        return (name, version) in self._known

    def find(self, name: str, version: int) -> Workflow[..., Any] | None:
        """The workflow of this name and version, if it is known."""
        return self._known.get((name, version))

    def require(self, name: str, version: int | None = None) -> Workflow[..., Any]:
        """The workflow of this name and version (None: the latest that is known); `WorkflowNotFoundError` for one that
        this engine could never run."""
        found = self._latest.get(name) if version is None else self.find(name, version)
        if found is None:
            known = tuple(f"{name} (version {version})" if version != 1 else name for name, version in self._known)
            raise WorkflowNotFoundError(name, known)
        return found
