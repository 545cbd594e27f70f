"""`@workflow`, calls, and the way inputs are checked and handed over."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest

from reflow._core.command import Flow
from reflow._core.definition import Workflow, annotations_of, workflow
from reflow._core.steps import step
from reflow.codec import MsgpackCodec
from reflow.errors import ConfigError, SerializationError, ValidationError
from tests.support.driven import CODEC, work

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class User:
    email: str
    age: int = 18


@workflow
def signup(user: User, trial: bool = True, *, source: str = "web") -> Flow[str]:
    """Signs a user up."""
    yield step(work)
    return f"{user} {trial} {source}"


def arguments(call):
    """The arguments with which the body of `call` is started, and what it returns."""
    return values(call.workflow, call.workflow.encode_input(call.arguments, CODEC))


def values(definition, data):
    """The local variables of the body started with stored `data`."""
    generator = definition.start(data, CODEC)
    return dict(generator.gi_frame.f_locals)


def test_a_workflow_is_named_after_its_function():
    """[1] The name is the function's, the version 1, unless they are given."""

    @workflow(name="sign-up", version=3)
    def other() -> Flow[None]:
        yield step(work)

    assert [("signup", 1), ("sign-up", 3)] == [(signup.name, signup.version), (other.name, other.version)]


def test_the_decorator_works_with_empty_parentheses():
    """`@workflow()` is the same as `@workflow`."""

    @workflow()
    def other() -> Flow[None]:
        yield step(work)

    assert (Workflow, "other") == (type(other), other.name)


def test_a_workflow_keeps_the_functions_docstring():
    """Help and documentation tools see the function."""
    assert ("Signs a user up.", "signup") == (signup.__doc__, signup.__name__)


def test_calling_makes_a_value():
    """[2] A call is a value: workflow and arguments, defaults included; nothing has run."""
    call = signup(User("a@b.c"), source="mail")

    assert (signup, {"user": User("a@b.c"), "trial": True, "source": "mail"}) == (call.workflow, call.arguments)


def test_a_call_is_immutable():
    """[3] A call cannot be changed."""
    call = signup(User("a@b.c"))
    with pytest.raises(AttributeError):
        call.arguments = {}


def test_a_call_reads_like_a_call():
    """A call and a workflow describe themselves."""
    assert ("signup(user=User(email='a@b.c', age=18), trial=False, source='web')", "<workflow 'signup' version 1>") == (
        repr(signup(User("a@b.c"), False)),
        repr(signup),
    )


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "signup(): missing a required argument: 'user'"),
        ((1, 2, 3), {}, "signup(): too many positional arguments"),
        ((1,), {"colour": 2}, "signup(): got an unexpected keyword argument 'colour'"),
    ],
)
def test_wrong_arguments_are_a_type_error(args, kwargs, problem):
    """Missing and superfluous arguments are refused where the call is written, as for any function."""
    with pytest.raises(TypeError) as caught:
        signup(*args, **kwargs)

    assert problem == str(caught.value)


# ---- what is refused at decoration -----------------------------------------------------------------------------------


async def coroutine_function():
    """Not a generator function."""


async def async_generator_function():
    """Not a plain generator function."""
    yield step(work)


