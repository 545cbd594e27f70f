"""What callers want to be run, and how: checked, and made into new runs. Also whether a run that is there is the same.

A workflow is named by a call, or by text with its arguments as data where the code is not at hand. An engine refuses
what it does not know; a client takes it on trust.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict, cast

from reflow._core.command import checked_name
from reflow._core.definition import Call, Workflow
from reflow._core.duration import Duration, to_micros
from reflow._core.misuse import explain_call
from reflow._core.replay import RULES
from reflow._core.status import RunStatus
from reflow._engine.ids import new_id
from reflow._engine.registry import Registry
from reflow.codec import Codec
from reflow.errors import (
    ConfigError,
    IdempotencyConflictError,
    RunConflictError,
    SerializationError,
    ValidationError,
)
from reflow.storage.records import NewRun, RunRow

__all__ = [
    "CommonOptions",
    "EnqueueOptions",
    "Order",
    "check_options",
    "check_same",
    "checked_statuses",
    "checked_tags",
    "checked_text",
    "new_run",
    "take_order",
]

_PRIORITIES = range(-1_000, 1_001)


class CommonOptions(TypedDict, total=False):
    """How runs are to be started: when (after `delay`), before which others, and with which `tags`."""

    delay: Duration | None
    priority: int
    tags: Iterable[str] | None


class EnqueueOptions(CommonOptions, total=False):
    """How one run is to be started: also under which id, and which key."""

    run_id: str | None
    idempotency_key: str | None


def check_options(options: Mapping[str, Any], allowed: frozenset[str], verb: str) -> None:
    """Raise, as for any function, where one of `options` is none of `verb`: as a rule an argument of the workflow."""
    for name in options.keys() - allowed:
        raise TypeError(
            f"{verb}() got an unexpected keyword argument {name!r}; its options are {', '.join(sorted(allowed))}. What "
            f"the workflow takes goes into the call, signup({name}=...), or by name into a dict: 'signup', {{{name!r}: "
            "...}"
        )


class Order(NamedTuple):
    """What is to be run: a workflow, its code where that is at hand, and the input."""

    name: str
    version: int | None
    workflow: Workflow[..., Any] | None
    input: bytes
    run_id: str | None = None

    @property
    def input_type(self) -> Any:
        """As what the input is read; any data without the code."""
        return Any if self.workflow is None else self.workflow.input_type

    @property
    def output_type(self) -> Any:
        """As what the result is read."""
        return Any if self.workflow is None else self.workflow.output_type


def take_order(
    call: Call[Any] | str,
    arguments: Mapping[str, Any] | None,
    version: int | None,
    *,
    registry: Registry | None,
    codec: Codec,
    verb: str,
) -> Order:
    """What `verb` was asked to run.

    Raises `ConfigError` for what names no workflow, `WorkflowNotFoundError` for one that is not in `registry` (None:
    all are welcome), `ValidationError` and `SerializationError` for a wrong input.
    """
    if isinstance(call, Call):
        if arguments is not None or version is not None:
            raise ConfigError(f"{verb} got a call, which has its arguments and its version; leave the others out")
        workflow = call.workflow
        if registry is not None:
            registry.require(workflow.name, workflow.version)
        data = workflow.encode_input(call.arguments, codec)
        return Order(workflow.name, workflow.version, workflow, data, call.run_id)
    if not isinstance(call, str):
        by_name = f"{verb}('signup', {{'user': ...}})"
        raise ConfigError(f"{explain_call(call, verb)}, or write its name and its arguments: {by_name}")
    name = checked_name(call, "the name of a workflow")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise ConfigError(f"version is {version!r}; write a whole number from 1 up")
    named = _named({} if arguments is None else arguments, verb)
    if registry is None:
        try:
            return Order(name, version, None, codec.encode(named))
        except SerializationError as error:
            raise error.about(f"input of workflow {name!r}") from None
    found = registry.require(name, version)
    for argument in named.keys() - {*found.input_type.__struct_fields__}:
        raise ValidationError(f"input of workflow {name!r}", f"there is no parameter {argument!r}", f"$.{argument}")
    return Order(name, version, found, found.encode_input(named, codec))


def _named(arguments: Mapping[Any, Any], verb: str) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        raise ConfigError(f"arguments is {arguments!r}; write them by name: {verb}('signup', {{'user': ...}})")
    named = dict(arguments)
    if wrong := [name for name in named if not isinstance(name, str)]:
        raise ConfigError(f"arguments has the key {wrong[0]!r}; write the name of a parameter")
    return named


def new_run(
    order: Order,
    now: int,
    *,
    run_id: str | None = None,
    idempotency_key: str | None = None,
    delay: Duration | None = None,
    priority: int = 0,
    tags: Iterable[str] | None = None,
) -> NewRun:
    """The run to be created; `ConfigError` for an option that is none."""
    chosen = order.run_id if run_id is None else checked_text(run_id, "run_id")
    if idempotency_key is not None:
        checked_text(idempotency_key, "idempotency_key")
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in _PRIORITIES:
        raise ConfigError(f"priority is {priority!r}; write a whole number from -1000 to 1000, 0 as a rule")
    return NewRun(
        run_id=chosen or new_id(now),
        workflow=order.name,
        version=_version(order),
        rules=RULES,
        input=order.input,
        due_at=now if delay is None else now + to_micros(delay, what="delay"),
        created_at=now,
        priority=priority,
        tags=() if tags is None else checked_tags(tags),
        idempotency_key=idempotency_key,
    )


def _version(order: Order) -> int:
    return order.workflow.version if order.workflow else order.version or 1


def checked_tags(tags: object) -> tuple[str, ...]:
    """`tags`, each once; `ConfigError` where they are none."""
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise ConfigError(f"tags is {tags!r}; write a list of texts: tags=['import', 'nightly']")
    return tuple(dict.fromkeys(checked_name(tag, "a tag") for tag in cast("Iterable[object]", tags)))


def checked_statuses(statuses: object, what: str) -> tuple[RunStatus, ...]:
    """`statuses` as such, each once; `ConfigError` where one is none."""
    given: list[object] = [statuses]
    if isinstance(statuses, Iterable) and not isinstance(statuses, str):
        given = [*cast("Iterable[object]", statuses)]
    try:
        return tuple(dict.fromkeys(RunStatus(str(status)) for status in given))
    except ValueError as error:
        raise ConfigError(f"{what} is {statuses!r}: {error}; write one of {', '.join(RunStatus)}") from None


def checked_text(value: object, what: str) -> str:
    """`value`, where it is a text that every storage can keep, and not empty; `ConfigError` where it is none."""
    try:
        if isinstance(value, str) and value.encode():
            return value
    except UnicodeEncodeError:
        pass
    if isinstance(getattr(value, "run_id", None), str):
        raise ConfigError(f"{what} is a {type(value).__name__}; write the id that it has, `.run_id`")
    raise ConfigError(f"{what} is {value!r}; write a text that is not empty, in Unicode without surrogates")


def check_same(row: RunRow, new: NewRun, order: Order, registry: Registry | None, codec: Codec) -> None:
    """Raise where the run that is there instead of `new` is not the one that was asked for."""
    by_key = new.idempotency_key is not None and row.idempotency_key == new.idempotency_key
    if new.idempotency_key is not None and not by_key:
        raise RunConflictError(row.run_id, f"the idempotency key {row.idempotency_key!r}")
    if row.generation:
        # It has continued as new; what it began as is not kept.
        return
    if row.workflow != new.workflow:
        raise RunConflictError(row.run_id, f"the workflow {row.workflow!r}")
    if registry is not None and not row.status.is_terminal and registry.find(row.workflow, row.version) is None:
        raise RunConflictError(row.run_id, f"version {row.version} of its workflow, unknown to this engine")
    # Compared as values: the order of keys, a parameter added since then, or an encrypting codec may make equal
    # inputs unequal bytes.
    if row.input == new.input:
        return
    try:
        known, given = (codec.decode(data, order.input_type) for data in (row.input, new.input))
    except SerializationError:
        known, given = row.input, new.input
    if known != given:
        if by_key:
            raise IdempotencyConflictError(row.workflow, row.idempotency_key or "")
        raise RunConflictError(row.run_id, "another input")
