"""The workflows an engine was given."""

from __future__ import annotations

import pytest

from reflow import ConfigError, DuplicateWorkflowError, Flow, Workflow, WorkflowNotFoundError, sleep, workflow
from reflow._engine.registry import Registry


@workflow
def one() -> Flow[None]:
    """Version 1."""
    yield sleep(0)


@workflow(name="one", version=2)
def newer() -> Flow[None]:
    """Version 2."""
    yield sleep(0)


@workflow
def other() -> Flow[None]:
    """Another name."""
    yield sleep(0)


def test_by_name_and_version() -> None:
    """Workflows are found by name and version, and by nothing else."""
    registry = Registry([one, newer])
    found = [registry.find(*key) for key in (("one", 1), ("one", 2), ("one", 3), ("other", 1), ("newer", 2))]

    assert [one, newer, None, None, None] == found
    assert (("one", 1), ("one", 2)) == registry.keys


def test_nothing() -> None:
    """An engine without workflows knows none, and says so."""
    registry = Registry([])

    assert () == registry.keys
    with pytest.raises(WorkflowNotFoundError, match="It knows: none"):
        registry.require("one")


def test_unknown() -> None:
    """An unknown workflow or version is refused, naming those that are known."""
    registry = Registry([newer, other])

    assert other is registry.require("other")
    with pytest.raises(
        WorkflowNotFoundError, match=r"does not know the workflow 'one'.*: one \(version 2\), other$"
    ) as e:
        registry.require("one", 1)
    assert ("one", ("one (version 2)", "other")) == (e.value.workflow, e.value.known)


def test_the_latest() -> None:
    """[101] Without a version, the latest of a name is meant, in whatever order they were given."""
    registry = Registry([newer, other, one])

    assert (newer, one, other) == (registry.require("one"), registry.require("one", 1), registry.require("other"))
    assert ("one", "other") == registry.names


def test_any_iterable() -> None:
    """Workflows may come from any iterable, once."""
    workflows: dict[str, Workflow[[], None]] = {"a": one, "b": other}

    assert (("one", 1), ("other", 1)) == Registry(workflows.values()).keys == Registry(iter([one, other])).keys


def test_the_same_one_twice() -> None:
    """[4] The same workflow twice is one of one name and version too many."""
    with pytest.raises(DuplicateWorkflowError):
        Registry([one, one])


def test_annotations_are_read_here() -> None:
    """Annotations are resolved when the engine is made, so that a wrong one shows at once."""

    @workflow
    def flow() -> Flow[Nowhere]:  # type: ignore[name-defined]  # noqa: F821
        yield sleep(0)

    with pytest.raises(ConfigError, match="'Nowhere' is not defined"):
        Registry([flow])