def no_yield():
    """Not a generator function."""
    return 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (
            coroutine_function,
            "workflow 'coroutine_function' is an `async def`; write `def coroutine_function(...)` and yield commands",
        ),
        (
            async_generator_function,
            "workflow 'async_generator_function' is an `async def`; "
            "write `def async_generator_function(...)` and yield commands",
        ),
        (
            no_yield,
            "workflow 'no_yield' has no `yield`, so it is no generator function; write `def no_yield(...)` "
            "and yield commands, such as `result = yield step(...)`",
        ),
        (lambda: (yield), "a lambda cannot be a workflow, it has no name; write `def name(...)` and yield commands"),
        (lambda: 1, "a lambda cannot be a workflow, it has no name; write `def name(...)` and yield commands"),
        ("signup", "workflow \"'signup'\" has no `yield`"),
        (print, "workflow 'print' has no `yield`"),
    ],
    ids=repr,
)
def test_what_is_no_generator_function_is_refused(function, problem):
    """[8] Lambdas, async functions, and functions without a yield are refused at decoration, saying what to write."""
    with pytest.raises(ConfigError) as caught:
        workflow(function)

    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": ""}, "name is ''; write a text that is not empty"),
        ({"name": "  "}, "name is '  '; write a text that is not empty"),
        ({"name": 5}, "name is 5; write a text that is not empty"),
        ({"version": 0}, "version is 0; write a whole number from 1 up"),
        ({"version": "2"}, "version is '2'; write a whole number from 1 up"),
        ({"version": True}, "version is True; write a whole number from 1 up"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options, problem):
    """An empty name and a version that is no whole number from 1 up are refused at decoration."""
    with pytest.raises(ConfigError) as caught:
        workflow(**options)

    assert problem == str(caught.value)


def test_a_partial_needs_a_name():
    """A partial has no name of its own: with one it is a workflow, without one it is refused."""
    partial = functools.partial(signup.function, User("a@b.c"))
    with pytest.raises(ConfigError) as caught:
        workflow(partial)

    named = workflow(name="for_a")(partial)

    assert ("for_a", str, True) == (named.name, named.output_type, "write @workflow(name=...)" in str(caught.value))


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_inputs_are_converted_to_their_types():
    """[1][13] The body receives its arguments as the annotated types, defaults filled in."""
    assert {"user": User("a@b.c", 18), "trial": True, "source": "mail"} == arguments(
        signup({"email": "a@b.c"}, source="mail")
    )


def test_every_kind_of_parameter_is_handed_over():
    """[13] Positional-only, keyword-only, `*args` and `**kwargs` arrive where they belong, with their types."""

    @workflow
    def many(a: int, /, b: datetime, *rest: User, c: float = 0.5, **more: User) -> Flow[None]:
        yield step(work)

    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert {"a": 1, "b": moment, "rest": (User("x"), User("y")), "c": 2.0, "more": {"d": User("z")}} == arguments(
        many(1, moment, User("x"), {"email": "y"}, c=2, d={"email": "z"})
    )


def test_no_parameters_are_needed():
    """A workflow without parameters has an empty input."""

    @workflow
    def bare() -> Flow[None]:
        yield step(work)

    assert {} == arguments(bare())


@pytest.mark.parametrize("name", ["self", "cls", "name", "kw_only", "_private", "type", "__struct_fields__"])
def test_a_parameter_may_have_any_name(name):
    """No name of a parameter is reserved."""
    namespace: dict[str, Any] = {}
    exec(f"def odd({name}: int):\n    yield", namespace)

    assert {name: 5} == arguments(workflow(namespace["odd"])(5))


def test_parameters_without_annotation_take_any_data():
    """Without an annotation an argument arrives as plain data."""

    @workflow
    def loose(value, other=None):
        yield step(work)

    assert {"value": {"a": [1, None]}, "other": None} == arguments(loose({"a": (1, None)}))


def test_a_default_is_taken_as_it_is():
    """Each run gets the default of a parameter that its stored input lacks: one that was added since it began."""
    data = CODEC.encode({"user": {"email": "a@b.c"}})

    assert {"user": User("a@b.c"), "trial": True, "source": "web"} == values(signup, data)


def test_a_parameter_taken_away_is_ignored():
    """A stored argument for which there is no parameter any more is left out."""
    data = CODEC.encode({"user": {"email": "a@b.c"}, "colour": "red"})

    assert {"user", "trial", "source"} == set(values(signup, data))


