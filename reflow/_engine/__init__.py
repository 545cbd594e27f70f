"""The engine: the only ring that waits.

clock       what time it is, and waiting for an event or a time
ids         new identifiers
registry    the workflows an engine was given
inspection  what a run looks like from outside
scopes      whether a workflow body has left a cancel scope open
perform     one attempt of a step body
bodies      the step bodies of one run: ready, under way, arrived
draft       what was fed and not yet written
mailbox     messages for a run, and who waits for them
execution   feeds what happened to the program, and drafts what is to be written
runner      one claimed run: load, replay, perform, write, until it parks or ends
lease       heartbeats for all runs that are held
worker      the claim loop and the slots
ends        the ends of runs, and who waits for them
client      verbs that need no worker: enqueue, get_run, handle
engine      class Engine: a client with a worker
script      reflow.run
"""
