"""The contract's verbs as functions of a connection: each runs inside a transaction that somebody else opened.

They can be run again after a roll-back, which is what the lane does when a verb beside them fails.

Reading order: rows, runs, mailbox, endings, journal, progress, inspection, pruning, schedules.
"""

from reflow.storage._sql.verbs.endings import request_cancel, resume_run
from reflow.storage._sql.verbs.inspection import count_runs, list_runs
from reflow.storage._sql.verbs.journal import get_cut_entries, get_journal
from reflow.storage._sql.verbs.mailbox import check_runs, get_messages, send_message
from reflow.storage._sql.verbs.progress import save_progress
from reflow.storage._sql.verbs.pruning import prune
from reflow.storage._sql.verbs.runs import create_runs_of_each, get_run
from reflow.storage._sql.verbs.schedules import (
    delete_schedule,
    due_schedules,
    fire_schedule,
    get_schedules,
    pause_schedule,
    put_schedule,
)

__all__ = [
    "check_runs",
    "count_runs",
    "create_runs_of_each",
    "delete_schedule",
    "due_schedules",
    "fire_schedule",
    "get_cut_entries",
    "get_journal",
    "get_messages",
    "get_run",
    "get_schedules",
    "list_runs",
    "pause_schedule",
    "prune",
    "put_schedule",
    "request_cancel",
    "resume_run",
    "save_progress",
    "send_message",
]
