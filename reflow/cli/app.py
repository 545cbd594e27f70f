"""What the commands lead to.

Exit codes: 0 when it is done; 1 when it could not be done, and one line says why; 2 when the command line is wrong, and
one line says what to write instead.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence

import anyio

from reflow._engine.client import Client
from reflow.cli import runs
from reflow.cli.copying import copy_all
from reflow.cli.fleet import Fleet
from reflow.cli.loading import is_installed, load
from reflow.cli.options import parser
from reflow.cli.showing import show
from reflow.cli.signals import ignored_in_the_end
from reflow.cli.storages import existing, storage_of
from reflow.cli.worker import WorkerEngine, work
from reflow.errors import ConfigError, ReflowError

__all__ = ["main"]

_LOOKING = ("runs", "show", "why")
_LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"


def main(words: Sequence[str] | None = None) -> int:
    """Do what the words of the command line say (default: those of this process), and give the exit code."""
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args(words)
    try:
        match options.command:
            case None:
                parser().print_help(sys.stderr)
                return 2
            case "worker":
                return _worker(options, words)
            case "copy":
                copy_all(options.source, options.target, schema=options.schema, force=options.force)
                return 0
            case _:
                return anyio.run(_ask, options)
    except ReflowError as error:
        print(f"reflow {options.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130


def _worker(options: Namespace, words: Sequence[str]) -> int:
    if options.backend == "trio" and not is_installed("trio"):
        raise ConfigError("trio is not installed: pip install trio")
    ignored_in_the_end()
    # All of it, also where others do the work: a mistake shows at once, and once.
    engine = WorkerEngine(
        storage_of(options.storage, options.schema),
        load(options.workflows),
        concurrency=options.concurrency,
        threads=options.threads,
        lease=options.lease,
        grace=options.grace,
        retention=options.retention,
    )
    # Does nothing where a module has set up logging.
    logging.basicConfig(level=options.log_level.upper(), format=_LOG_FORMAT)
    if options.processes > 1 and not options.member:
        command = [sys.executable, "-m", "reflow", "worker", "--member", *words[1:]]
        return anyio.run(Fleet(command, options.processes).serve)
    work(engine, backend=options.backend, is_member=options.member)
    return 0


async def _ask(options: Namespace) -> int:
    storage = existing(options.storage, options.schema, looks=options.command in _LOOKING)
    async with Client(storage) as client:
        match options.command:
            case "runs":
                return await runs.list_runs(client, options.status, options.workflow, options.tag, options.limit)
            case "why":
                return await runs.why(client, options.run_id)
            case "show":
                return await show(client, options.run_id)
            case "enqueue":
                return await runs.enqueue(client, options)
            case "send":
                return await runs.send(client, options.run_id, options.event, options.payload, options.event_id)
            case "cancel":
                return await runs.cancel(client, options.run_id)
            case "resume":
                return await runs.resume(client, options.run_id)
            case _:
                return await runs.prune(client, options.older_than)
