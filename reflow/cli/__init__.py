"""The command line: `reflow`, or `python -m reflow`.

    loading     what `module:workflow` names
    looking     a file that is only looked at
    storages    what `--storage` names
    signals     what stops workers
    worker      one process that runs workflows until it is told to stop
    fleet       several of them, and a parent that looks after them
    copying     all runs of one storage into another
    texts       how times, values and tables look
    showing     all that is stored of one run
    runs        looking at runs, and steering them
    options     the commands and their options
    app         what they lead to

Every command is a thin layer over what can be had from Python. Nothing else imports this package, and `import reflow`
does not load it.
"""

from reflow.cli.app import main

__all__ = ["main"]
