"""The commands and their options. What is wrong with them is said in one line."""

from __future__ import annotations

import os
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from functools import partial
from typing import Any, NoReturn

from reflow import __version__
from reflow._core.duration import to_micros
from reflow._core.status import RunStatus
from reflow.codec import JsonCodec
from reflow.errors import ConfigError, SerializationError

__all__ = ["parser"]

_STORAGE = "a SQLite file (app.db or sqlite:///app.db) or postgresql://user@host/database; default: $REFLOW_STORAGE"
_SCHEMA = "the schema of the tables in Postgres; default: reflow"
_DURATION = "DURATION"

# Shown as they stand here, so no wider than a terminal is.
_WORKER = """\
Run workflows: claim due runs, advance them, take over those of workers that
were killed.

On SIGTERM or Ctrl-C it drains: it claims no more, lets steps in flight end
within the grace, and hands all runs back, so that the next worker goes on with
them at once; the exit code is 0. A second signal ends it without that, and its
runs go on when their leases are over.

A duration is a number with a unit: 500ms, 30s, 1h30m, 14d."""
_EXAMPLES = """\
examples:
  reflow worker app.jobs --storage app.db
  reflow worker app.jobs:signup app.jobs:NIGHTLY --storage app.db --processes 4"""
_COPY = """\
Copy all runs and schedules of SOURCE into TARGET, exactly as they are: journals,
timers, events, tags, keys. What has arrived is compared with what was there; if
anything is wrong, nothing is copied.

Stop all workers first. SOURCE is left as it is, so what is done to it afterwards
is not in TARGET, and a run that goes on in both is done twice."""
_RUNS = """\
List runs, those created last first: a line for each, under a line that names
the columns. Times are UTC, and a dash stands for nothing."""
_SHOW = """\
Print how a run stands, its input, its output or error, and its journal: a line
for each entry, then for each command that waits. Values are JSON, those of the
journal shortened. Times are UTC."""
_ENQUEUE = """\
Store a run of the workflow of this name, and print its id. No code is needed, so
nothing is checked here: a worker has to know the workflow, and its arguments."""
_SEND = """\
Send an event to a run, which keeps it until it waits for it."""
_PRUNE = """\
Delete runs that ended longer ago than that, with all that belongs to them.
`reflow worker --retention` does it now and then."""


