"""`@workflow`: a generator function with a name, a version and typed inputs; and the call, its arguments bound.

Annotations are read on first use and not at decoration, so that a workflow may name a class defined below it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from functools import cached_property, partial, update_wrapper
from types import GenericAlias
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar, cast, get_args, get_type_hints, overload

from msgspec import Struct, defstruct, field
from msgspec.structs import replace

from reflow._core.command import Command, checked_name
from reflow._core.forgotten import noted, replaced
from reflow.codec import Codec
from reflow.errors import ConfigError, SerializationError, ValidationError

__all__ = ["Call", "Workflow", "annotations_of", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_Kind = inspect.Parameter


class Workflow(Generic[P, R_co]):
    """A durable workflow: made by `@workflow`, given to `Engine`, called to make a `Call`."""

    def __init__(self, function: Callable[P, Generator[Any, Any, R_co]], name: str, version: int) -> None:
        update_wrapper(self, function)
        self.function = function
        self.name = name
        self.version = version
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        # The names of the parameters, where they are plain ones.
        self._names = tuple(each.name for each in parameters if each.kind is _Kind.POSITIONAL_OR_KEYWORD)
        self._is_plain = len(self._names) == len(parameters)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """The call of this workflow with these arguments: a value; nothing runs yet. `TypeError` as for any function
        where arguments are missing or too many."""
        if self._is_plain and not kwargs and len(args) == len(self._names):
            # All by position: the same as below, and much quicker.
            arguments = dict(zip(self._names, args, strict=True))
        else:
            try:
                bound = self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}(): {error}") from None
            bound.apply_defaults()
            arguments = dict(bound.arguments)
        made: Call[R_co] = Call(self, arguments)
        noted(made)
        return made

    def __repr__(self) -> str:
        return f"<workflow {self.name!r} version {self.version}>"

    @cached_property
    def output_type(self) -> Any:
        """The `R` of the `Flow[R]` it is annotated to return; Any without one."""
        arguments = get_args(annotations_of(self.function).get("return", Any))
        return arguments[2] if len(arguments) == 3 else Any

    @cached_property
    def input_type(self) -> type[Struct]:
        """A struct with a field for each parameter."""
        hints = annotations_of(self.function)
        fields: list[Any] = []
        for name, parameter in self._signature.parameters.items():
            hint = hints.get(name, Any)
            match parameter.kind:
                case _Kind.VAR_POSITIONAL:
                    fields.append((name, GenericAlias(tuple, (hint, ...))))
                case _Kind.VAR_KEYWORD:
                    fields.append((name, GenericAlias(dict, (str, hint))))
                case _ if parameter.default is _Kind.empty:
                    fields.append((name, hint))
                case _:
                    # A parameter added since the run began takes its default.
                    fields.append((name, hint, field(default_factory=_always(parameter.default))))
        return defstruct(self.name, fields, kw_only=True, module=__name__)

    @cached_property
    def _new_input_type(self) -> type[Struct]:
        """The same, which takes no other fields: what nobody knows would be dropped without a word."""
        return defstruct(self.name, (), bases=(self.input_type,), forbid_unknown_fields=True, module=__name__)

    def encode_input(self, arguments: dict[str, Any], codec: Codec) -> bytes:
        """`arguments` as bytes, checked against the annotations.

        Raises `SerializationError` where one is not data, `ValidationError` where one does not fit its type.
        """
        subject = f"input of workflow {self.name!r}"
        try:
            data = codec.encode(arguments)
        except SerializationError as error:
            raise error.about(subject) from None
        try:
            codec.decode(data, self.input_type)
        except SerializationError as error:
            raise ValidationError(subject, error.reason, error.path) from None
        return data

    def start(self, data: bytes, codec: Codec, *, is_new: bool = False) -> Generator[Any, Any, R_co]:
        """The generator of a run with the stored input `data`, not yet started.

        A run that is new may have been named by text, with arguments that nobody has checked: it is refused where there
        is no parameter for one. One that has begun goes on without a parameter that was taken away since.
        """
        try:
            values = codec.decode(data, self._new_input_type if is_new else self.input_type)
        except SerializationError as error:
            raise error.about(f"stored input of workflow {self.name!r}") from None
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, parameter in self._signature.parameters.items():
            value = getattr(values, name)
            match parameter.kind:
                case _Kind.VAR_POSITIONAL:
                    positional.extend(value)
                case _Kind.VAR_KEYWORD:
                    named.update(value)
                case _Kind.KEYWORD_ONLY:
                    named[name] = value
                case _:
                    positional.append(value)
        return cast("Callable[..., Generator[Any, Any, R_co]]", self.function)(*positional, **named)


class Call(Command[R_co], frozen=True, weakref=True, eq=True):
    """A workflow with its arguments bound, as `signup(user)` makes it: a value that can be enqueued.

    It is also a command: a workflow that yields it starts a child run, waits for its end and is given its result.
    """

    kind: ClassVar[str] = "child"

    workflow: Workflow[..., R_co]
    arguments: dict[str, Any]
    run_id: str | None = None

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The name of the workflow."""
        return self.workflow.name

    def options(self, *, run_id: str) -> Call[R_co]:
        """A changed copy. `run_id` is the id of the run that it starts where a workflow yields or spawns it (default:
        one that follows from the id of the run that yields it, and the place).

        Raises `ConfigError` for an id that is no text, or empty.
        """
        changed = replace(self, run_id=checked_name(run_id, "run_id"))
        replaced(self)
        noted(changed)
        return changed

    def __repr__(self) -> str:
        return f"{self.workflow.name}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