@pytest.mark.parametrize(
    ("user", "path", "reason"),
    [
        ({"email": 5}, "$.user.email", "Expected `str`, got `int`"),
        ({}, "$.user", "Object missing required field `email`"),
        (User("a@b.c", "old"), "$.user.age", "Expected `int`, got `str`"),
        (None, "$.user", "Expected `object`, got `null`"),
    ],
    ids=repr,
)
def test_an_input_that_does_not_fit_is_a_validation_error(user, path, reason):
    """[13] An input that does not fit its annotated type is refused with the path of what is wrong."""
    call = signup(user)
    with pytest.raises(ValidationError) as caught:
        signup.encode_input(call.arguments, CODEC)

    assert ("input of workflow 'signup'", path) == (caught.value.subject, caught.value.path)
    assert reason.split("`")[1] in caught.value.reason


def test_an_input_that_is_not_data_is_a_serialization_error():
    """[18] An input that cannot be stored is refused, naming the workflow and the path."""
    call = signup(User("a@b.c", float("nan")))
    with pytest.raises(SerializationError) as caught:
        signup.encode_input(call.arguments, CODEC)

    assert "input of workflow 'signup': nan is not data; use None, or a Decimal (at $.user.age)" == str(caught.value)


def test_a_stored_input_that_no_longer_fits_is_named():
    """[19] A stored input that does not fit the parameters of today is an error that names workflow and field."""
    with pytest.raises(SerializationError) as caught:
        signup.start(CODEC.encode({"user": {"email": 1}}), CODEC)

    assert ("stored input of workflow 'signup'", "$.user.email") == (caught.value.subject, caught.value.path)


def test_constraints_hold():
    """Constraints in annotations are checked."""

    @workflow
    def bounded(count: Annotated[int, msgspec.Meta(le=3)]) -> Flow[None]:
        yield step(work)

    with pytest.raises(ValidationError):
        bounded.encode_input(bounded(4).arguments, MsgpackCodec())


# ---- annotations -----------------------------------------------------------------------------------------------------


def flow_of_user() -> Flow[User]:
    yield step(work)


def generator_of_user() -> Generator[Any, Any, list[User]]:
    yield step(work)


def flow_of_nothing() -> Flow[None]:
    yield step(work)


def iterator() -> Iterator[int]:
    yield 1


def bare_flow() -> Flow:
    yield step(work)


def unannotated():
    yield step(work)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (flow_of_user, User),
        (generator_of_user, list[User]),
        (flow_of_nothing, type(None)),
        (iterator, Any),
        (unannotated, Any),
    ],
)
def test_the_output_type_is_that_of_the_flow(function, expected):
    """The output is read as the R of Flow[R] or of a Generator; as any data without one."""
    assert expected == workflow(function).output_type


def test_a_bare_flow_gives_any_data():
    """`-> Flow` without a type can be read as any data."""
    assert [1] == CODEC.decode(CODEC.encode([1]), workflow(bare_flow).output_type)


def only_for_type_checkers(amount: Decimal) -> Flow[None]:
    yield step(work)


def no_such_attribute(amount: msgspec.Nothing) -> Flow[None]:
    yield step(work)


def no_expression(amount: "an amount in cents") -> Flow[None]:  # noqa: F722
    yield step(work)


def no_type(amount: 1 | "x") -> Flow[None]:  # noqa: F821, UP037
    yield step(work)


@pytest.mark.parametrize("function", [only_for_type_checkers, no_such_attribute, no_expression, no_type])
def test_an_annotation_that_cannot_be_resolved_is_a_config_error(function):
    """An annotation that only type checkers see, or that is none, is refused naming the function and what to do."""
    definition = workflow(function)
    with pytest.raises(ConfigError) as caught:
        definition.encode_input(definition(1).arguments, CODEC)

    assert (True, True) == (
        str(caught.value).startswith(f"an annotation of {function.__name__!r} cannot be resolved: "),
        "import it outside `if TYPE_CHECKING`" in str(caught.value),
    )


def test_a_workflow_may_name_a_class_defined_below_it():
    """Annotations are read on first use and not at decoration."""
    assert {"later": Later(1)} == arguments(early(Later(1)))


@workflow
def early(later: Later) -> Flow[None]:
    yield step(work)


@dataclass
class Later:
    number: int


def test_what_has_no_annotations_has_none():
    """Built-in functions can be asked for annotations as well."""
    assert {} == annotations_of(len)