class _Parser(ArgumentParser):
    """One that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> ArgumentParser:
    """The whole command line; what was parsed has the `command`, and its options by their names."""
    whole = _Parser(prog="reflow", description="Durable workflows: run them, look at their runs, move them.")
    whole.add_argument("--version", action="version", version=f"reflow {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command")

    def add(usage: str, summary: str, description: str = "", epilog: str = "") -> ArgumentParser:
        name = usage.split()[0]
        command = commands.add_parser(
            name,
            prog=f"reflow {name}",
            usage=f"reflow {usage}",
            help=summary,
            description=description or f"{summary.capitalize()}.",
            epilog=epilog,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if "--storage" in usage:
            known = os.environ.get("REFLOW_STORAGE")
            command.add_argument("--storage", default=known, required=not known, help=_STORAGE)
            command.add_argument("--schema", help=_SCHEMA)
        return command

    worker = add("worker MODULE[:NAME] ... --storage STORAGE [options]", "run workflows", _WORKER, _EXAMPLES)
    _add_worker(worker)
    copy = add("copy SOURCE TARGET [options]", "copy all runs into another storage", _COPY)
    copy.add_argument("source", metavar="SOURCE", help="a storage, as --storage of other commands names it")
    copy.add_argument("target", metavar="TARGET", help="another one, new or empty")
    copy.add_argument("--schema", help="where a storage is a database: the schema of its tables (reflow)")
    copy.add_argument("--force", action="store_true", help="even if workers seem to hold runs of SOURCE")
    runs = add("runs --storage STORAGE [options]", "list runs, those created last first", _RUNS)
    runs.add_argument(
        "--status",
        action="append",
        choices=[status.value for status in RunStatus],
        help="in this state; may be repeated",
    )
    runs.add_argument("--workflow", help="of the workflow of this name")
    runs.add_argument("--tag", action="append", help="with this tag; may be repeated, a run then has all")
    runs.add_argument("--limit", type=_count, metavar="N", default=50, help="how many at most; default: 50")
    why = add("why RUN_ID --storage STORAGE", "say what a run waits for, or how it ended")
    show = add("show RUN_ID --storage STORAGE", "print all that is stored of a run", _SHOW)
    _add_enqueue(
        add("enqueue WORKFLOW [JSON] --storage STORAGE [options]", "store a run, to be started by a worker", _ENQUEUE)
    )
    send = add("send RUN_ID EVENT [JSON] --storage STORAGE [options]", "send an event to a run", _SEND)
    cancel = add("cancel RUN_ID --storage STORAGE", "cancel a run, with its clean-up")
    resume = add("resume RUN_ID --storage STORAGE", "let a failed or cancelled run go on, finished steps are kept")
    for command in (why, show, send, cancel, resume):
        command.add_argument("run_id", metavar="RUN_ID")
    send.add_argument("event", metavar="EVENT", help="its name")
    send.add_argument(
        "payload", metavar="JSON", nargs="?", default="null", type=_value, help="what comes with it; default: null"
    )
    send.add_argument("--event-id", metavar="ID", help="the same one is taken once, however often it is sent")
    prune = add("prune --older-than DURATION --storage STORAGE", "delete runs that ended long ago", _PRUNE)
    prune.add_argument("--older-than", type=_duration, required=True, metavar=_DURATION, help="such as 30d")
    return whole


def _add_enqueue(command: ArgumentParser) -> None:
    add = command.add_argument
    add("workflow", metavar="WORKFLOW", help="its name")
    add(
        "arguments",
        metavar="JSON",
        nargs="?",
        default="{}",
        type=_arguments,
        help="its arguments by name; default: none",
    )
    add("--version", type=_count, metavar="N", help="of the workflow; default: 1")
    add("--run-id", metavar="ID", help="default: a new one")
    add("--idempotency-key", metavar="KEY", help="a run of this workflow that has it is not stored again")
    add("--delay", type=_duration, metavar=_DURATION, help="how long it is not started")
    add("--priority", type=int, metavar="N", default=0, help="from -1000 to 1000, higher ones first; default: 0")
    add("--tag", action="append", help="a text by which it is found; may be repeated")


def _add_worker(command: ArgumentParser) -> None:
    command.add_argument(
        "workflows",
        nargs="+",
        metavar="MODULE[:NAME]",
        help="a workflow, or a list of them, by its name in a module; without a name, all that the module defines. "
        "The current directory is searched too",
    )
    count = partial(command.add_argument, type=_count, metavar="N")
    count("--processes", default=1, help="so many, and one that replaces those that die; default: 1")
    count("--concurrency", default=100, help="runs that a process advances at once; default: 100")
    count("--threads", default=40, help="plain functions that a process runs at once; default: 40")
    duration = partial(command.add_argument, type=_duration, metavar=_DURATION)
    duration("--lease", default="30s", help="how long others wait after a kill; default: 30s")
    duration("--grace", default="5s", help="how long steps in flight may go on when it stops; default: 5s")
    duration("--retention", help="delete runs that ended longer ago; default: keep them")
    add = command.add_argument
    add("--backend", choices=["asyncio", "trio"], default="asyncio", help="the event loop; default: asyncio")
    add(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="what is logged to standard error, unless a module sets up logging itself; default: info",
    )
    # A process of several, which stops when its standard input ends.
    add("--member", action="store_true", help=SUPPRESS)


def _value(text: str) -> Any:
    try:
        return JsonCodec().decode(text.encode(), Any)
    except (SerializationError, UnicodeEncodeError):
        raise ArgumentTypeError(f"""{text!r} is no JSON; write '7', '"text"' or '{{"name": 7}}'""") from None


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments: dict[str, Any] = JsonCodec().decode(text.encode(), dict[str, Any])
    except (SerializationError, UnicodeEncodeError):
        raise ArgumentTypeError(
            f"""{text!r} is no object in JSON; write arguments by name: '{{"name": 7}}'"""
        ) from None
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _duration(text: str) -> str:
    try:
        to_micros(text)
    except ConfigError:
        raise ArgumentTypeError(f"{text!r} is no duration; write 500ms, 30s, 1h30m or 14d") from None
    return text
