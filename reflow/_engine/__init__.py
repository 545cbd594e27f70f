"""The engine: the only ring that waits.

clock       what time it is, and waiting for an event or a time
ids         new identifiers
registry    the workflows an engine was given
inspection  what runs and schedules look like from outside
scopes      whether a workflow body has left a cancel scope open, and whether we were cancelled
transactions  bodies that are part of a transaction of the storage
contexts    awaiting within a context of one's own
places      where plain bodies run: so many threads at once, and no more
perform     one attempt of a step body
streams     lifecycle events on their way to a reader
observers   hooks and streams: who is told of lifecycle events
teller      tells them what becomes of one run
bodies      the step bodies of one run: ready, under way, arrived
draft       what was fed and not yet written
mailbox     messages for a run, and who waits for them
execution   feeds what happened to the program, and drafts what is to be written
runner      one claimed run: load, replay, perform, write, until it parks or ends
lease       heartbeats for all runs that are held
worker      the claim loop and the slots
scheduler   the runs of due schedules
ends        the ends of runs, and who waits for them
intake      what is to be run: checked, and made into new runs
standing    where a run stands: its stack, its variables
why         what a run waits for, in a sentence
resuming    an ended run goes on, and its children
access      what all verbs of a client work with
inspector   verbs that look: get_run, list_runs, statistics, why, where
schedules   verbs that keep schedules
client      class Client: all verbs that need no worker
engine      class Engine: a client with a worker and a scheduler
script      reflow.run
"""