@overload
def workflow(function: Callable[P, Generator[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, version: int = 1
) -> Callable[[Callable[P, Generator[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[P, Generator[Any, Any, R]] | None = None, /, *, name: str | None = None, version: int = 1
) -> Workflow[P, R] | Callable[[Callable[P, Generator[Any, Any, R]]], Workflow[P, R]]:
    """Make a workflow of a generator function.

    `name` (default: the function's `__name__`) is what the run's row keeps, so renaming the function is safe only with
    an explicit one. `version` is a whole number from 1 up; a run stays with the version it began with.

    Raises `ConfigError` for anything that is not a plain generator function.
    """
    if name is not None:
        checked_name(name, "name")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"version is {version!r}; write a whole number from 1 up")

    def decorate(function: Callable[P, Generator[Any, Any, R]]) -> Workflow[P, R]:
        _check(function)
        called = name or getattr(function, "__name__", None)
        if called is None:
            raise ConfigError(f"{function!r} has no name of its own; write @workflow(name=...)")
        return Workflow(function, called, version)

    return decorate if function is None else decorate(function)


def _check(function: Any) -> None:
    called = getattr(function, "__name__", repr(function))
    if inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(function):
        raise ConfigError(f"workflow {called!r} is an `async def`; write `def {called}(...)` and yield commands")
    if called == "<lambda>":
        raise ConfigError("a lambda cannot be a workflow, it has no name; write `def name(...)` and yield commands")
    if not inspect.isgeneratorfunction(function):
        raise ConfigError(
            f"workflow {called!r} has no `yield`, so it is no generator function; write `def {called}(...)` "
            "and yield commands, such as `result = yield step(...)`"
        )


def _always(value: Any) -> Callable[[], Any]:
    return lambda: value


def annotations_of(function: Any) -> dict[str, Any]:
    """The resolved annotations of a function; `ConfigError` where one of them cannot be resolved."""
    while isinstance(function, partial):
        function = function.func
    try:
        # What is written in C has none.
        return get_type_hints(function, include_extras=True) if getattr(function, "__annotations__", None) else {}
    except Exception as error:
        # Annotations are expressions, so anything can be raised; a name that cannot be found is the usual case.
        raise ConfigError(
            f"an annotation of {getattr(function, '__qualname__', function)!r} cannot be resolved: {error}. "
            "Define that class at the top level of its module, and import it outside `if TYPE_CHECKING`"
        ) from None
