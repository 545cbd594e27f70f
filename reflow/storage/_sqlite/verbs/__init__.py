"""The contract's verbs as functions of a connection: each runs inside a transaction that somebody else opened.

They can be run again after a roll-back, which is what the lane does when a verb beside them fails.

Reading order: rows, runs, mailbox, claims, endings, progress, journal, inspection, pruning, schedules.
"""

from reflow.storage._sqlite.verbs.claims import claim_runs, heartbeat
from reflow.storage._sqlite.verbs.endings import request_cancel, resume_run
from reflow.storage._sqlite.verbs.inspection import count_runs, list_runs
from reflow.storage._sqlite.verbs.journal import get_cut_entries, get_journal
from reflow.storage._sqlite.verbs.mailbox import check_runs, get_messages, send_message
from reflow.storage._sqlite.verbs.progress import save_progress
from reflow.storage._sqlite.verbs.pruning import prune
from reflow.storage._sqlite.verbs.runs import create_runs, get_run
from reflow.storage._sqlite.verbs.schedules import (
    delete_schedule,
    due_schedules,
    fire_schedule,
    get_schedules,
    pause_schedule,
    put_schedule,
)

__all__ = [
    "check_runs",
    "claim_runs",
    "count_runs",
    "create_runs",
    "delete_schedule",
    "due_schedules",
    "fire_schedule",
    "get_cut_entries",
    "get_journal",
    "get_messages",
    "get_run",
    "get_schedules",
    "heartbeat",
    "list_runs",
    "pause_schedule",
    "prune",
    "put_schedule",
    "request_cancel",
    "resume_run",
    "save_progress",
    "send_message",
]
